/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The agent: records a system call inside the recorded program, without a ptrace stop.
 *
 * It makes the call on the program's behalf, and writes what the recorder would have written: a
 * record, its segments and their bytes, in the form that the trace file has (trace/schema.py), into
 * memory that the recorder reads when it is full. What a call reads and writes comes from the one
 * table of system calls, a row of which the recorder puts here when it is first needed. Whatever is
 * not plain is handed over to the recorder: a call without a row here, memory that is not known to
 * be there, a signal that waits.
 *
 * Freestanding: general registers only, a stack of its own, no data but the control page.
 */
#include "table.h"

struct control {
    u64 saved_rsp;
    u32 stop, unused;
    u64 resume;
    volatile u32 attention; /* the recorder wants to be asked before the next call, and after it */
    u32 trap_at;            /* ... and behind the record of this number */
    u32 reason;             /* of a handover */
    u32 phase;              /* 0 in the program, 1 before the call, 2 behind it */
    volatile u64 sequence;  /* odd while the three below are being changed */
    u32 records, segments, payload, task;
    u64 last_us, start_ns;
    s64 result;
    u32 crc; /* of what the call at hand was given */
    u32 ranges, until_clock, unused_too;
    u64 previous_us;
    u32 approved, unused_here; /* the recorder has seen the file that the next call maps */
    struct segment file;       /* ... and this is to be in its event */
    u8 padding[2];
    u32 remapped, kept;   /* how often memory was mapped or unmapped here; how many are in `keep` */
    struct {
        u64 start, end;
    } keep[MAX_KEPT]; /* where the recorder has changed code; more than fit: anywhere */
};

enum { REASON_NONE, REASON_ROW, REASON_FULL, REASON_RANGE, REASON_ATTENTION, REASON_LARGE };

/* What must be kept of the memory as it was at the entry (plan.py, `before`). */
struct before {
    u32 lengths[7];  /* of value-result arguments, by item */
    u32 count;       /* of `buffers`: those that the call fills */
    struct buffer buffers[MAX_IOVEC];
};

struct range {
    u64 start, end; /* bit 0 of end: writable, privately */
};

_Static_assert(__builtin_offsetof(struct control, stop) == STOP, "agent.h");
_Static_assert(__builtin_offsetof(struct control, phase) == PHASE, "agent.h");
_Static_assert(__builtin_offsetof(struct control, resume) == 16, "agent.ld");

#define CONTROL ((struct control *)AGENT_CONTROL)
#define RANGES ((struct range *)AGENT_RANGES)
#define RECORDS ((struct record *)AGENT_RECORDS)
#define SEGMENTS ((struct segment *)AGENT_SEGMENTS)
#define PAYLOAD ((u8 *)AGENT_PAYLOAD)
#define DESCRIPTORS ((u8 *)AGENT_DESCRIPTORS)

extern s64 agent_call(struct registers *, volatile u32 *);
extern void agent_time(s64 *);
extern u64 agent_break(void);

#include "memory.h"

static int handover(u32 reason) {
    CONTROL->reason = reason;
    return STOP_HANDOVER;
}

/* Whether the recorder has to see this call, by one of its arguments (an int). */
static int is_refused(const struct row *row, const u64 *args) {
    u32 argument = args[row->guarded];
    if (row->guard == GUARD_WITHOUT) return argument & row->guard_value;
    if (row->guard == GUARD_OTHER) return argument == row->guard_value && args[row->guarded + 1];
    if (row->guard == GUARD_UNMAPPED) return argument >= MAX_DESCRIPTORS || !DESCRIPTORS[argument];
    if (row->guard == GUARD_NULL) return args[row->guarded] != 0;
    if (row->guard == GUARD_CLOSES && argument < MAX_DESCRIPTORS) DESCRIPTORS[argument] = 0;
    return 0;
}

struct part {
    u32 segments, payload;
};

/* `length` bytes at `address`, which hangs on an argument of this value. */
static void add(struct part *part, int kind, int base, u64 value, u64 address, u64 length) {
    struct segment *s = &SEGMENTS[part->segments++];
    s->kind = kind;
    s->base = base;
    s->length = length;
    s->offset = address - value;
    s->block = 0;
    copy(PAYLOAD + part->payload, (const u8 *)address, length);
    part->payload += length;
}

/* The program hands in `length` bytes, of which so many are worth showing. */
static u32 hand_in(struct part *part, u32 crc, int base, u64 value, struct buffer what, u64 shown) {
    crc = crc32(crc, (const u8 *)what.address, what.length);
    add(part, SEGMENT_IN, base, value, what.address, what.length < shown ? what.length : shown);
    return crc;
}

