/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The player's way in and out (see player.c). */
#include "entry.h"

    .section .text.vector, "a"
    .quad 0x52594c5054545253             /* "SRTTPLYR" */
    .quad player_entry
    .quad player_leaving                 /* from here on the call is played */
    .quad player_stop                    /* ... up to here */
    .quad player_stopped
    .quad AGENT_END
    .quad AGENT_REGISTERS

    .section .text.entry, "ax"
player_entry:
    enter player_hook
    test %eax, %eax                      /* why to stop */
    jnz player_stop
player_leaving:
    leave_to_program

    /* Stop for the engine, which takes the program's registers from where they are kept and goes on
     * with them: the guard lets no system call be made here. */
player_stop:
    movabs $AGENT_CONTROL, %rbx
    mov %eax, STOP(%rbx)
    int3
player_stopped:
    ud2
    .section .note.GNU-stack, "", @progbits
