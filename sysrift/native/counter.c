/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The counter: runs the program's own code from a copy that counts its instructions.
 *
 * Code is translated a block at a time, when it is first come to: up to the next jump, at most
 * MAX_BLOCK instructions, each as it is but for addresses relative to itself. A block begins by
 * counting its instructions; jumps between blocks that are known go straight there. What the
 * program can see - registers, flags, memory, return addresses on its stack - is at the start of
 * each block what it would be without. So "after N instructions" names a moment between two events,
 * and to get there, or to look at each pass of an instruction, takes nanoseconds an instruction.
 *
 * It stops, as if the program had come there by itself, where it may not execute so many any more,
 * where a place looked for is found, and before anything that enters the kernel. The copies lie near
 * the code (struct cache), for what is addressed relative to it to be within reach.
 *
 * A string instruction with a repeat prefix counts as one.
 *
 * Freestanding: general registers only, a stack of its own.
 */
#include "counter.h"

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef long s64;

#include "instruction.h"

enum { MAX_BLOCK = 64, MAX_RANGES = 512, MAX_CACHES = 16, MAX_PROBES = 64, MAX_WORDS = 64 };
enum { STOP_LIMIT = 1, STOP_PLACE, STOP_SPECIAL, STOP_UNKNOWN };
enum { PROBE_PLACE = 1, PROBE_PASS = 2 };
enum { RAX, RCX, RDX, RBX, RSP };

struct range {
    u64 start, end; /* code that nobody can write to */
    u64 cache;
};

struct cache {
    u64 start, next, end;
};

/* Where a block begins that is looked at: at `address`. `passes` of it, the last after so many
   instructions. */
struct probe {
    u64 address;
    u64 kind;
    s64 passes, last;
};

struct word {
    u64 address, value;
};

struct state {
    u64 registers[16]; /* as the processor numbers them */
    u64 flags, resume, argument;
    s64 left; /* instructions that may be executed */
    u64 why, spare;
    u64 stack;       /* note where the stack pointer is not below that: */
    s64 above_left;  /* what `left` was in the last block at whose start it was so, */
    u64 above_block; /* that block + 1, */
    u8 value[64];    /* watched memory as it was last seen */
    u64 rip;  /* where the program is, at a stop */
    s64 most; /* instructions from the start to where `left` would be 0 */
    s64 probed;
    u64 range_count, cache_count, probe_count, word_count;
    u64 block_count, exit_count;
    s64 above; /* and how many instructions there were before it */
    u64 watched, watched_length;
    s64 changed, changes; /* the last change was at most a block's length before that */
    u64 place[16], place_flags; /* PROBE_PLACE: the registers there */
    struct word words[MAX_WORDS];
    struct probe probes[MAX_PROBES];
    struct cache caches[MAX_CACHES];
    struct range ranges[MAX_RANGES];
};

_Static_assert(__builtin_offsetof(struct state, flags) == FLAGS, "counter.h");
_Static_assert(__builtin_offsetof(struct state, resume) == RESUME, "counter.h");
_Static_assert(__builtin_offsetof(struct state, argument) == ARGUMENT, "counter.h");
_Static_assert(__builtin_offsetof(struct state, left) == LEFT, "counter.h");
_Static_assert(__builtin_offsetof(struct state, why) == WHY, "counter.h");
_Static_assert(__builtin_offsetof(struct state, spare) == SPARE, "counter.h");
_Static_assert(__builtin_offsetof(struct state, stack) == STACK, "counter.h");
_Static_assert(__builtin_offsetof(struct state, above_left) == ABOVE_LEFT, "counter.h");
_Static_assert(__builtin_offsetof(struct state, above_block) == ABOVE_BLOCK, "counter.h");
_Static_assert(__builtin_offsetof(struct state, value) == VALUE, "counter.h");
_Static_assert(sizeof(struct state) <= 0x8000, "counter.h");

struct block {
    u64 rip, code, body; /* body: behind the probe */
    u32 next, count;     /* next + 1 with the same hash; instructions */
    u32 cache, probe;    /* probe + 1 */
};

struct exit {
    u64 target, patch; /* patch: the 32 bits of the jump that came here */
};

struct target {
    u64 rip, code;
};

#define BLOCKS ((struct block *)COUNTER_BLOCKS)
#define EXITS ((struct exit *)COUNTER_EXITS)
#define HEAD ((u32 *)COUNTER_HEADS)
#define TARGET ((struct target *)COUNTER_TARGETS)