/* The payload that an iovec's buffers take, or why the recorder has to follow the call. */
static u32 measure_iovec(const struct item *item, const u64 *args, u64 *most, struct before *before) {
    u64 count = elements(item, args), address = args[item->argument];
    const struct buffer *buffers = (const struct buffer *)address;
    int reads = item->outcomes & INPUT;
    if (count > MAX_IOVEC) return REASON_ROW;
    if (count && known(address, 0) < count * sizeof *buffers) return REASON_RANGE;
    *most += item->limit;
    for (u64 i = 0; i < count; i++) {
        u64 length = buffers[i].length;
        if (length > MAX_RW_COUNT) return REASON_ROW;
        *most += reads && length > item->shown ? item->shown : length;
        if (length && known(buffers[i].address, !reads) < length) return REASON_RANGE;
        if (!reads) before->buffers[i] = buffers[i];
    }
    if (!reads) before->count = count;
    return REASON_NONE;
}

/* Whether this path may lead to where what is written is more than a file's content. */
static int is_special_path(const char *path, u64 length) {
    if (length >= 4 && path[length - 4] == 'm' && path[length - 3] == 'e' && path[length - 2] == 'm')
        return 1;
    return length >= 6 && path[0] == '/' && path[1] == 'p' && path[2] == 'r' && path[3] == 'o' &&
           path[4] == 'c';
}

