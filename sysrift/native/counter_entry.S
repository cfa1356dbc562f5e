/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From the translated code into the counter and back (see counter.c).
 *
 * Translated code comes here with the program's rax in its place in the state and something of its own
 * in rax; everything else is the program's, the flags too. Nothing is put onto the program's stack.
 */
#include "counter.h"

#define STORED(number) counter_state + REGISTERS + 8 * number(%rip)

    .section .text.vector, "a"
    .quad 0x544e554f43545253             /* "SRTCOUNT" */
    .quad counter_begin
    .quad counter_stopped
    .quad counter_translated             /* what of the code belongs to the program's run */
    .quad COUNTER_END
    .quad MAX_BLOCKS

    .section .text.entry, "ax"
counter_begin:                           /* all of the program's registers are in the state */
    movl $WHY_BEGIN, counter_state + WHY(%rip)
    jmp called

    .globl counter_exit, counter_limit, counter_probe, counter_indirect
counter_exit:
    movl $WHY_EXIT, counter_state + WHY(%rip)
    jmp save
counter_limit:
    movl $WHY_LIMIT, counter_state + WHY(%rip)
    jmp save
counter_probe:
    movl $WHY_PROBE, counter_state + WHY(%rip)
    jmp save

    /* To the block of the address in rax, if it has been gone to in this way before. */
counter_indirect:
    mov %rcx, STORED(1)
    mov %rdx, STORED(2)
    mov %rax, %rcx
    lahf
    seto %al
    mov %rax, counter_state + SPARE(%rip)
    movzwl %cx, %edx
    shl $4, %edx
    movabs $COUNTER_TARGETS, %rax
    add %rax, %rdx
    cmp %rcx, (%rdx)
    jne 1f
    mov 8(%rdx), %rdx
    mov %rdx, counter_state + RESUME(%rip)
    mov counter_state + SPARE(%rip), %rax
    add $127, %al
    sahf
    mov STORED(1), %rcx
    mov STORED(2), %rdx
    mov STORED(0), %rax
    jmp *counter_state + RESUME(%rip)
1:
    mov counter_state + SPARE(%rip), %rax
    add $127, %al
    sahf
    mov %rcx, %rax
    mov STORED(1), %rcx
    mov STORED(2), %rdx
    movl $WHY_INDIRECT, counter_state + WHY(%rip)

save:
    mov %rax, counter_state + ARGUMENT(%rip)
    mov %rcx, STORED(1)
    mov %rdx, STORED(2)
    mov %rbx, STORED(3)
    mov %rsp, STORED(4)
    mov %rbp, STORED(5)
    mov %rsi, STORED(6)
    mov %rdi, STORED(7)
    mov %r8, STORED(8)
    mov %r9, STORED(9)
    mov %r10, STORED(10)
    mov %r11, STORED(11)
    mov %r12, STORED(12)
    mov %r13, STORED(13)
    mov %r14, STORED(14)
    mov %r15, STORED(15)
    movabs $COUNTER_STACK_TOP, %rsp
    pushfq
    pop %rax
    mov %rax, counter_state + FLAGS(%rip)
called:
    movabs $COUNTER_STACK_TOP, %rsp
    cld
    lea counter_state(%rip), %rdi
    call counter_dispatch
    test %eax, %eax
    jnz counter_stop
    push counter_state + FLAGS(%rip)
    popfq
    mov STORED(15), %r15
    mov STORED(14), %r14
    mov STORED(13), %r13
    mov STORED(12), %r12
    mov STORED(11), %r11
    mov STORED(10), %r10
    mov STORED(9), %r9
    mov STORED(8), %r8
    mov STORED(7), %rdi
    mov STORED(6), %rsi
    mov STORED(5), %rbp
    mov STORED(3), %rbx
    mov STORED(2), %rdx
    mov STORED(1), %rcx
    mov STORED(4), %rsp
    mov STORED(0), %rax
counter_translated:
    jmp *counter_state + RESUME(%rip)

    /* Stop for the engine, which takes the program's registers from the state. */
counter_stop:
    int3
counter_stopped:
    ud2
    .section .note.GNU-stack, "", @progbits
