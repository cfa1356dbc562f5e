/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The player: replays a system call inside the replayed program, without a ptrace stop.
 *
 * It has the records of a block of events as the trace file has them. A call that agrees with the
 * next one in number, place, stack pointer, arguments and what is handed in gets its result and the
 * memory that the kernel wrote. Everything else is the engine's: the program stops then as if it were
 * about to make the call, with nothing changed. So what does not agree is found, and told, in one place.
 *
 * Before anything is written it is known that all of it can be: a fault leaves nothing half done.
 *
 * Freestanding: general registers only, a stack of its own, no data but the control page.
 */
#include "table.h"

struct control {
    u64 saved_rsp;
    u32 stop, unused;
    u64 resume;
    u32 task;                 /* whose records are played */
    u32 target;               /* index of the next record: where the engine is */
    u32 limit;                /* records from this one on are the engine's */
    u32 last;                 /* index of the last record of this process's that there is */
    u32 at, segment, payload; /* the record whose segments and payload begin there */
    u32 played;               /* how many there were */
    u64 outputs;              /* descriptors, of those below 64, whose use the engine wants to see */
    u64 watched[MAX_ROWS / 64]; /* ... by these calls */
};

_Static_assert(__builtin_offsetof(struct control, stop) == STOP, "agent.h");
_Static_assert(__builtin_offsetof(struct control, resume) == 16, "agent.ld");

enum { EVENT_TSC = 3, FLAG_IN_CODE = 16, ABSOLUTE = 255, ERESTART_FIRST = 512, ERESTART_LAST = 516 };

#define CONTROL ((struct control *)AGENT_CONTROL)
#define RECORDS ((const struct record *)AGENT_RECORDS)
#define SEGMENTS ((const struct segment *)AGENT_SEGMENTS)
#define PAYLOAD ((const u8 *)AGENT_PAYLOAD)
#define SITES ((const u64 *)PLAYER_SITES)

/* On to the next record. */
static void step(struct control *c) {
    u32 end = c->segment + RECORDS[c->at].segments;
    for (; c->segment < end; c->segment++)
        if (!SEGMENTS[c->segment].block) c->payload += SEGMENTS[c->segment].length;
    c->at++;
}

/* The checksum of what the call hands in; 0 when the engine has to make it. tracee/inputs.py */
static int sum_inputs(const struct row *row, const u64 *args, u32 *sum) {
    u32 crc = 0;
    for (int i = 0; i < row->count; i++) {
        const struct item *item = &row->items[i];
        const u8 *address = (const u8 *)args[item->argument];
        s64 length;
        if (!address) continue;
        if (item->source == SOURCE_IOVEC) {
            const struct buffer *buffers = (const struct buffer *)address;
            u64 count = elements(item, args), left = MAX_RW_COUNT;
            if (!count) continue;
            crc = crc32(crc, address, count * sizeof *buffers);
            if (!(item->outcomes & INPUT)) continue;
            for (u64 k = 0; k < count; k++)
                if (buffers[k].length > MAX_RW_COUNT) return 0;
            for (u64 k = 0; k < count; k++) {
                u64 part = buffers[k].length < left ? buffers[k].length : left;
                left -= part;
                if (buffers[k].address && part)
                    crc = crc32(crc, (const u8 *)buffers[k].address, part);
            }
            continue;
        }
        if (!(item->outcomes & INPUT)) continue;
        if (item->source == SOURCE_STRING) {
            for (length = 0; length < item->limit && address[length]; length++) {
            }
            if (length < item->limit) length++;
        } else {
            length = measure(item, args, 0);
            if (!in_range(args[item->argument], length)) continue;
        }
        crc = crc32(crc, address, length);
    }
    *sum = crc;
    return 1;
}

