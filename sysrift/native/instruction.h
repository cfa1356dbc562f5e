/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The length of an x86-64 instruction, and what of it depends on where it lies.
 *
 * Intel SDM vol. 2, 2.1 to 2.7 (formats), appendix A (opcode maps); AMD APM vol. 3, 1.1.4 (XOP).
 */

enum flow {
    FLOW_NEXT,     /* the next instruction follows */
    FLOW_JCC,      /* jcc */
    FLOW_LOOP,     /* loop, jrcxz: by 8 bits only */
    FLOW_JMP, FLOW_CALL,
    FLOW_JMP_RM, FLOW_CALL_RM,
    FLOW_RET,
    FLOW_SPECIAL,  /* enters the kernel, stops, or is another program's in another place: a debugger's */
    FLOW_UNKNOWN,  /* no instruction, or one that nobody can move */
};

struct instruction {
    u8 length, opcode_at, modrm_at, /* modrm_at: 0 when it has none */
        relative_at;                /* of the 32 bits relative to what follows it; 0 for none */
    u8 opcode, map, rex, legacy_rex_at, flow;
    s64 target;                     /* of FLOW_JCC, _LOOP, _JMP, _CALL: relative to what follows */
    u32 pops;                       /* FLOW_RET: bytes beside the address */
};

enum { IMM_NONE, IMM_8, IMM_16, IMM_Z, IMM_ENTER, IMM_MOFFS, IMM_V, REL_8, REL_32, IMM_TEST8, IMM_TESTZ };

static int has_modrm_one(u8 op) {
    if (op < 0x40) return (op & 7) < 4;
    if (op == 0x63 || op == 0x69 || op == 0x6b) return 1;
    if (op >= 0x80 && op <= 0x8f) return 1;
    return op == 0xc0 || op == 0xc1 || op == 0xc6 || op == 0xc7 || (op >= 0xd0 && op <= 0xd3) ||
           (op >= 0xd8 && op <= 0xdf) || op == 0xf6 || op == 0xf7 || op == 0xfe || op == 0xff;
}

static int immediate_one(u8 op) {
    if (op < 0x40) return (op & 7) == 4 ? IMM_8 : (op & 7) == 5 ? IMM_Z : IMM_NONE;
    if (op >= 0x70 && op <= 0x7f) return REL_8;
    if (op >= 0xa0 && op <= 0xa3) return IMM_MOFFS;
    if (op >= 0xb0 && op <= 0xb7) return IMM_8;
    if (op >= 0xb8 && op <= 0xbf) return IMM_V;
    if (op >= 0xe0 && op <= 0xe3) return REL_8;
    if (op >= 0xe4 && op <= 0xe7) return IMM_8;
    switch (op) {
    case 0x68: case 0x69: case 0x81: case 0xa9: case 0xc7: return IMM_Z;
    case 0x6a: case 0x6b: case 0x80: case 0x83: case 0xa8: case 0xc0: case 0xc1: case 0xc6:
    case 0xcd: return IMM_8;
    case 0xc2: case 0xca: return IMM_16;
    case 0xc8: return IMM_ENTER;
    case 0xe8: case 0xe9: return REL_32;
    case 0xeb: return REL_8;
    case 0xf6: return IMM_TEST8;
    case 0xf7: return IMM_TESTZ;
    }
    return IMM_NONE;
}

static int is_invalid_one(u8 op) {
    if (op < 0x40) return (op & 7) >= 6;
    return op == 0x60 || op == 0x61 || op == 0x82 || op == 0x9a || op == 0xce || op == 0xd4 ||
           op == 0xd5 || op == 0xd6 || op == 0xea;
}

static int has_modrm_two(u8 op) {
    return !((op >= 0x04 && op <= 0x0c && op != 0x0a) || op == 0x0e || (op >= 0x30 && op <= 0x37) ||
             op == 0x77 || (op >= 0x80 && op <= 0x8f) || op == 0xa0 || op == 0xa1 || op == 0xa2 ||
             (op >= 0xa8 && op <= 0xaa) || (op >= 0xc8 && op <= 0xcf));
}

