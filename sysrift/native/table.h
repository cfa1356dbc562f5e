/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the recording agent and the player of a replay both need: the program's registers, the rows
 * of the system call table, the trace file's records, and the checksum of what a call is given.
 */
#include "agent.h"

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef long s64;

/* As agent_entry pushes them. */
struct registers {
    u64 r15, r14, r13, r12, rbp, rbx, r9, r8, r10, rdi, rsi, rdx;
    u64 rcx; /* at the entry the site's struct descriptor */
    u64 rax, flags;
};

/* Of a site; its trampoline hands over where it is. */
struct descriptor {
    u64 back;   /* the address behind the syscall instruction */
    u64 resume; /* where to go on: there, or at a copy of the instructions there */
    u64 id, unused;
};

enum { SOURCE_FIXED, SOURCE_ARGUMENT, SOURCE_RESULT, SOURCE_STRING, SOURCE_VALUE_RESULT, SOURCE_IOVEC };
enum { WIDTH_S32, WIDTH_U32, WIDTH_U64, WIDTH_CONSTANT };
enum { SUCCESS = 1, INTERRUPTED = 2, FAILED = 4, INPUT = 8 };
enum { ROW_VALID = 1, ROW_BLOCKS = 2, ROW_PATH = 4, ROW_COMMANDS = 8, ROW_MAPS = 16 };

struct item {
    u8 argument, unused, source, width, operand, outcomes, limit_width, limit_operand;
    u32 constant, limit, divide, multiply, add, shown;
};

/* What an argument must be for the agent to make the call by itself (agent/rows.py, Guard). */
enum { GUARD_NONE, GUARD_WITHOUT, GUARD_OTHER, GUARD_UNMAPPED, GUARD_CLOSES, GUARD_NULL };

struct row {
    u8 flags, count, arity, guard, guarded, unused;
    u16 guard_value;
    struct item items[7];
    u8 rest[24];
};

/* The row of a call whose memory use depends on one of its arguments. */
struct commands {
    u8 flags, count, argument, shift;
    u32 mask;
    struct {
        u32 command, row;
    } each[31];
};

/* struct iovec (readv(2)) */
struct buffer {
    u64 address, length;
};

struct record {
    u8 kind, flags;
    u16 site;
    int nr;
    u32 task, delta;
    u64 rsp;
    s64 result;
    u32 crc;
    u16 segments;
    u64 args[6];
} __attribute__((packed));

struct segment {
    u8 kind, base;
    u32 length;
    u64 offset, block;
} __attribute__((packed));

_Static_assert(sizeof(struct registers) == 15 * 8, "agent_entry");
_Static_assert(sizeof(struct record) == 86 && sizeof(struct segment) == 22, "trace/codec.py");
_Static_assert(sizeof(struct row) == 256 && sizeof(struct commands) == 256 && sizeof(struct item) == 32, "agent/rows.py");

enum { EVENT_SYSCALL = 1, SEGMENT_OUT = 0, SEGMENT_IN = 1 };
enum { EFAULT = 14, EINTR = 4, MAX_RW_COUNT = 0x7ffff000, UIO_MAXIOV = 1024 };
#define ADDRESS_END (1UL << 56)

#define ROWS ((const struct row *)AGENT_ROWS)
#define CRC_TABLE ((u32(*)[256])AGENT_CRC)

static void copy(u8 *to, const u8 *from, u64 length) {
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length)::"memory");
}

/* CRC-32 as zlib has it, eight bytes at a time (M. E. Kounavis and F. L. Berry, "A Systematic
   Approach to Building High Performance Software-Based CRC Generators", 2005). */
static void make_crc_table(void) {
    for (u32 n = 0; n < 256; n++) {
        u32 c = n;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
        CRC_TABLE[0][n] = c;
    }
    for (u32 n = 0; n < 256; n++)
        for (int k = 1; k < 8; k++)
            CRC_TABLE[k][n] = CRC_TABLE[0][CRC_TABLE[k - 1][n] & 255] ^ CRC_TABLE[k - 1][n] >> 8;
}

static u32 crc32(u32 crc, const u8 *data, u64 length) {
    if (!CRC_TABLE[7][255]) make_crc_table();
    crc = ~crc;
    for (; length >= 8; data += 8, length -= 8) {
        u64 w = *(const u64 *)data ^ crc;
        crc = CRC_TABLE[7][w & 255] ^ CRC_TABLE[6][w >> 8 & 255] ^ CRC_TABLE[5][w >> 16 & 255] ^
              CRC_TABLE[4][w >> 24 & 255] ^ CRC_TABLE[3][w >> 32 & 255] ^
              CRC_TABLE[2][w >> 40 & 255] ^ CRC_TABLE[1][w >> 48 & 255] ^ CRC_TABLE[0][w >> 56];
    }
    while (length--) crc = CRC_TABLE[0][(crc ^ *data++) & 255] ^ crc >> 8;
    return ~crc;
}

/* The number that the kernel sees; negative where it does (plan.py, value_of). */
static s64 value(const u64 *args, u8 width, u8 operand, u32 constant) {
    if (width == WIDTH_CONSTANT) return constant;
    u64 v = args[operand];
    if (width == WIDTH_U64) return (s64)v < 0 ? -1 : (s64)v;
    v &= 0xffffffff;
    return width == WIDTH_S32 && v >> 31 ? -1 : (s64)v;
}

/* plan.py, length_of. */
static s64 measure(const struct item *item, const u64 *args, s64 result) {
    s64 v;
    if (item->source == SOURCE_FIXED) return item->constant;
    v = item->source == SOURCE_RESULT ? result
                                      : value(args, item->width, item->operand, item->constant);
    if (item->limit_width != WIDTH_CONSTANT || item->limit) {
        s64 limit = value(args, item->limit_width, item->limit_operand, item->limit);
        if (limit < v) v = limit;
    }
    if (v < 0) return 0;
    if (v > MAX_RW_COUNT) v = MAX_RW_COUNT; /* larger ones are cut below anyway */
    v = (v + item->divide - 1) / item->divide * item->multiply + item->add;
    return v < MAX_RW_COUNT ? v : MAX_RW_COUNT;
}

static int in_range(u64 address, s64 length) {
    return address && length > 0 && address + length <= ADDRESS_END;
}

/* The elements of an iovec array: none where the kernel says EINVAL; more than MAX_IOVEC are too many
   for the agent. plan.py, read_iovec. */
static u64 elements(const struct item *item, const u64 *args) {
    s64 count = value(args, item->width, item->operand, item->constant);
    return args[item->argument] && count > 0 && count <= UIO_MAXIOV ? count : 0;
}
