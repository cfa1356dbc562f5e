/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Into the C code and back, with all of the program's registers in their places.
 *
 * A patched `syscall` comes here by its site's trampoline, with the site's descriptor in rcx. Of the
 * program's registers only rcx and r11 are lost, which the call itself would have overwritten (rcx
 * with the address behind it, r11 with the flags). Nothing is put onto the program's stack.
 */
#include "agent.h"

.macro enter hook
    movabs $AGENT_CONTROL, %r11
    mov %rsp, SAVED_RSP(%r11)
    lea (AGENT_STACK_TOP - AGENT_CONTROL)(%r11), %rsp
    pushfq
    push %rax
    push %rcx
    push %rdx
    push %rsi
    push %rdi
    push %r10
    push %r8
    push %r9
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    mov %rsp, %rdi
    call \hook
.endm

.macro leave_to_program
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    pop %r9
    pop %r8
    pop %r10
    pop %rdi
    pop %rsi
    pop %rdx
    pop %rcx
    pop %rax
    popfq
    movabs $AGENT_CONTROL, %r11
    mov SAVED_RSP(%r11), %rsp
    movabs $AGENT_STACK_TOP - 8, %r11
    mov (%r11), %r11                     /* the flags, as the call would have left them there */
    jmp *agent_resume(%rip)              /* control.resume */
.endm
