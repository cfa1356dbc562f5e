# SPDX-License-Identifier: GPL-2.0-or-later
"""The x86-64 system calls, a row each (data; `table` makes the rows of it).

A line is `number name flags argument...`, the arguments in the notation of `effects`. Flags:

    b   may block until another task or the outside does something
    M R T   replay class map, registers or task instead of emulate
    ?   the memory use is only guessed at: `Row.known` is False
    -   none of these

`=rule` adds an irregular rule, and `@family.argument` chooses further effects by the value of
that argument. Numbers and names are those of arch/x86/entry/syscalls/syscall_64.tbl; arguments
and what is written follow the SYSCALL_DEFINE of each call and its man page.
"""

from __future__ import annotations

ROWS = """
0   read              b fd:fd buf:buf>ret^count count:size
1   write             b fd:fd buf:buf<count count:size
2   open              b path:path flags:flags.open mode:mode
3   close             - fd:fd
4   stat              - path:path statbuf:stat>
5   fstat             - fd:fd statbuf:stat>
6   lstat             - path:path statbuf:stat>
# do_sys_poll writes revents back even when a signal ended it
7   poll              b fds:pollfd<nfds*8>!nfds*8 nfds:uint timeout:int
8   lseek             - fd:fd offset:off whence:enum.whence
9   mmap              M addr:ptr length:size prot:flags.prot flags:flags.mmap fd:fd offset:off
10  mprotect          M addr:ptr length:size prot:flags.prot
11  munmap            M addr:ptr length:size
12  brk               M addr:ptr
13  rt_sigaction      - signum:signal act:sigaction< oldact:sigaction> sigsetsize:size
14  rt_sigprocmask    - how:enum.sighow set:sigset<sigsetsize oldset:sigset>sigsetsize \
sigsetsize:size
15  rt_sigreturn      R
16  ioctl             b fd:fd request:enum.ioctl arg:ulong @ioctl.request
17  pread64           b fd:fd buf:buf>ret^count count:size offset:off
18  pwrite64          b fd:fd buf:buf<count count:size offset:off
19  readv             b fd:fd iov:iovec>iov(iovcnt) iovcnt:ulong
20  writev            b fd:fd iov:iovec<iov(iovcnt) iovcnt:ulong
21  access            - path:path mode:flags.access
22  pipe              - pipefd:ints>8
# poll_select_finish updates the timeout whatever the outcome
23  select            b nfds:int readfds:fdset<nfds/64*8>nfds/64*8 \
writefds:fdset<nfds/64*8>nfds/64*8 exceptfds:fdset<nfds/64*8>nfds/64*8 timeout:timeval<>*
24  sched_yield       b
25  mremap            M old_address:ptr old_size:size new_size:size flags:flags.mremap \
new_address:ptr
26  msync             - addr:ptr length:size flags:flags.msync
27  mincore           - addr:ptr length:size vec:buf>length/4096
28  madvise           M addr:ptr length:size advice:enum.madvise
29  shmget            - key:int size:size shmflg:flags.ipc
30  shmat             M shmid:int shmaddr:ptr shmflg:flags.shmat
31  shmctl            - shmid:int cmd:enum.shmctl buf:ptr @shmctl.cmd
32  dup               - oldfd:fd
33  dup2              - oldfd:fd newfd:fd
34  pause             b
35  nanosleep         b req:timespec< rem:timespec>~
36  getitimer         - which:enum.itimer curr_value:itimerval>
37  alarm             - seconds:uint
38  setitimer         - which:enum.itimer new_value:itimerval< old_value:itimerval>
39  getpid            -
40  sendfile          b out_fd:fd in_fd:fd offset:off_ptr<8>8 count:size
41  socket            - domain:enum.domain type:enum.socktype protocol:int
42  connect           b sockfd:fd addr:sockaddr<addrlen^128 addrlen:socklen
43  accept            b sockfd:fd addr:sockaddr>@addrlen addrlen:int_ptr<4>4
44  sendto            b sockfd:fd buf:buf<len len:size flags:flags.msg \
addr:sockaddr<addrlen^128 addrlen:socklen
45  recvfrom          b sockfd:fd buf:buf>ret^len len:size flags:flags.msg \
addr:sockaddr>@addrlen addrlen:int_ptr<4>4
46  sendmsg           b sockfd:fd msg:msghdr flags:flags.msg =sendmsg
47  recvmsg           b sockfd:fd msg:msghdr flags:flags.msg =recvmsg
48  shutdown          - sockfd:fd how:enum.shutdown
49  bind              - sockfd:fd addr:sockaddr<addrlen^128 addrlen:socklen
50  listen            - sockfd:fd backlog:int
51  getsockname       - sockfd:fd addr:sockaddr>@addrlen addrlen:int_ptr<4>4
52  getpeername       - sockfd:fd addr:sockaddr>@addrlen addrlen:int_ptr<4>4
53  socketpair        - domain:enum.domain type:enum.socktype protocol:int sv:ints>8
54  setsockopt        - sockfd:fd level:enum.sol optname:int optval:buf<optlen optlen:socklen \
=setsockopt
# SO_PEERSEC and SO_PEERGROUPS store the length they need with ERANGE
55  getsockopt        - sockfd:fd level:enum.sol optname:int optval:buf>@optlen \
optlen:int_ptr<4>*4 =getsockopt
56  clone             T flags:flags.clone stack:ptr parent_tid:int_ptr child_tid:int_ptr \
tls:ulong =clone
57  fork              T
58  vfork             Tb
59  execve            T path:path argv:argv envp:argv =execve
60  exit              T status:int
61  wait4             b pid:pid wstatus:wstatus>4 options:flags.wait rusage:rusage>
62  kill              - pid:pid sig:signal
63  uname             - buf:utsname>
64  semget            - key:int nsems:int semflg:flags.ipc
65  semop             b semid:int sops:ptr<nsops*6 nsops:uint
66  semctl            - semid:int semnum:int cmd:enum.semctl arg:ulong @semctl.cmd
67  shmdt             M shmaddr:ptr
68  msgget            - key:int msgflg:flags.ipc
69  msgsnd            b msqid:int msgp:buf<msgsz+8 msgsz:size msgflg:flags.ipc
70  msgrcv            b msqid:int msgp:buf>ret^msgsz+8 msgsz:size msgtyp:long msgflg:flags.ipc
71  msgctl            - msqid:int cmd:enum.msgctl buf:ptr @msgctl.cmd
72  fcntl             b fd:fd cmd:enum.fcntl arg:ulong @fcntl.cmd
73  flock             b fd:fd operation:flags.flock
74  fsync             - fd:fd
75  fdatasync         - fd:fd
76  truncate          - path:path length:off
77  ftruncate         - fd:fd length:off
78  getdents          - fd:fd dirp:buf>ret^count count:uint
79  getcwd            - buf:buf>ret^size size:size
80  chdir             - path:path
81  fchdir            - fd:fd
82  rename            - oldpath:path newpath:path
83  mkdir             - path:path mode:mode
84  rmdir             - path:path
85  creat             b path:path mode:mode
86  link              - oldpath:path newpath:path
87  unlink            - path:path
88  symlink           - target:path linkpath:path
89  readlink          - path:path buf:buf>ret^bufsiz bufsiz:int
90  chmod             - path:path mode:mode
91  fchmod            - fd:fd mode:mode
92  chown             - path:path owner:uid group:gid
93  fchown            - fd:fd owner:uid group:gid
94  lchown            - path:path owner:uid group:gid
95  umask             - mask:mode
96  gettimeofday      - tv:timeval> tz:timezone>
97  getrlimit         - resource:enum.rlimit rlim:rlimit>
98  getrusage         - who:enum.rusage usage:rusage>
99  sysinfo           - info:sysinfo>
100 times             - buf:tms>
101 ptrace            b request:enum.ptrace pid:pid addr:ptr data:ptr @ptrace.request
102 getuid            -
103 syslog            b type:int bufp:buf>ret^size size:int
104 getgid            -
105 setuid            - uid:uid
106 setgid            - gid:gid
107 geteuid           -
108 getegid           -
109 setpgid           - pid:pid pgid:pid
110 getppid           -
111 getpgrp           -
112 setsid            -
113 setreuid          - ruid:uid euid:uid
114 setregid          - rgid:gid egid:gid
115 getgroups         - size:int list:ints>ret^size*4
116 setgroups         - size:int list:ints<size*4
117 setresuid         - ruid:uid euid:uid suid:uid
118 getresuid         - ruid:int_ptr>4 euid:int_ptr>4 suid:int_ptr>4
119 setresgid         - rgid:gid egid:gid sgid:gid
120 getresgid         - rgid:int_ptr>4 egid:int_ptr>4 sgid:int_ptr>4
121 getpgid           - pid:pid
122 setfsuid          - fsuid:uid
123 setfsgid          - fsgid:gid
124 getsid            - pid:pid
# a version that it does not know is answered by writing the preferred one
125 capget            - hdrp:capheader<8>*4 datap:ptr =capget
126 capset            - hdrp:capheader<8>*4 datap:ptr =capset
127 rt_sigpending     - set:sigset>sigsetsize sigsetsize:size
128 rt_sigtimedwait   b set:sigset<sigsetsize info:siginfo> timeout:timespec< sigsetsize:size
129 rt_sigqueueinfo   - tgid:pid sig:signal info:siginfo<48
130 rt_sigsuspend     b mask:sigset<sigsetsize sigsetsize:size
131 sigaltstack       - ss:stack< old_ss:stack>
132 utime             - path:path times:ptr<16
133 mknod             - path:path mode:mode dev:dev
134 uselib            - library:path
135 personality       - persona:ulong
136 ustat             - dev:dev ubuf:ptr>32
137 statfs            - path:path buf:statfs>
138 fstatfs           - fd:fd buf:statfs>
139 sysfs             - option:int arg1:ulong arg2:ptr @sysfs.option
140 getpriority       - which:enum.priority who:int
141 setpriority       - which:enum.priority who:int prio:int
142 sched_setparam    - pid:pid param:ints<4
143 sched_getparam    - pid:pid param:ints>4
144 sched_setscheduler - pid:pid policy:enum.sched param:ints<4
145 sched_getscheduler - pid:pid
146 sched_get_priority_max - policy:enum.sched
147 sched_get_priority_min - policy:enum.sched
148 sched_rr_get_interval - pid:pid tp:timespec>
149 mlock             - addr:ptr length:size
150 munlock           - addr:ptr length:size
151 mlockall          - flags:flags.mlockall
152 munlockall        -
153 vhangup           -
154 modify_ldt        - func:int ptr:ptr bytecount:ulong @modify_ldt.func
155 pivot_root        - new_root:path put_old:path
156 _sysctl           ? args:ptr<80
157 prctl             - option:enum.prctl arg2:ulong arg3:ulong arg4:ulong arg5:ulong \
@prctl.option
158 arch_prctl        R code:enum.arch_prctl addr:ulong @arch_prctl.code
# the time structure is copied back whether or not the clock could be read or set
159 adjtimex          - buf:timex<>*
160 setrlimit         M resource:enum.rlimit rlim:rlimit<
161 chroot            - path:path
162 sync              -
163 acct              - filename:path
164 settimeofday      - tv:timeval< tz:timezone<
165 mount             - source:path target:path fstype:string flags:flags.mount data:string
166 umount2           - target:path flags:flags.umount
167 swapon            - path:path swapflags:int
168 swapoff           - path:path
169 reboot            - magic:int magic2:int op:uint arg:string<z^256
170 sethostname       - name:buf<len len:int
171 setdomainname     - name:buf<len len:int
172 iopl              - level:uint
173 ioperm            - from:ulong num:ulong turn_on:int
174 create_module     -
175 init_module       - module_image:buf<len len:ulong param_values:string
176 delete_module     - name:string flags:flags.open
177 get_kernel_syms   -
178 query_module      -
179 quotactl          - cmd:uint special:path id:int addr:ptr @quotactl.cmd
180 nfsservctl        -
181 getpmsg           -
182 putpmsg           -
183 afs_syscall       -
184 tuxcall           -
185 security          -
186 gettid            -
187 readahead         - fd:fd offset:off count:size
188 setxattr          - path:path name:string value:buf<size size:size flags:flags.xattr
189 lsetxattr         - path:path name:string value:buf<size size:size flags:flags.xattr
190 fsetxattr         - fd:fd name:string value:buf<size size:size flags:flags.xattr
191 getxattr          - path:path name:string value:buf>ret^size size:size
192 lgetxattr         - path:path name:string value:buf>ret^size size:size
193 fgetxattr         - fd:fd name:string value:buf>ret^size size:size
194 listxattr         - path:path list:buf>ret^size size:size
195 llistxattr        - path:path list:buf>ret^size size:size
196 flistxattr        - fd:fd list:buf>ret^size size:size
197 removexattr       - path:path name:string
198 lremovexattr      - path:path name:string
199 fremovexattr      - fd:fd name:string
200 tkill             - tid:pid sig:signal
201 time              - tloc:ptr>8
202 futex             b uaddr:ptr op:enum.futex val:uint timeout:ptr uaddr2:ptr val3:uint \
@futex.op
203 sched_setaffinity - pid:pid len:uint mask:buf<len^1024
204 sched_getaffinity - pid:pid len:uint mask:buf>ret^len
205 set_thread_area   -
206 io_setup          - nr_events:uint ctx_idp:ptr<8>8
207 io_destroy        - ctx_id:ulong
208 io_getevents      b ctx_id:ulong min_nr:long nr:long events:ptr>ret^nr*32 timeout:timespec<
# reads complete into the program's buffers later, without a system call
209 io_submit         ? ctx_id:ulong nr:long iocbpp:ptr =io_submit
210 io_cancel         - ctx_id:ulong iocb:ptr<64 result:ptr>32
211 get_thread_area   -
212 lookup_dcookie    - cookie:ulong buffer:buf>ret^len len:size
213 epoll_create      - size:int
214 epoll_ctl_old     -
215 epoll_wait_old    -
216 remap_file_pages  M addr:ptr size:size prot:flags.prot pgoff:size flags:flags.mmap
217 getdents64        - fd:fd dirp:buf>ret^count count:uint
218 set_tid_address   - tidptr:int_ptr
# the registers still hold the interrupted call's arguments: its row has the rules
219 restart_syscall   b?
220 semtimedop        b semid:int sops:ptr<nsops*6 nsops:uint timeout:timespec<
221 fadvise64         - fd:fd offset:off len:size advice:enum.fadvise
222 timer_create      - clockid:enum.clock sevp:sigevent< timerid:int_ptr>4
223 timer_settime     - timerid:int flags:int new_value:itimerspec< old_value:itimerspec>
224 timer_gettime     - timerid:int curr_value:itimerspec>
225 timer_getoverrun  - timerid:int
226 timer_delete      - timerid:int
227 clock_settime     - clockid:enum.clock tp:timespec<
228 clock_gettime     - clockid:enum.clock tp:timespec>
229 clock_getres      - clockid:enum.clock res:timespec>
230 clock_nanosleep   b clockid:enum.clock flags:flags.timer request:timespec< remain:timespec>~
231 exit_group        T status:int
232 epoll_wait        b epfd:fd events:epoll_event>ret^maxevents*12 maxevents:int timeout:int
233 epoll_ctl         - epfd:fd op:enum.epoll fd:fd event:epoll_event<
234 tgkill            - tgid:pid tid:pid sig:signal
235 utimes            - path:path times:ptr<32
236 vserver           -
237 mbind             - addr:ptr len:size mode:int nodemask:ptr<maxnode/64*8 maxnode:ulong \
flags:uint
238 set_mempolicy     - mode:int nodemask:ptr<maxnode/64*8 maxnode:ulong
239 get_mempolicy     - mode:ints>4 nodemask:ptr>maxnode/64*8 maxnode:ulong addr:ptr flags:ulong
240 mq_open           - name:string oflag:flags.open mode:mode attr:mq_attr<
241 mq_unlink         - name:string
242 mq_timedsend      b mqdes:fd msg_ptr:buf<msg_len msg_len:size msg_prio:uint \
abs_timeout:timespec<
243 mq_timedreceive   b mqdes:fd msg_ptr:buf>ret^msg_len msg_len:size msg_prio:int_ptr>4 \
abs_timeout:timespec<
244 mq_notify         - mqdes:fd sevp:sigevent<
245 mq_getsetattr     - mqdes:fd newattr:mq_attr< oldattr:mq_attr>
246 kexec_load        - entry:ptr nr_segments:ulong segments:ptr<nr_segments^16*32 flags:ulong
# kernel/exit.c puts the six fields one by one, zeros when it found no child or failed
247 waitid            b idtype:enum.idtype id:pid infop:siginfo>*28 options:flags.wait \
rusage:rusage>
248 add_key           - type:string description:string payload:buf<plen plen:size keyring:int
249 request_key       b type:string description:string callout_info:string keyring:int
250 keyctl            b operation:enum.keyctl arg2:ulong arg3:ulong arg4:ulong arg5:ulong \
@keyctl.operation
251 ioprio_set        - which:int who:int ioprio:int
252 ioprio_get        - which:int who:int
253 inotify_init      -
254 inotify_add_watch - fd:fd path:path mask:flags.inotify
255 inotify_rm_watch  - fd:fd wd:int
256 migrate_pages     - pid:pid maxnode:ulong old_nodes:ptr<maxnode/64*8 new_nodes:ptr<maxnode/64*8
257 openat            b dirfd:dirfd path:path flags:flags.open mode:mode
258 mkdirat           - dirfd:dirfd path:path mode:mode
259 mknodat           - dirfd:dirfd path:path mode:mode dev:dev
260 fchownat          - dirfd:dirfd path:path owner:uid group:gid flags:flags.at
261 futimesat         - dirfd:dirfd path:path times:ptr<32
262 newfstatat        - dirfd:dirfd path:path statbuf:stat> flags:flags.at
263 unlinkat          - dirfd:dirfd path:path flags:flags.unlinkat
264 renameat          - olddirfd:dirfd oldpath:path newdirfd:dirfd newpath:path
265 linkat            - olddirfd:dirfd oldpath:path newdirfd:dirfd newpath:path flags:flags.at
266 symlinkat         - target:path newdirfd:dirfd linkpath:path
267 readlinkat        - dirfd:dirfd path:path buf:buf>ret^bufsiz bufsiz:int
268 fchmodat          - dirfd:dirfd path:path mode:mode
269 faccessat         - dirfd:dirfd path:path mode:flags.access
270 pselect6          b nfds:int readfds:fdset<nfds/64*8>nfds/64*8 \
writefds:fdset<nfds/64*8>nfds/64*8 exceptfds:fdset<nfds/64*8>nfds/64*8 timeout:timespec<>* \
sigmask:ptr =sigset_pack
271 ppoll             b fds:pollfd<nfds*8>!nfds*8 nfds:uint timeout:timespec<>* \
sigmask:sigset<sigsetsize sigsetsize:size
272 unshare           - flags:flags.clone
273 set_robust_list   - head:ptr len:size
274 get_robust_list   - pid:pid head_ptr:ptr>8 len_ptr:ptr>8
275 splice            b fd_in:fd off_in:off_ptr<8>8 fd_out:fd off_out:off_ptr<8>8 len:size \
flags:flags.splice
276 tee               b fd_in:fd fd_out:fd len:size flags:flags.splice
277 sync_file_range   - fd:fd offset:off nbytes:off flags:uint
# from or to the pipe, depending on which end fd is
278 vmsplice          b fd:fd iov:iovec<iov(nr_segs)>iov(nr_segs) nr_segs:ulong flags:flags.splice
279 move_pages        - pid:pid count:ulong pages:ptr<count*8 nodes:ints<count*4 \
status:ints>count*4 flags:int
280 utimensat         - dirfd:dirfd path:path times:ptr<32 flags:flags.at
281 epoll_pwait       b epfd:fd events:epoll_event>ret^maxevents*12 maxevents:int timeout:int \
sigmask:sigset<sigsetsize sigsetsize:size
282 signalfd          - fd:fd mask:sigset<sizemask sizemask:size
283 timerfd_create    - clockid:enum.clock flags:flags.timerfd
284 eventfd           - initval:uint
285 fallocate         - fd:fd mode:int offset:off len:off
286 timerfd_settime   - fd:fd flags:int new_value:itimerspec< old_value:itimerspec>
287 timerfd_gettime   - fd:fd curr_value:itimerspec>
288 accept4           b sockfd:fd addr:sockaddr>@addrlen addrlen:int_ptr<4>4 flags:flags.sock
289 signalfd4         - fd:fd mask:sigset<sizemask sizemask:size flags:flags.openfd
290 eventfd2          - initval:uint flags:flags.eventfd
291 epoll_create1     - flags:flags.openfd
292 dup3              - oldfd:fd newfd:fd flags:flags.openfd
293 pipe2             - pipefd:ints>8 flags:flags.openfd
294 inotify_init1     - flags:flags.openfd
295 preadv            b fd:fd iov:iovec>iov(iovcnt) iovcnt:ulong pos_l:ulong pos_h:ulong
296 pwritev           b fd:fd iov:iovec<iov(iovcnt) iovcnt:ulong pos_l:ulong pos_h:ulong
297 rt_tgsigqueueinfo - tgid:pid tid:pid sig:signal info:siginfo<48
298 perf_event_open   - attr:ptr pid:pid cpu:int group_fd:fd flags:ulong =perf_event_open
299 recvmmsg          b sockfd:fd msgvec:ptr vlen:uint flags:flags.msg timeout:timespec<>* \
=recvmmsg
300 fanotify_init     - flags:uint event_f_flags:flags.open
301 fanotify_mark     - fanotify_fd:fd flags:uint mask:ulong dirfd:dirfd path:path
302 prlimit64         M pid:pid resource:enum.rlimit new_limit:rlimit< old_limit:rlimit>
303 name_to_handle_at - dirfd:dirfd path:path handle:ptr mount_id:ptr flags:flags.at \
=name_to_handle_at
304 open_by_handle_at b mount_fd:dirfd handle:ptr flags:flags.open =open_by_handle_at
305 clock_adjtime     - clockid:enum.clock buf:timex<>*
306 syncfs            - fd:fd
307 sendmmsg          b sockfd:fd msgvec:ptr vlen:uint flags:flags.msg =sendmmsg
308 setns             - fd:fd nstype:flags.clone
309 getcpu            - cpu:int_ptr>4 node:int_ptr>4 tcache:ptr
310 process_vm_readv  - pid:pid local_iov:iovec>iov(liovcnt) liovcnt:ulong \
remote_iov:iovec<riovcnt^1024*16 riovcnt:ulong flags:ulong
311 process_vm_writev - pid:pid local_iov:iovec<iov(liovcnt) liovcnt:ulong \
remote_iov:iovec<riovcnt^1024*16 riovcnt:ulong flags:ulong
312 kcmp              - pid1:pid pid2:pid type:int idx1:ulong idx2:ulong
313 finit_module      - fd:fd param_values:string flags:int
314 sched_setattr     - pid:pid attr:ptr flags:uint =sched_setattr
315 sched_getattr     - pid:pid attr:ptr>size size:uint flags:uint
316 renameat2         - olddirfd:dirfd oldpath:path newdirfd:dirfd newpath:path flags:flags.rename
317 seccomp           - operation:enum.seccomp flags:uint args:ptr @seccomp.operation
318 getrandom         b buf:buf>ret^buflen buflen:size flags:flags.getrandom
319 memfd_create      - name:string flags:flags.memfd
320 kexec_file_load   - kernel_fd:fd initrd_fd:fd cmdline_len:ulong cmdline:buf<cmdline_len \
flags:ulong
321 bpf               ? cmd:enum.bpf attr:ptr<size>*size size:uint
322 execveat          T dirfd:dirfd path:path argv:argv envp:argv flags:flags.at =execveat
323 userfaultfd       - flags:flags.openfd
324 membarrier        - cmd:int flags:uint cpu_id:int
325 mlock2            - addr:ptr length:size flags:uint
326 copy_file_range   - fd_in:fd off_in:off_ptr<8>8 fd_out:fd off_out:off_ptr<8>8 len:size \
flags:uint
327 preadv2           b fd:fd iov:iovec>iov(iovcnt) iovcnt:ulong pos_l:ulong pos_h:ulong \
flags:flags.rwf
328 pwritev2          b fd:fd iov:iovec<iov(iovcnt) iovcnt:ulong pos_l:ulong pos_h:ulong \
flags:flags.rwf
329 pkey_mprotect     M addr:ptr length:size prot:flags.prot pkey:int
330 pkey_alloc        M flags:uint access_rights:uint
331 pkey_free         M pkey:int
332 statx             - dirfd:dirfd path:path flags:flags.at mask:uint statxbuf:statx>
333 io_pgetevents     b ctx_id:ulong min_nr:long nr:long events:ptr>ret^nr*32 timeout:timespec< \
usig:ptr =sigset_pack
# registers memory that the kernel writes at later returns to user mode
334 rseq              ? rseq:ptr<rseq_len rseq_len:uint flags:int sig:uint
335 uretprobe         R
336 uprobe            R
424 pidfd_send_signal - pidfd:fd sig:signal info:siginfo<48 flags:uint
425 io_uring_setup    - entries:uint params:ptr<120>120
# completions appear in rings that are shared with the kernel
426 io_uring_enter    b? fd:fd to_submit:uint min_complete:uint flags:uint argp:ptr<argsz argsz:size
427 io_uring_register ? fd:fd opcode:uint arg:ptr nr_args:uint
428 open_tree         - dirfd:dirfd path:path flags:uint
429 move_mount        - from_dirfd:dirfd from_path:path to_dirfd:dirfd to_path:path flags:uint
430 fsopen            - fsname:string flags:uint
431 fsconfig          - fd:fd cmd:enum.fsconfig key:string value:ptr aux:int @fsconfig.cmd
432 fsmount           - fd:fd flags:uint attr_flags:uint
433 fspick            - dirfd:dirfd path:path flags:uint
434 pidfd_open        - pid:pid flags:flags.openfd
435 clone3            T cl_args:ptr<size size:size =clone3
436 close_range       - first:uint last:uint flags:uint
437 openat2           b dirfd:dirfd path:path how:ptr<size size:size
438 pidfd_getfd       - pidfd:fd targetfd:fd flags:uint
439 faccessat2        - dirfd:dirfd path:path mode:flags.access flags:flags.at
440 process_madvise   - pidfd:fd vec:iovec<vlen^1024*16 vlen:size advice:enum.madvise flags:uint
441 epoll_pwait2      b epfd:fd events:epoll_event>ret^maxevents*12 maxevents:int \
timeout:timespec< sigmask:sigset<sigsetsize sigsetsize:size
442 mount_setattr     - dirfd:dirfd path:path flags:flags.at attr:ptr<size size:size
443 quotactl_fd       - fd:fd cmd:uint id:int addr:ptr @quotactl.cmd
444 landlock_create_ruleset - attr:ptr<size size:size flags:uint
445 landlock_add_rule - ruleset_fd:fd rule_type:enum.landlock rule_attr:ptr flags:uint \
@landlock.rule_type
446 landlock_restrict_self - ruleset_fd:fd flags:uint
447 memfd_secret      - flags:uint
448 process_mrelease  - pidfd:fd flags:uint
449 futex_waitv       b waiters:ptr<nr_futexes^128*24 nr_futexes:uint flags:uint timeout:timespec< \
clockid:enum.clock
450 set_mempolicy_home_node - start:ptr len:size home_node:ulong flags:ulong
451 cachestat         - fd:fd range:ptr<16 cstat:ptr>40 flags:uint
452 fchmodat2         - dirfd:dirfd path:path mode:mode flags:flags.at
453 map_shadow_stack  M addr:ptr size:size flags:uint
454 futex_wake        - uaddr:ptr mask:ulong nr:int flags:uint
455 futex_wait        b uaddr:ptr val:ulong mask:ulong flags:uint timeout:timespec< \
clockid:enum.clock
456 futex_requeue     - waiters:ptr<48 flags:uint nr_wake:int nr_requeue:int
457 statmount         - req:ptr buf:buf bufsize:size flags:uint =statmount
458 listmount         - req:ptr mnt_ids:ptr>ret^nr_mnt_ids*8 nr_mnt_ids:size \
flags:uint =mount_id_request
459 lsm_get_self_attr - attr:uint ctx:buf>@size size:int_ptr<4>*4 flags:uint =lsm_get_self_attr
460 lsm_set_self_attr - attr:uint ctx:buf<size size:uint flags:uint
461 lsm_list_modules  - ids:buf>@size size:int_ptr<4>*4 flags:uint
462 mseal             - addr:ptr length:size flags:ulong
463 setxattrat        - dirfd:dirfd path:path at_flags:flags.at name:string args:ptr<size \
size:size =setxattrat
464 getxattrat        - dirfd:dirfd path:path at_flags:flags.at name:string args:ptr<size \
size:size =getxattrat
465 listxattrat       - dirfd:dirfd path:path at_flags:flags.at list:buf>ret^size size:size
466 removexattrat     - dirfd:dirfd path:path at_flags:flags.at name:string
467 open_tree_attr    - dirfd:dirfd path:path flags:uint attr:ptr<size size:size
468 file_getattr      - dirfd:dirfd path:path attr:ptr>size size:size at_flags:flags.at
469 file_setattr      - dirfd:dirfd path:path attr:ptr<size size:size at_flags:flags.at
470 listns            - req:ptr ns_ids:ptr>ret^nr_ns_ids*8 nr_ns_ids:size \
flags:uint =mount_id_request
"""
