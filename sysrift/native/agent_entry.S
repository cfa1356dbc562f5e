/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The agent's way in and out (see agent.c). */
#include "entry.h"

    .section .text.vector, "a"
    .quad 0x544e454741545253             /* "SRTAGENT" */
    .quad agent_entry
    .quad agent_precheck, agent_after    /* between them a call is about to be made */
    .quad agent_bail, agent_by_hand
    .quad agent_stopped
    .quad AGENT_END
    .quad AGENT_REGISTERS

    .section .text.entry, "ax"
    .globl agent_entry, agent_call

agent_entry:
    enter agent_hook
agent_tail:                              /* eax: whether to go on, or why to stop */
    test %eax, %eax
    jnz agent_stop
    leave_to_program

    /* Stop for the recorder, by the one signal that a program can neither block, catch nor ignore
     * (an int3 would reset the handler of a program that blocks SIGTRAP). It takes the program's
     * registers from where they are kept. Should a SIGCONT take the signal away: again. */
agent_stop:
    movabs $AGENT_CONTROL, %rbx
    mov %eax, STOP(%rbx)
    movl $0, PHASE(%rbx)
1:  mov $39, %eax                        /* getpid */
    syscall
    mov %eax, %ebp
    mov $186, %eax                       /* gettid */
    syscall
    mov %ebp, %edi
    mov %eax, %esi
    mov $19, %edx                        /* SIGSTOP */
    mov $234, %eax                       /* tgkill */
    syscall
agent_stopped:
    jmp 1b

    /* The recorder puts the program here: give the call up, wherever the C code is. */
agent_bail:
    movabs $AGENT_REGISTERS, %rsp
    mov $STOP_HANDOVER, %eax
    jmp agent_tail
agent_by_hand:
    movabs $AGENT_REGISTERS, %rsp
    mov $STOP_BY_HAND, %eax
    jmp agent_tail

    /* long agent_call(struct registers *, volatile int *attention): the system call itself. */
agent_call:
    mov %rsi, %r11
    mov %rdi, %rcx
    mov 48(%rcx), %r9
    mov 56(%rcx), %r8
    mov 64(%rcx), %r10
    mov 72(%rcx), %rdi
    mov 80(%rcx), %rsi
    mov 88(%rcx), %rdx
    mov 104(%rcx), %rax
agent_precheck:
    cmpl $0, (%r11)
    jne agent_bail
    syscall
agent_after:
    ret

    .section .text
    .globl agent_time
agent_time:                              /* void agent_time(struct timespec *) */
    mov %rdi, %rsi
    mov $1, %edi                         /* CLOCK_MONOTONIC */
    mov $228, %eax                       /* clock_gettime */
    syscall
    ret
    .globl agent_break
agent_break:                             /* u64 agent_break(void): where the heap ends */
    xor %edi, %edi
    mov $12, %eax                        /* brk */
    syscall
    ret
    .section .note.GNU-stack, "", @progbits