extern void counter_exit(void), counter_limit(void), counter_probe(void), counter_indirect(void);

/* At the start of each cache: jumps to the four places above. */
enum { TO_EXIT, TO_LIMIT, TO_PROBE, TO_INDIRECT, JUMP_SIZE = 16, JUMPS = 4 * JUMP_SIZE };
enum { BLOCK_SPACE = 0x2000, CARRY_OVERFLOW = 127 };

static u8 *put(u8 *at, u64 value, int bytes) {
    for (; bytes; bytes--, value >>= 8) *at++ = value;
    return at;
}

#define PUT(...)                                                             \
    do {                                                                     \
        static const u8 bytes_[] = {__VA_ARGS__};                            \
        for (u64 n_ = 0; n_ < sizeof bytes_; n_++) *at++ = bytes_[n_];       \
    } while (0)

static u8 *jump_to(u8 *at, u64 target) { /* jmp target, within 2 GiB */
    *at++ = 0xe9;
    return put(at, target - (u64)(at + 4), 4);
}

static u8 *jump_far(u8 *at, u64 target) { /* jmp *(%rip) */
    PUT(0xff, 0x25, 0, 0, 0, 0);
    return put(at, target, 8);
}

static u8 *save_rax(u8 *at) { /* movabs %rax, state.rax */
    PUT(0x48, 0xa3);
    return put(at, COUNTER_STATE, 8);
}

static u64 hash(u64 rip) { return (rip ^ rip >> 16) & (HEADS - 1); }

static void settle(struct state *s) {
    if (s->above_block)
        s->above = s->most - (s->above_left + BLOCKS[s->above_block - 1].count);
    s->above_block = 0;
}

static void forget_all(struct state *s) {
    settle(s);
    for (u64 n = 0; n < HEADS; n++) HEAD[n] = 0;
    for (u64 n = 0; n < TARGETS; n++) TARGET[n].rip = TARGET[n].code = 0;
    s->block_count = s->exit_count = 0;
    for (u64 n = 0; n < s->cache_count; n++) {
        struct cache *c = &s->caches[n];
        u8 *at = (u8 *)c->start;
        jump_far(at + TO_EXIT * JUMP_SIZE, (u64)counter_exit);
        jump_far(at + TO_LIMIT * JUMP_SIZE, (u64)counter_limit);
        jump_far(at + TO_PROBE * JUMP_SIZE, (u64)counter_probe);
        jump_far(at + TO_INDIRECT * JUMP_SIZE, (u64)counter_indirect);
        c->next = c->start + JUMPS;
    }
}

/* Emits the way out to the block at `target`, which is not known yet; `patch`: the jump to here. */
static u8 *way_out(struct state *s, struct cache *c, u8 *at, u8 *patch, u64 target) {
    put(patch, (u64)at - (u64)(patch + 4), 4);
    EXITS[s->exit_count] = (struct exit){target, (u64)patch};
    at = save_rax(at);
    *at++ = 0xb8; /* mov $exit, %eax */
    at = put(at, s->exit_count++, 4);
    return jump_to(at, c->start + TO_EXIT * JUMP_SIZE);
}

/* push of a return address, without changing flags, and without changing anything if it faults */
static u8 *push_address(u8 *at, u64 address) {
    PUT(0xc7, 0x44, 0x24, 0xf8); /* movl, -8(%rsp) */
    at = put(at, address, 4);
    PUT(0xc7, 0x44, 0x24, 0xfc); /* movl, -4(%rsp) */
    at = put(at, address >> 32, 4);
    PUT(0x48, 0x8d, 0x64, 0x24, 0xf8); /* lea -8(%rsp), %rsp */
    return at;
}

/* mov of the operand of an indirect jump or call to rax */
static u8 *load_operand(u8 *at, const u8 *code, const struct instruction *i, u64 rip) {
    for (int n = 0; n < i->opcode_at; n++) {
        if (i->rex && n == i->legacy_rex_at) continue;
        if (code[n] == 0x66 || code[n] == 0xf2 || code[n] == 0xf3) continue; /* bnd */
        *at++ = code[n];
    }
    *at++ = 0x48 | (i->rex & 3); /* REX.W, X and B */
    *at++ = 0x8b;
    *at++ = code[i->modrm_at] & 0xc7;
    for (int n = i->modrm_at + 1; n < i->length; n++) *at++ = code[n];
    if (i->relative_at) {
        s64 displacement = *(const int *)(code + i->relative_at) + (s64)(rip + i->length) - (s64)at;
        put(at - 4, displacement, 4);
    }
    return at;
}

