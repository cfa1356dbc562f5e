/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The stub: the process that a replay happens in. It first guards itself with a seccomp filter, so
 * that no system call of the replayed program can reach the kernel whatever a debugger does, and
 * stops. The replayer then unmaps everything but these pages and rebuilds the program around them.
 *
 *   instruction pointer in the stub's code page   allow: the replayer's own remote system calls
 *   number -1                                     allow: a call that the tracer has emulated
 *   r9 = KEEP_NUMBER_MAGIC                        skip, ENOSYS: the same, where GDB must still see
 *                                                 the call's number at the syscall-exit-stop
 *   everything else                               SIGSYS: a call the tracer has not seen
 *                                                 (PTRACE_SINGLESTEP passes no syscall-stops)
 *
 * Layout (see __init__.py): code page at STUB_START, beginning with `syscall; int3`; scratch pages
 * behind it. Entered by the kernel at _start; stops by int3 with rax = 0, or -errno when the
 * filter was refused.
 */

#define AUDIT_NR 0
#define AUDIT_IP_LOW 8
#define AUDIT_IP_HIGH 12
#define AUDIT_ARG5_LOW 56
#define AUDIT_ARG5_HIGH 60

#define LD_ABS 0x20
#define JEQ 0x15
#define JGE 0x35
#define RET 0x06

#define STUB_HIGH 0x1e00
#define STUB_LOW 0x0
#define STUB_LOW_END 0x1000
#define MAGIC_HIGH 0x5d51f7c0
#define MAGIC_LOW 0xdec0ffee

#define RET_ALLOW 0x7fff0000
#define RET_ERRNO_ENOSYS 0x00050026
#define RET_TRAP 0x00030000

.macro bpf code, jt, jf, k
    .short \code
    .byte \jt
    .byte \jf
    .long \k
.endm

    .section .text
remote_syscall:
    syscall
    int3
    jmp remote_syscall

    .balign 16
    .globl _start
_start:
    mov $157, %eax              /* prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) */
    mov $38, %edi
    mov $1, %esi
    xor %edx, %edx
    xor %r10d, %r10d
    xor %r8d, %r8d
    syscall
    test %rax, %rax
    jnz 1f
    lea filter(%rip), %rax
    lea program(%rip), %rdx
    mov %rax, 8(%rdx)
    mov $317, %eax              /* seccomp(SECCOMP_SET_MODE_FILTER, 0, program) */
    mov $1, %edi
    xor %esi, %esi
    syscall
1:  int3
    jmp 1b

    .balign 8
filter:
    bpf LD_ABS, 0, 0, AUDIT_IP_HIGH
    bpf JEQ, 0, 3, STUB_HIGH
    bpf LD_ABS, 0, 0, AUDIT_IP_LOW
    bpf JGE, 1, 0, STUB_LOW_END
    bpf RET, 0, 0, RET_ALLOW
    bpf LD_ABS, 0, 0, AUDIT_NR
    bpf JEQ, 0, 1, 0xffffffff
    bpf RET, 0, 0, RET_ALLOW
    bpf LD_ABS, 0, 0, AUDIT_ARG5_LOW
    bpf JEQ, 0, 3, MAGIC_LOW
    bpf LD_ABS, 0, 0, AUDIT_ARG5_HIGH
    bpf JEQ, 0, 1, MAGIC_HIGH
    bpf RET, 0, 0, RET_ERRNO_ENOSYS
    bpf RET, 0, 0, RET_TRAP
filter_end:

    .section .data
    .balign 4096
scratch:
program:                        /* struct sock_fprog */
    .short (filter_end - filter) / 8
    .balign 8
    .quad 0
    .space 0x2000 - 16

    .section .note.GNU-stack, "", @progbits