static int immediate_two(u8 op) {
    if (op >= 0x80 && op <= 0x8f) return REL_32;
    return (op >= 0x70 && op <= 0x73) || op == 0xa4 || op == 0xac || op == 0xba || op == 0xc2 ||
                   (op >= 0xc4 && op <= 0xc6) || op == 0x0f
               ? IMM_8
               : IMM_NONE;
}

static int is_prefix(u8 op) {
    return op == 0x26 || op == 0x2e || op == 0x36 || op == 0x3e || (op >= 0x64 && op <= 0x67) ||
           op == 0xf0 || op == 0xf2 || op == 0xf3;
}

/* What the instruction at `code` is, of which `limit` bytes can be read; 0 when it does not end
   within them. Where it says FLOW_UNKNOWN the length means nothing. */
static int decode(const u8 *code, u64 limit, struct instruction *i) {
    u64 at = 0;
    int operand16 = 0, address32 = 0, vector = 0, imm, modrm;
    u8 op;
    for (u64 n = 0; n < sizeof *i; n++) ((u8 *)i)[n] = 0;
    if (limit > 15) limit = 15;
    i->flow = FLOW_NEXT;
    for (;; at++) {
        if (at >= limit) return 0;
        op = code[at];
        if (op == 0x66) operand16 = 1;
        else if (op == 0x67) address32 = 1;
        else if (!is_prefix(op)) break;
    }
    if ((op & 0xf0) == 0x40) {
        i->rex = op;
        i->legacy_rex_at = at++;
        if (at >= limit) return 0;
        op = code[at];
        if ((op & 0xf0) == 0x40 || is_prefix(op)) i->flow = FLOW_UNKNOWN; /* a REX that is ignored */
    }
    if (op == 0xc5 || op == 0xc4 || op == 0x62 || (op == 0x8f && at + 1 < limit && (code[at + 1] & 0x1f) >= 8)) {
        if (at + 3 >= limit && op != 0xc5) return 0;
        vector = op;
        if (op == 0xc5) i->map = 1, at += 2;
        else if (op == 0x62) i->map = code[at + 1] & 7, at += 4;
        else i->map = code[at + 1] & 0x1f, at += 3;
    } else if (op == 0x0f) {
        if (++at >= limit) return 0;
        i->map = 1;
        if (code[at] == 0x38 || code[at] == 0x3a) {
            i->map = code[at] == 0x38 ? 2 : 3;
            if (++at >= limit) return 0;
        }
    }
    if (at >= limit) return 0;
    i->opcode_at = at;
    i->opcode = op = code[at++];
    if (vector) {
        modrm = !(i->map == 1 && op == 0x77 && vector != 0x62);
        imm = IMM_NONE;
        if (i->map == 3 || i->map == 8) imm = IMM_8;
        else if (i->map == 10) imm = IMM_V + 100; /* XOP: 32 bits */
        else if (i->map == 1 && op != 0xa4 && op != 0xac && op != 0xba && !(op >= 0x80 && op <= 0x8f))
            imm = immediate_two(op);
        else if (i->map == 0 || i->map == 4) i->flow = FLOW_UNKNOWN;
    } else if (i->map == 0) {
        modrm = has_modrm_one(op), imm = immediate_one(op);
        if (is_invalid_one(op)) i->flow = FLOW_UNKNOWN;
    } else {
        modrm = i->map == 1 ? has_modrm_two(op) : 1;
        imm = i->map == 1 ? immediate_two(op) : i->map == 3 ? IMM_8 : IMM_NONE;
    }
    u8 mod = 0, reg = 0, rm = 0;
    if (modrm) {
        if (at >= limit) return 0;
        i->modrm_at = at;
        mod = code[at] >> 6, reg = code[at] >> 3 & 7, rm = code[at] & 7;
        at++;
        if (mod != 3) {
            if (rm == 4) {
                if (at >= limit) return 0;
                if (mod == 0 && (code[at] & 7) == 5) at += 4;
                at++;
            } else if (mod == 0 && rm == 5) {
                i->relative_at = at;
                if (address32) i->flow = FLOW_UNKNOWN;
                at += 4;
            }
            at += mod == 1 ? 1 : mod == 2 ? 4 : 0;
        }
    }
    if (imm == IMM_TEST8) imm = reg < 2 ? IMM_8 : IMM_NONE;
    if (imm == IMM_TESTZ) imm = reg < 2 ? IMM_Z : IMM_NONE;
    int wide = i->rex & 8;
    u64 immediate = at;
    switch (imm) {
    case IMM_8: case REL_8: at += 1; break;
    case IMM_16: at += 2; break;
    case IMM_Z: at += operand16 && !wide ? 2 : 4; break;
    case IMM_V: at += wide ? 8 : operand16 ? 2 : 4; break;
    case IMM_MOFFS: at += address32 ? 4 : 8; break;
    case IMM_ENTER: at += 3; break;
    case REL_32: case IMM_V + 100: at += 4; break;
    }
    if (at > limit) return 0;
    i->length = at;
    if (vector || i->flow == FLOW_UNKNOWN) return 1;
    if (imm == REL_8) i->target = (signed char)code[immediate];
    if (imm == REL_32)
        i->target = (int)(code[immediate] | code[immediate + 1] << 8 | code[immediate + 2] << 16 |
                          (u32)code[immediate + 3] << 24);
    if (i->map == 0) {
        if (op >= 0x70 && op <= 0x7f) i->flow = FLOW_JCC;
        else if (op >= 0xe0 && op <= 0xe3) i->flow = FLOW_LOOP;
        else if (op == 0xe9 || op == 0xeb) i->flow = FLOW_JMP;
        else if (op == 0xe8) i->flow = FLOW_CALL;
        else if (op == 0xc3) i->flow = FLOW_RET;
        else if (op == 0xc2) i->flow = FLOW_RET, i->pops = code[immediate] | code[immediate + 1] << 8;
        else if (op == 0xff && reg == 2) i->flow = FLOW_CALL_RM;
        else if (op == 0xff && reg == 4) i->flow = FLOW_JMP_RM;
        else if (op == 0xff && (reg == 3 || reg == 5 || reg == 7)) i->flow = FLOW_SPECIAL;
        else if ((op >= 0x6c && op <= 0x6f) || (op >= 0xca && op <= 0xcf && op != 0xc9) ||
                 (op >= 0xe4 && op <= 0xe7) || (op >= 0xec && op <= 0xef) || op == 0xf1 || op == 0xf4 ||
                 op == 0x8e || (op == 0xc7 && mod == 3 && reg == 7))
            i->flow = FLOW_SPECIAL; /* also mov to a segment register, and xbegin */
        if (i->flow > FLOW_NEXT && i->flow <= FLOW_RET && operand16 && !wide)
            i->flow = FLOW_UNKNOWN; /* AMD takes it for 16 bits, Intel ignores the prefix */
    } else if (i->map == 1) {
        if (op >= 0x20 && op <= 0x23) i->flow = FLOW_UNKNOWN; /* mov of control registers: the kernel's */
        else if (op >= 0x80 && op <= 0x8f) i->flow = operand16 && !wide ? FLOW_UNKNOWN : FLOW_JCC;
        else if (op == 0x05 || op == 0x34 || op == 0x35 || op == 0x07 || op == 0x0b || op == 0xb9 ||
                 op == 0xff || op == 0x31 || op == 0x33 || op == 0xaa ||
                 (op == 0x01 && mod == 3 && (reg == 7 || reg == 0 || reg == 3)))
            i->flow = FLOW_SPECIAL; /* 0f 01: swapgs, rdtscp, vmcall and the like */
    }
    return 1;
}
