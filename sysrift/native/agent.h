/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where the agent's parts lie. sysrift/agent/code.py has the same numbers, and checks them against
   the vector at the start of the code. AGENT_SITES: struct descriptor of each site. */
#define AGENT_CODE 0x1e1000000000
#define AGENT_SITES 0x1e1000008000
#define AGENT_CONTROL 0x1e1000010000
#define AGENT_STACK_TOP 0x1e1000018000
#define AGENT_CRC 0x1e1000018000
#define AGENT_RANGES 0x1e100001a000
/* A byte for each file descriptor: whether what it writes to is known not to be mapped. */
#define AGENT_DESCRIPTORS 0x1e100001e000
#define AGENT_ROWS 0x1e1000020000
/* In a replay: the addresses that records name by their index. */
#define PLAYER_SITES 0x1e1000080000
#define AGENT_RECORDS 0x1e1000100000
#define AGENT_SEGMENTS 0x1e1000300000
#define AGENT_PAYLOAD 0x1e1000500000
#define AGENT_END 0x1e1001000000

#define MAX_RECORDS 16384
#define MAX_SEGMENTS 65536
#define MAX_PAYLOAD 0x200000
#define MAX_RANGES 1024
#define MAX_KEPT 64
#define MAX_DESCRIPTORS 4096
#define MAX_IOVEC 64
#define MAX_ROWS 512 /* of system calls; as many more for commands of multiplexed ones */

/* struct registers of the call at hand */
#define AGENT_REGISTERS (AGENT_STACK_TOP - 15 * 8)

/* struct control */
#define SAVED_RSP 0
#define STOP 8
#define PHASE 36
/* resume is at 16: agent.ld */

/* Why the agent stops for the recorder: a call that it leaves to it; one that it made; one of which it
   cannot say what it wrote. */
#define STOP_HANDOVER 1
#define STOP_MADE 2
#define STOP_BY_HAND 3
/* ... the player: there is no record for it any more. */
#define STOP_LIMIT 4

#define STUB 0x1e0000000000