static int is_probed(const struct state *s, u64 rip) {
    for (u64 n = 0; n < s->probe_count; n++)
        if (s->probes[n].address == rip) return n + 1;
    return 0;
}

static int in_reach(s64 displacement) { return displacement == (int)displacement; }

/* Whether a register has so many bytes. */
static int has_width(u64 length) { return length == 1 || length == 2 || length == 4 || length == 8; }

/* The opcode of an instruction for so many bytes of rax, which is `opcode` for four */
static u8 *wide(u8 *at, u64 length, u8 opcode) {
    if (length == 2) *at++ = 0x66;
    if (length == 8) *at++ = 0x48;
    *at++ = length == 1 ? opcode - 1 : opcode;
    return at;
}

/* mov of ax, where the flags are, to the state, and back */
static u8 *keep_flags(u8 *at) {
    PUT(0x66, 0x89, 0x81);
    return put(at, SPARE, 4);
}

static u8 *take_flags(u8 *at) {
    PUT(0x0f, 0xb7, 0x81);
    return put(at, SPARE, 4);
}

/* The program's flags and rcx, from ax and the state that rcx points to */
static u8 *give_back(u8 *at) {
    PUT(0x04, CARRY_OVERFLOW, 0x9e, 0x48, 0x8b, 0x49, 8 * RCX);
    return at;
}

/* To the counter, with the number of the block. */
static u8 *ask(u8 *at, const struct cache *c, u32 index, int where) {
    *at++ = 0xb8; /* mov $index, %eax */
    at = put(at, index, 4);
    return jump_to(at, c->start + where * JUMP_SIZE);
}

/* Jumps at the start of a block to what is emitted behind it. */
struct ways {
    u8 *limit, *changed;
};

/* The code at the start of a block of `count` instructions: counts them, and looks. */
static u8 *begin(struct state *s, struct cache *c, struct block *b, u8 *at, u32 index,
                 struct ways *ways) {
    int by_call = b->probe || (s->watched_length && !has_width(s->watched_length));
    at = save_rax(at);
    PUT(0x48, 0x89, 0xc8, 0x48, 0xa3); /* mov %rcx, %rax; movabs %rax, state.rcx */
    at = put(at, COUNTER_STATE + 8 * RCX, 8);
    PUT(0x48, 0xb9); /* movabs $state, %rcx */
    at = put(at, COUNTER_STATE, 8);
    PUT(0x9f, 0x0f, 0x90, 0xc0, 0x48, 0x83, 0xa9); /* lahf; seto %al; sub $count, left */
    at = put(at, LEFT, 4);
    *at++ = b->count;
    PUT(0x0f, 0x88); /* js limit */
    ways->limit = at;
    at += 4;
    if (s->stack) {
        PUT(0x48, 0x3b, 0xa1); /* cmp stack, %rsp; jb over what follows */
        at = put(at, STACK, 4);
        PUT(0x72, 7 + 7 + 7 + 10 + 7);
        at = keep_flags(at);
        PUT(0x48, 0x8b, 0x81); /* mov left, %rax; mov %rax, above_left; movl $index + 1, above_block */
        at = put(at, LEFT, 4);
        PUT(0x48, 0x89, 0x81);
        at = put(at, ABOVE_LEFT, 4);
        PUT(0xc7, 0x81);
        at = put(at, ABOVE_BLOCK, 4);
        at = put(at, index + 1, 4);
        at = take_flags(at);
    }
    ways->changed = 0;
    if (!by_call && s->watched_length) {
        at = keep_flags(at);
        at = wide(at, s->watched_length, 0xa1); /* movabs watched, %rax; cmp value, %rax; jne changed */
        at = put(at, s->watched, 8);
        at = wide(at, s->watched_length, 0x3b);
        *at++ = 0x81;
        at = put(at, VALUE, 4);
        at = take_flags(at);
        PUT(0x0f, 0x85);
        ways->changed = at;
        at += 4;
    }
    at = give_back(at);
    if (by_call) {
        at = ask(at, c, index, TO_PROBE);
    } else {
        PUT(0x48, 0xa1); /* movabs state.rax, %rax */
        at = put(at, COUNTER_STATE, 8);
    }
    b->body = (u64)at;
    return at;
}

