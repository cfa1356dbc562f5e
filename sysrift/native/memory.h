/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The program's memory, as the agent knows it, and the calls that change it.
 *
 * Memory comes and goes without the recorder, which allocators and interpreters do much: all but
 * where the recorder has changed the program's code, and what files are mapped.
 */

static u64 whole_pages(u64 length) {
    return (length + 4095) & ~4095UL;
}

/* How many bytes from `address` on are known memory (privately writable, if asked). */
static u64 known(u64 address, int writable) {
    u32 low = 0, high = CONTROL->ranges;
    while (low < high) {
        u32 middle = (low + high) / 2;
        if (RANGES[middle].start <= address)
            low = middle + 1;
        else
            high = middle;
    }
    if (!low) return 0;
    u64 end = RANGES[low - 1].end & ~1UL;
    if (address >= end || (writable && !(RANGES[low - 1].end & 1))) return 0;
    /* Neighbours: what is readable goes on where the next begins. */
    for (; low < CONTROL->ranges && RANGES[low].start == end; low++) {
        if (writable && !(RANGES[low].end & 1)) break;
        end = RANGES[low].end & ~1UL;
    }
    return end - address;
}

enum { NR_MMAP = 9, NR_MPROTECT = 10, NR_MUNMAP = 11, NR_BRK = 12, NR_MREMAP = 25 };
enum { MAP_FIXED = 0x10, MAP_PLAIN = 0x22, MAP_HARMLESS = 0x24010 }; /* PRIVATE ANONYMOUS; NORESERVE, STACK, FIXED */
enum { PROT_READ = 1, PROT_WRITE = 2, PROT_ALL = 7, MREMAP_MAYMOVE = 1 };
enum { NOT_KNOWN = -1 };

/* Whether there may be something of the recorder's or the agent's: memory that is not the agent's
   to change. */
static int is_kept(u64 start, u64 length) {
    struct control *c = CONTROL;
    u64 end = start + length;
    if (start & 4095 || end < start || c->kept > MAX_KEPT) return 1;
    if (start < AGENT_END && end > AGENT_CODE) return 1;
    for (u32 i = 0; i < c->kept; i++)
        if (start < c->keep[i].end && end > c->keep[i].start) return 1;
    return 0;
}

/* Whether the agent can say what a call that is about to be made does to memory. */
static int is_plain_mapping(u64 nr, const u64 *args, int approved) {
    u64 length = whole_pages(args[1]);
    if (CONTROL->ranges + 3 > MAX_RANGES) return 0;
    if (nr == NR_BRK) return 1;
    if (nr == NR_MMAP) {
        if (approved) return 1;
        if (args[2] & ~PROT_ALL || (args[3] & ~MAP_HARMLESS) != MAP_PLAIN) return 0;
        return !(args[3] & MAP_FIXED) || !is_kept(args[0], length);
    }
    if (nr == NR_MPROTECT && args[2] & ~PROT_ALL) return 0;
    if (nr == NR_MREMAP && (!length || args[3] & ~MREMAP_MAYMOVE)) return 0;
    return !is_kept(args[0], length);
}

static void insert_range(u32 at, u64 start, u64 end) {
    for (u32 i = CONTROL->ranges++; i > at; i--) RANGES[i] = RANGES[i - 1];
    RANGES[at].start = start;
    RANGES[at].end = end;
}

static void note_mapped(u64 start, u64 end, int writable) {
    u32 at = 0;
    CONTROL->remapped++;
    if (writable == NOT_KNOWN || end <= start) return;
    while (at < CONTROL->ranges && RANGES[at].start < start) at++;
    if (at && RANGES[at - 1].end == (start | writable))
        RANGES[at - 1].end = end | writable;
    else
        insert_range(at, start, end | writable);
}

static void note_unmapped(u64 start, u64 end) {
    struct control *c = CONTROL;
    for (u32 at = 0; at < c->ranges; at++) {
        struct range *range = &RANGES[at];
        u64 last = range->end & ~1UL, writable = range->end & 1;
        if (last <= start || range->start >= end) continue;
        if (range->start >= start && last <= end) { /* all of it */
            c->ranges--;
            for (u32 i = at; i < c->ranges; i++) RANGES[i] = RANGES[i + 1];
            at--;
        } else if (range->start < start && last > end) { /* out of its middle */
            insert_range(at + 1, end, last | writable);
            RANGES[at].end = start | writable;
        } else if (range->start < start)
            range->end = start | writable;
        else
            range->start = end;
    }
    c->remapped++;
}

/* How memory is known, all of it: writable, readable, or not at all. */
static int known_as(u64 start, u64 length) {
    return known(start, 1) >= length ? 1 : known(start, 0) >= length ? 0 : NOT_KNOWN;
}

/* As memory was before a call: the end of the heap, or how it was known. */
struct memory {
    u64 heap_end;
    int was;
};

static void look_at_memory(u64 nr, const u64 *args, struct memory *memory) {
    memory->heap_end = nr == NR_BRK ? whole_pages(agent_break()) : 0;
    memory->was = nr == NR_MPROTECT || nr == NR_MREMAP ? known_as(args[0], whole_pages(args[1])) : NOT_KNOWN;
}

static int after_protection(u64 protection) {
    return protection & PROT_READ ? (protection & PROT_WRITE) != 0 : NOT_KNOWN;
}

/* After a call that `is_plain_mapping`. */
static void note_mapping_call(u64 nr, const u64 *args, s64 result, const struct memory *memory) {
    u64 start = args[0], length = whole_pages(args[1]), end = start + length;
    int failed = result < 0 && result > -4096;
    if (nr == NR_BRK) {
        u64 heap_end = whole_pages(result);
        if (heap_end > memory->heap_end) note_mapped(memory->heap_end, heap_end, 1);
        if (heap_end < memory->heap_end) note_unmapped(heap_end, memory->heap_end);
    } else if (nr == NR_MMAP) {
        if (failed) return;
        if (args[3] & MAP_FIXED) note_unmapped(result, result + length);
        note_mapped(result, result + length, after_protection(args[2]));
    } else if (nr == NR_MUNMAP) {
        if (!failed) note_unmapped(start, end);
    } else {
        note_unmapped(start, end); /* a part may have been changed before it failed */
        if (failed) return;
        if (nr == NR_MREMAP)
            note_mapped(result, result + whole_pages(args[2]), memory->was);
        else
            note_mapped(start, end, memory->was == NOT_KNOWN ? NOT_KNOWN : after_protection(args[2]));
    }
}
