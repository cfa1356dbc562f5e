# SPDX-License-Identifier: GPL-2.0-or-later
"""Recording: `launch` starts the program, `recorder` is the ptrace loop, `leaks` closes what lets
the outside in without a system call, `signals` delivers signals where replay can find the place,
`files` names mapped files, `guess` covers system calls that the table does not know.
"""