/* Where the jumps from the start of the block go. */
static u8 *other_ways(struct cache *c, struct block *b, u8 *at, u32 index, struct ways *ways) {
    put(ways->limit, (u64)at - (u64)(ways->limit + 4), 4);
    PUT(0x48, 0x83, 0x81); /* add $count, left */
    at = put(at, LEFT, 4);
    *at++ = b->count;
    at = give_back(at);
    at = ask(at, c, index, TO_LIMIT);
    if (ways->changed) {
        put(ways->changed, (u64)at - (u64)(ways->changed + 4), 4);
        at = give_back(at);
        at = ask(at, c, index, TO_PROBE);
    }
    return at;
}

/* Translates the block at `rip`; returns 0 and why not when it cannot be. */
static struct block *translate(struct state *s, u64 rip, u32 *why) {
    struct range *r = s->ranges;
    u64 n = 0;
    while (n < s->range_count && !(r[n].start <= rip && rip < r[n].end)) n++;
    *why = STOP_UNKNOWN;
    if (n == s->range_count) return 0;
    struct cache *c = &s->caches[r[n].cache];
    struct instruction i;
    u64 end = r[n].end, here = rip;
    u32 count = 0;

    /* How long it is: */
    while (count < MAX_BLOCK) {
        if (count && is_probed(s, here)) break;
        if (!decode((const u8 *)here, end - here, &i) || i.flow >= FLOW_SPECIAL) {
            if (!count) {
                *why = i.flow == FLOW_SPECIAL ? STOP_SPECIAL : STOP_UNKNOWN;
                return 0;
            }
            break;
        }
        count++;
        here += i.length;
        if (i.flow != FLOW_NEXT) break;
    }

    u32 index = s->block_count++;
    struct block *b = &BLOCKS[index];
    int probe = is_probed(s, rip);
    struct ways ways;
    u8 *at = (u8 *)c->next;
    *b = (struct block){.rip = rip, .code = c->next, .count = count, .cache = r[n].cache, .probe = probe};
    at = begin(s, c, b, at, index, &ways);

    u8 *taken = 0, *fall = 0;
    u64 target = 0;
    here = rip;
    for (u32 k = 0; k < count; k++) {
        const u8 *code = (const u8 *)here;
        decode(code, end - here, &i);
        u64 next = here + i.length;
        s64 moved = (s64)next - (s64)(at + i.length);
        if (i.relative_at && !in_reach(*(const int *)(code + i.relative_at) + moved)) {
            s->block_count--;
            return 0;
        }
        target = next + i.target;
        switch (i.flow) {
        case FLOW_NEXT:
            for (int m = 0; m < i.length; m++) *at++ = code[m];
            if (i.relative_at)
                put(at - i.length + i.relative_at, *(const int *)(code + i.relative_at) + moved, 4);
            break;
        case FLOW_JCC:
            *at++ = 0x0f;
            *at++ = 0x80 | (i.opcode & 15);
            taken = at;
            at += 4;
            break;
        case FLOW_LOOP:
            for (int m = 0; m < i.length - 1; m++) *at++ = code[m];
            *at++ = 5; /* over the jump to the next instruction */
            *at++ = 0xe9;
            fall = at;
            at += 4;
            *at++ = 0xe9;
            taken = at;
            at += 4;
            break;
        case FLOW_CALL:
            at = push_address(at, next); /* fall through */
        case FLOW_JMP:
            *at++ = 0xe9;
            taken = at;
            at += 4;
            break;
        case FLOW_JMP_RM: case FLOW_CALL_RM:
            at = save_rax(at);
            at = load_operand(at, code, &i, here);
            if (i.flow == FLOW_CALL_RM) at = push_address(at, next);
            at = jump_to(at, c->start + TO_INDIRECT * JUMP_SIZE);
            break;
        case FLOW_RET:
            at = save_rax(at);
            PUT(0x48, 0x8b, 0x04, 0x24, 0x48, 0x8d, 0xa4, 0x24); /* mov (%rsp), %rax; lea n(%rsp), %rsp */
            at = put(at, 8 + i.pops, 4);
            at = jump_to(at, c->start + TO_INDIRECT * JUMP_SIZE);
            break;
        }
        here = next;
    }
    if (i.flow == FLOW_NEXT || i.flow == FLOW_JCC) {
        *at++ = 0xe9;
        fall = at;
        at += 4;
    }
    at = other_ways(c, b, at, index, &ways);
    if (taken) at = way_out(s, c, at, taken, target);
    if (fall) at = way_out(s, c, at, fall, here);
    c->next = ((u64)at + 15) & -16ul;
    b->next = HEAD[hash(rip)];
    HEAD[hash(rip)] = index + 1;
    return b;
}

