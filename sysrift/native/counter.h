/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where the counter's parts lie. sysrift/replay/counter.py has the same numbers, and checks them
   against the vector at the start of the code. */
#define COUNTER_CODE 0x1e2000000000
#define COUNTER_STATE 0x1e2000010000
#define COUNTER_STACK_TOP 0x1e2000020000
#define COUNTER_TARGETS 0x1e2000100000 /* struct target: blocks that an indirect jump went to */
#define COUNTER_HEADS 0x1e2000200000
#define COUNTER_BLOCKS 0x1e2000300000
#define COUNTER_EXITS 0x1e2000800000
#define COUNTER_END 0x1e2001000000

#define TARGETS 65536
#define HEADS 65536
#define MAX_BLOCKS 0x20000
#define MAX_EXITS 0x40000

/* struct state */
#define REGISTERS 0
#define FLAGS 128
#define RESUME 136
#define ARGUMENT 144
#define LEFT 152
#define WHY 160
#define SPARE 168
#define STACK 176
#define ABOVE_LEFT 184
#define ABOVE_BLOCK 192
#define VALUE 200

#define WHY_BEGIN 0
#define WHY_EXIT 1
#define WHY_LIMIT 2
#define WHY_PROBE 3
#define WHY_INDIRECT 4