/* Whether all that the kernel wrote can be written: each page is written to, with what it has. */
static int can_write(const struct record *record, const struct segment *segments) {
    for (u32 i = 0; i < record->segments; i++) {
        const struct segment *s = &segments[i];
        if (s->kind == SEGMENT_IN && !s->block) continue;
        if (s->kind != SEGMENT_OUT || s->block || (s->base > 5 && s->base != ABSOLUTE)) return 0;
        if (!s->length) continue;
        u64 start = s->offset + (s->base == ABSOLUTE ? 0 : record->args[s->base]);
        u64 end = start + s->length;
        if (end < start || end > ADDRESS_END) return 0;
        if (start < AGENT_END && end > STUB) return 0;
        for (u64 at = start; at < end; at = (at | 4095) + 1) {
            volatile u8 *byte = (volatile u8 *)at;
            *byte = *byte;
        }
    }
    return 1;
}

static const struct row *row_of(u64 nr, const u64 *args) {
    const struct row *row = &ROWS[nr];
    if (nr >= MAX_ROWS || !(row->flags & ROW_VALID)) return 0;
    if (!(row->flags & ROW_COMMANDS)) return row;
    const struct commands *commands = (const struct commands *)row;
    u32 command = args[commands->argument] >> commands->shift & commands->mask;
    for (int i = 0; i < commands->count; i++)
        if (commands->each[i].command == command) return &ROWS[commands->each[i].row];
    return 0;
}

static int is_output(const struct control *c, u64 fd) {
    fd &= 0xffffffff;
    return fd >= 64 || c->outputs >> fd & 1;
}

__attribute__((used)) int player_hook(struct registers *r) {
    struct control *c = CONTROL;
    const u64 args[6] = {r->rdi, r->rsi, r->rdx, r->r10, r->r8, r->r9};
    const struct descriptor *site = (const struct descriptor *)r->rcx;
    u32 crc;

    if (c->target >= c->limit) return STOP_LIMIT;
    while (c->at < c->target) step(c);
    const struct record *record = &RECORDS[c->at];
    u32 next = c->at + 1;
    if (c->at != c->last) {
        /* A signal, or what happens in a computation: the engine looks for it right behind this call. */
        while (RECORDS[next].task != c->task) next++;
        const struct record *then = &RECORDS[next];
        if ((then->kind != EVENT_SYSCALL && then->kind != EVENT_TSC) || then->flags & FLAG_IN_CODE)
            return STOP_HANDOVER;
    }
    const struct row *row = row_of(r->rax, args);
    if (!row) return STOP_HANDOVER;
    if (c->outputs && c->watched[r->rax / 64] >> r->rax % 64 & 1 &&
        (is_output(c, args[0]) || is_output(c, record->result)))
        return STOP_HANDOVER;

    if (record->kind != EVENT_SYSCALL || record->flags || record->task != c->task ||
        (u64)(s64)record->nr != r->rax || SITES[record->site] != site->back - 2 ||
        record->rsp != c->saved_rsp)
        return STOP_HANDOVER;
    if (record->result <= -ERESTART_FIRST && record->result >= -ERESTART_LAST) return STOP_HANDOVER;
    for (int i = 0; i < row->arity; i++)
        if (record->args[i] != args[i]) return STOP_HANDOVER;
    if (!sum_inputs(row, args, &crc) || crc != record->crc) return STOP_HANDOVER;

    const struct segment *segments = &SEGMENTS[c->segment];
    if (!can_write(record, segments)) return STOP_HANDOVER;
    const u8 *payload = PAYLOAD + c->payload;
    for (u32 i = 0; i < record->segments; i++) {
        const struct segment *s = &segments[i];
        if (s->kind == SEGMENT_OUT)
            copy((u8 *)(s->offset + (s->base == ABSOLUTE ? 0 : record->args[s->base])), payload,
                 s->length);
        payload += s->length;
    }

    r->rax = record->result;
    r->rcx = site->back;
    c->resume = site->resume;
    while (c->at < next) step(c);
    c->target = next;
    c->played++;
    return 0;
}