/* The block at `rip`; 0, and `*why`, when there can be none. */
static struct block *find(struct state *s, u64 rip, u32 *why) {
    for (u32 n = HEAD[hash(rip)]; n; n = BLOCKS[n - 1].next)
        if (BLOCKS[n - 1].rip == rip) return &BLOCKS[n - 1];
    int full = s->block_count == MAX_BLOCKS || s->exit_count + 2 > MAX_EXITS;
    for (u64 n = 0; n < s->cache_count; n++)
        full |= s->caches[n].next + BLOCK_SPACE > s->caches[n].end;
    if (full) forget_all(s);
    return translate(s, rip, why);
}

/* Lets the jump that came out of the translated code go to `b` from now on. */
static void link(struct state *s, const struct exit *exit, const struct block *b) {
    u64 to = b->code;
    if (!in_reach((s64)to - (s64)(exit->patch + 4))) {
        /* In another cache: by way of a jump in this one. */
        for (u64 n = 0; n < s->cache_count; n++) {
            struct cache *c = &s->caches[n];
            if (exit->patch < c->start || exit->patch >= c->end) continue;
            to = c->next;
            c->next = (u64)jump_far((u8 *)to, b->code) + 2;
        }
    }
    put((u8 *)exit->patch, to - (exit->patch + 4), 4);
}

static int is_place(const struct state *s) {
    for (int n = 0; n < 16; n++)
        if (s->registers[n] != s->place[n]) return 0;
    if ((s->flags ^ s->place_flags) & ~0x10100ul) return 0; /* but trap and resume flag */
    for (u64 n = 0; n < s->word_count; n++)
        if (*(const u64 *)s->words[n].address != s->words[n].value) return 0;
    return 1;
}

static void look(struct state *s, s64 now) {
    const u8 *memory = (const u8 *)s->watched;
    int changed = 0;
    for (u64 n = 0; n < s->watched_length; n++) {
        changed |= s->value[n] ^ memory[n];
        s->value[n] = memory[n];
    }
    if (!changed) return;
    s->changed = now;
    s->changes++;
}

/* At the start of a block, which is counted already; whether to stop there. */
static int probe(struct state *s, const struct block *b) {
    s64 now = s->most - (s->left + b->count);
    s->resume = b->body;
    if (now == s->probed) return 0; /* it stopped here, and goes on */
    s->probed = now;
    if (s->watched_length) look(s, now);
    if (!b->probe) return 0;
    struct probe *p = &s->probes[b->probe - 1];
    if (p->kind & PROBE_PASS) {
        p->passes++;
        p->last = now;
    }
    if (!(p->kind & PROBE_PLACE) || !is_place(s)) return 0;
    s->left += b->count;
    s->rip = b->rip;
    return STOP_PLACE;
}

/* Lets the program go on at `resume`, or says why it stops. */
static int dispatch(struct state *s) {
    u32 why = 0;
    u64 target = s->rip;
    struct block *b;
    switch (s->why) {
    case WHY_LIMIT:
        s->rip = BLOCKS[s->argument].rip;
        return STOP_LIMIT;
    case WHY_PROBE:
        return probe(s, &BLOCKS[s->argument]);
    case WHY_BEGIN:
        if (!s->block_count) forget_all(s);
        break;
    case WHY_EXIT:
        target = EXITS[s->argument].target;
        break;
    case WHY_INDIRECT:
        target = s->argument;
        break;
    }
    u64 known = s->block_count;
    b = find(s, target, &why);
    if (!b) {
        s->rip = target;
        return why;
    }
    s->resume = b->code;
    if (s->why == WHY_EXIT && s->block_count >= known) link(s, &EXITS[s->argument], b);
    if (s->why == WHY_INDIRECT)
        TARGET[target & (TARGETS - 1)] = (struct target){target, b->code};
    return 0;
}

__attribute__((used)) int counter_dispatch(struct state *s) {
    int why = dispatch(s);
    if (why) settle(s);
    return why;
}