__attribute__((used)) int agent_hook(struct registers *r) {
    struct control *c = CONTROL;
    const u64 args[6] = {r->rdi, r->rsi, r->rdx, r->r10, r->r8, r->r9};
    const struct descriptor *site = (const struct descriptor *)r->rcx;
    const struct row *row = &ROWS[r->rax];
    struct part part;
    u32 crc = 0;

    u32 approved = c->approved;

    c->approved = 0;
    c->phase = 1;
    if (c->attention) return handover(REASON_ATTENTION);
    if (r->rax >= MAX_ROWS || !(row->flags & ROW_VALID)) return handover(REASON_ROW);
    if (row->flags & ROW_COMMANDS) {
        const struct commands *commands = (const struct commands *)row;
        u32 command = args[commands->argument] >> commands->shift & commands->mask;
        int i = 0;
        while (i < commands->count && commands->each[i].command != command) i++;
        if (i == commands->count) return handover(REASON_ROW);
        row = &ROWS[commands->each[i].row];
    }
    if (c->records >= MAX_RECORDS || c->segments + 2 * MAX_IOVEC + 16 > MAX_SEGMENTS) return handover(REASON_FULL);
    if (row->guard && is_refused(row, args)) return handover(REASON_ROW);
    if (row->flags & ROW_MAPS && !is_plain_mapping(r->rax, args, approved)) return handover(REASON_ROW);
    struct memory memory = {0, NOT_KNOWN};
    if (row->flags & ROW_MAPS) look_at_memory(r->rax, args, &memory);
    part.segments = c->segments;
    part.payload = c->payload;

    /* What there is room for: all that the call may hand out, and paths. */
    u64 most = 0;
    struct before before;
    before.count = 0;
    for (int i = 0; i < row->count; i++) {
        const struct item *item = &row->items[i];
        u64 address = args[item->argument];
        s64 length;
        if (item->source == SOURCE_IOVEC) {
            u32 reason = measure_iovec(item, args, &most, &before);
            if (reason) return handover(reason);
            continue;
        }
        if (item->outcomes & INPUT) {
            if (address) most += item->shown;
            continue;
        }
        if (item->source == SOURCE_VALUE_RESULT) {
            u64 pointer = args[item->operand];
            if (pointer && known(pointer, 0) < 4) return handover(REASON_RANGE);
            length = before.lengths[i] = pointer ? *(const u32 *)pointer : 0;
        } else
            length = measure(item, args, MAX_RW_COUNT);
        if (!in_range(address, length)) continue;
        most += length;
        if (most > MAX_PAYLOAD) return handover(REASON_LARGE);
        if (known(address, 1) < (u64)length) return handover(REASON_RANGE);
    }
    if (most > MAX_PAYLOAD) return handover(REASON_LARGE);
    if (part.payload + most > MAX_PAYLOAD) return handover(REASON_FULL);

    for (int i = 0; i < row->count; i++) {
        const struct item *item = &row->items[i];
        struct buffer what = {args[item->argument], 0};
        if (!what.address) continue;
        if (item->source == SOURCE_IOVEC) {
            const struct buffer *buffers = (const struct buffer *)what.address;
            u64 count = elements(item, args), left = MAX_RW_COUNT;
            what.length = count * sizeof *buffers;
            if (!count) continue;
            crc = hand_in(&part, crc, item->argument, what.address, what, item->limit);
            for (u64 k = 0; k < count && item->outcomes & INPUT; k++) {
                struct buffer each = buffers[k];
                if (each.length > left) each.length = left;
                left -= each.length;
                if (each.address && each.length)
                    crc = hand_in(&part, crc, item->argument, what.address, each, item->shown);
            }
            continue;
        }
        if (!(item->outcomes & INPUT)) continue;
        if (item->source == SOURCE_STRING) {
            u64 there = known(what.address, 0), limit = item->limit, length;
            if (there > limit) there = limit;
            for (length = 0; length < there && ((const char *)what.address)[length]; length++) {
            }
            if (length == there) {
                if (there < limit) return handover(REASON_RANGE);
            } else
                length++;
            if (row->flags & ROW_PATH && is_special_path((const char *)what.address, length))
                return handover(REASON_ROW);
            what.length = length;
        } else {
            s64 length = measure(item, args, 0);
            if (!in_range(what.address, length)) continue;
            if (known(what.address, 0) < (u64)length) return handover(REASON_RANGE);
            what.length = length;
        }
        crc = hand_in(&part, crc, item->argument, what.address, what, item->shown);
    }

    if (!c->until_clock--) {
        s64 now[2];
        agent_time(now);
        u64 us = ((u64)now[0] * 1000000000 + now[1] - c->start_ns) / 1000;
        if (us > c->last_us) c->last_us = us;
        c->until_clock = 15;
    }
    u64 time = c->last_us;

    c->crc = crc;
    s64 result = agent_call(r, &c->attention);
    c->phase = 2;
    c->result = result;
    int outcome = SUCCESS;
    if (result < 0 && result > -4096) {
        if (result == -EFAULT) return STOP_BY_HAND;
        outcome = result == -EINTR || (result <= -512 && result >= -516) ? INTERRUPTED : FAILED;
    }
    if (row->flags & ROW_BLOCKS) c->until_clock = 0;
    if (row->flags & ROW_MAPS) note_mapping_call(r->rax, args, result, &memory);
    if (approved && outcome == SUCCESS) SEGMENTS[part.segments++] = c->file;
    for (int i = 0; i < row->count; i++) {
        const struct item *item = &row->items[i];
        u64 address = args[item->argument];
        if (!(item->outcomes & outcome)) continue;
        if (item->source == SOURCE_IOVEC) {
            s64 left = result; /* of a success: an iovec is filled by nothing else */
            for (u32 k = 0; k < before.count && left > 0; k++) {
                struct buffer each = before.buffers[k];
                if (each.length > (u64)left) each.length = left;
                left -= each.length;
                if (each.address && each.length)
                    add(&part, SEGMENT_OUT, item->argument, address, each.address, each.length);
            }
            continue;
        }
        s64 length;
        if (item->source == SOURCE_VALUE_RESULT) {
            u32 given = before.lengths[i];
            u32 now = args[item->operand] ? *(const u32 *)args[item->operand] : 0;
            length = now < given ? now : given;
        } else
            length = measure(item, args, result);
        if (in_range(address, length))
            add(&part, SEGMENT_OUT, item->argument, address, address, length);
    }

    struct record *record = &RECORDS[c->records];
    record->kind = EVENT_SYSCALL;
    record->flags = 0;
    record->site = site->id;
    record->nr = r->rax;
    record->task = c->task;
    record->delta = time - c->previous_us;
    record->rsp = c->saved_rsp;
    record->result = result;
    record->crc = crc;
    record->segments = part.segments - c->segments;
    for (int i = 0; i < 6; i++) record->args[i] = i < row->arity ? args[i] : 0;
    c->previous_us = time;
    c->sequence++;
    __asm__ volatile("" ::: "memory");
    c->segments = part.segments;
    c->payload = part.payload;
    c->records++;
    __asm__ volatile("" ::: "memory");
    c->sequence++;
    c->phase = 0;
    r->rax = result;
    r->rcx = site->back;
    c->resume = site->resume;
    return c->attention || c->records == c->trap_at ? STOP_MADE : 0;
}
