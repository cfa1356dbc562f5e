# SPDX-License-Identifier: GPL-2.0-or-later
"""Real programs that start other programs: all of the tree is recorded, and verifies."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pexpect
import pytest
from harness import (
    Recording,
    assert_faithful,
    assert_no_traceback,
    assert_one_line_error,
    built,
    command,
    descendants,
    record,
    run,
    sysrift,
    verify,
    wait_until,
)

Fixture = Callable[[str], Path]


def program(name: str) -> str:
    """The path of a program that `make test` installs; never a reason to skip."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    assert path, f"{name} is missing: run make test, which installs it"
    return path


def processes_of(trace: Path) -> list[dict[str, Any]]:
    """What `sysrift ps --json` says."""
    done = sysrift("ps", "--json", trace)
    assert done.returncode == 0, done
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def commands_of(trace: Path) -> list[str]:
    """The programs that the processes executed last, by their names."""
    return [Path(each["command"].split()[0]).name for each in processes_of(trace)]


def whole_tree(
    argv: Sequence[str | Path],
    *,
    at_least: int,
    status: int = 0,
    options: Sequence[str] = ("-q", "--checksum=200"),
    **more: Any,
) -> Recording:
    """Record, verify, and see that at least so many processes are in the trace, each to its end."""
    recording = record(argv, options=options, **more)
    assert_no_traceback(recording)
    assert recording.returncode == status, recording
    assert "not recorded" not in recording.stderr, recording
    found = processes_of(recording.trace)
    assert len(found) >= at_least, found
    assert all(each["end"] and each["end"]["how"] != "stopped" for each in found), found
    told = assert_faithful(recording.trace).stdout
    assert f"faithful: {len(found)} processes" in told or at_least == 1, told
    return recording


# -- building and versioning ----------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A C project of 20 files and a Makefile."""
    root = tmp_path / "project"
    root.mkdir()
    for number in range(19):
        text = f"int part{number}(int x) {{ return x + {number}; }}\n"
        (root / f"part{number}.c").write_text(text)
    calls = " + ".join(f"part{number}(0)" for number in range(19))
    declared = "".join(f"int part{number}(int);\n" for number in range(19))
    main = f'#include <stdio.h>\n{declared}int main(void) {{ printf("%d\\n", {calls}); }}\n'
    (root / "main.c").write_text(main)
    (root / "Makefile").write_text(
        "objects := $(patsubst %.c,%.o,$(wildcard *.c))\n"
        "total: $(objects)\n\t$(CC) -o $@ $^\n"
        "%.o: %.c\n\t$(CC) -O1 -c -o $@ $<\n"
    )
    return root


@pytest.mark.parametrize("jobs", [1, 2])
def test_make_builds_a_project(jobs: int, project: Path) -> None:
    # cc, its compiler proper and the assembler for each file; collect2 and ld for the program.
    recording = whole_tree(
        ["make", f"-j{jobs}", "CC=gcc"], at_least=1 + 20 * 3 + 3, cwd=project,
        options=["-q", "--checksum=2000"],
    )  # fmt: skip
    assert run([project / "total"]).stdout == f"{sum(range(19))}\n"
    names = commands_of(recording.trace)
    assert names.count("as") == 20 and names.count("ld") == 1, names


def test_compiler_driver_that_fails(tmp_path: Path) -> None:
    source = tmp_path / "wrong.c"
    source.write_text("int main(void) { return undeclared; }\n")
    recording = whole_tree(["gcc", "-c", "-o", tmp_path / "x.o", source], at_least=2, status=1)
    assert "undeclared" in recording.stderr


def test_git_init_add_commit(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    for number in range(5):
        (repository / f"file{number}").write_text(f"{number}\n" * 100)
    script = (
        "git init -q . && git add . && git -c user.name=A -c user.email=a@b commit -q -m one "
        "&& git log --oneline | cat && git status --short"
    )
    recording = whole_tree(["sh", "-c", script], at_least=6, cwd=repository)
    assert recording.stdout.endswith(" one\n"), recording
    assert run(["git", "-C", repository, "fsck", "--strict"]).returncode == 0


def test_configure_like_script(tmp_path: Path) -> None:
    script = tmp_path / "configure"
    script.write_text(
        "#!/bin/sh\n"
        "as_echo() { printf '%s\\n' \"$*\"; }\n"
        "host=`uname -s | tr 'A-Z' 'a-z'`\n"
        "for tool in sed grep awk expr; do\n"
        '  as_echo "checking for $tool... `command -v $tool >/dev/null && echo yes || echo no`"\n'
        "done\n"
        "cat >conftest.c <<EOF\n#include <stdlib.h>\nint main(void) { return 0; }\nEOF\n"
        "if gcc -o conftest conftest.c 2>conftest.err && ./conftest; then\n"
        '  as_echo "checking whether the compiler works... yes"\nfi\n'
        'sed -e "s/@host@/$host/" <config.in >config.out\n'
        "rm -f conftest*\n"
        "as_echo \"host $host, `expr 6 \\* 7` checks, `ls | wc -l | tr -d ' '` files\"\n"
    )
    script.chmod(0o755)
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "config.in").write_text("host=@host@\n")
    recording = whole_tree([script], at_least=20, cwd=tmp_path / "place")
    assert recording.stdout.endswith("host linux, 42 checks, 2 files\n"), recording
    assert recording.stdout.count("... yes") == 5
    assert (tmp_path / "place" / "config.out").read_text() == "host=linux\n"


# -- shells ---------------------------------------------------------------------------------------


def test_traps_and_subshells() -> None:
    script = """
        trap 'echo got usr1' USR1
        trap 'echo left $?' EXIT
        (trap 'echo inner left' EXIT; kill -USR1 $$; exit 3)
        echo sub $?
        value=$( (echo a; echo b) | { while read x; do echo "<$x>"; done; } | tr -d '\\n')
        echo $value
        (sleep 0.05; exit 4) & wait $!; echo background $?
        exit 5
    """
    recording = whole_tree(["sh", "-c", script], at_least=6, status=5)
    assert recording.stdout.splitlines() == [
        "inner left", "got usr1", "sub 3", "<a><b>", "background 4", "left 5",
    ]  # fmt: skip


def test_pipelines_of_bash() -> None:
    script = (
        "set -o pipefail; seq 1 1000 | sort -rn | head -2; echo ${PIPESTATUS[@]}; "
        "diff <(seq 3) <(seq 4); cat <<<word | tee >(cat >&2) | wc -c; "
        "coproc cat; echo there >&${COPROC[1]}; read back <&${COPROC[0]}; echo $back; "
        "kill $COPROC_PID; wait"
    )
    recording = whole_tree(["bash", "-c", script], at_least=12)
    lines = recording.stdout.splitlines()
    assert lines[:2] == ["1000", "999"] and "> 4" in lines and lines[-1] == "there", recording


def test_xargs_and_find_exec(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"n{number}").write_text(f"{number}\n")
    script = (
        "find . -name 'n*' -print0 | xargs -0 -n 3 -P 2 cat | sort -n | tr '\\n' ' '; "
        "find . -name 'n1*' -exec grep -l 1 {} \\; | wc -l; find . -name n5 -exec cat {} +"
    )
    recording = whole_tree(["sh", "-c", script], at_least=12, cwd=tmp_path)
    assert recording.stdout == "0 1 2 3 4 5 6 7 8 9 10 11 3\n5\n", recording


def test_tar_that_spawns_gzip(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("word\n" * 20000)
    archive = tmp_path / "archive.tar.gz"
    recording = whole_tree(["tar", "-czf", archive, "-C", tmp_path, "words"], at_least=2)
    assert "gzip" in commands_of(recording.trace)
    listed = whole_tree(["tar", "-tzf", archive], at_least=2)
    assert listed.stdout == "words\n"


def test_perl_system_and_backticks() -> None:
    script = (
        'my $x = `echo out; exit 3`; print $x, $? >> 8, "\\n"; system("exit 4;"); '
        'print $? >> 8, "\\n"; open(my $p, "-|", "seq", "2") or die; print while <$p>; '
        'defined(my $kid = fork) or die; if (!$kid) { print "kid\\n"; exit 6 } '
        'waitpid($kid, 0); print $? >> 8, "\\n";'
    )
    recording = whole_tree(["perl", "-e", "$|=1;" + script], at_least=5)
    assert recording.stdout.splitlines() == ["out", "3", "4", "1", "2", "kid", "6"], recording


@pytest.fixture
def shell() -> Iterator[Callable[[Path], pexpect.spawn]]:
    """A function that starts an interactive bash, recorded into a file, on a terminal."""
    opened: list[pexpect.spawn] = []

    def start(trace: Path) -> pexpect.spawn:
        words = ["-q", "--checksum=500", "-o", str(trace), "bash", "--norc", "--noprofile", "-i"]
        environment = {**os.environ, "PS1": "ready> ", "TERM": "dumb"}
        terminal = pexpect.spawn(
            command("sysrift-record"), words, env=environment, timeout=20, encoding="utf-8",
            echo=False,
        )  # fmt: skip
        opened.append(terminal)
        terminal.expect("ready> ")
        return terminal

    yield start
    for terminal in opened:
        terminal.close(force=True)


def test_job_control_of_an_interactive_shell(
    shell: Callable[[Path], pexpect.spawn], tmp_path: Path
) -> None:
    trace = tmp_path / "shell.srl"
    bash = shell(trace)
    for line, expected in (
        ("stty -echo; echo o${x}ne", "one"),
        ("seq 1 5 | sort -r | head -1", "5"),
        ("sleep 60 &", r"\[1\] \d+"),
        ("jobs", r"\[1\]\+? +Running +sleep 60"),
    ):
        bash.sendline(line)
        bash.expect(expected)
        bash.expect("ready> ")
    bash.sendline("fg")
    bash.expect("sleep 60")
    wait_until(lambda: _in_foreground(bash, "sleep"), what="sleep in the foreground")
    bash.send("\x1a")
    bash.expect(r"\[1\]\+ +Stopped")
    bash.expect("ready> ")
    bash.sendline("bg; jobs")
    bash.expect("Running +sleep 60")
    bash.expect("ready> ")
    bash.sendline("fg")
    bash.expect("sleep 60")
    wait_until(lambda: _in_foreground(bash, "sleep"), what="sleep in the foreground")
    bash.send("\x03")
    bash.expect("ready> ")
    bash.sendline("echo s$?")
    bash.expect("s130")
    bash.expect("ready> ")
    bash.sendline("cat")
    wait_until(lambda: _in_foreground(bash, "cat"), what="cat in the foreground")
    bash.sendline("through cat")
    bash.expect("through cat")
    bash.send("\x04")
    bash.expect("ready> ")
    bash.sendline("exit 7")
    bash.expect(pexpect.EOF)
    bash.wait()
    assert bash.exitstatus == 7
    assert {"bash", "seq", "sort", "head", "sleep", "cat"} <= set(commands_of(trace))
    assert_faithful(trace)


def _in_foreground(terminal: pexpect.spawn, name: str) -> bool:
    group = os.tcgetpgrp(terminal.child_fd)
    return any(p.pid == group and p.name == name for p in descendants(terminal.pid))


# -- programs that start others, and servers ------------------------------------------------------


def test_python_subprocess() -> None:
    script = """
import subprocess, sys
print(subprocess.run(["sort"], input="b\\na\\n", text=True, capture_output=True).stdout.split())
print(subprocess.run("exit 3", shell=True).returncode)
with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/",
                      start_new_session=True) as cat:
    cat.stdin.write(b"through"); cat.stdin.close(); print(cat.stdout.read())
try:
    subprocess.run(["/no/such"])
except FileNotFoundError as error:
    print(error.errno)
print(subprocess.run([sys.executable, "-S", "-c", "raise SystemExit(9)"]).returncode)
"""
    recording = whole_tree(
        [sys.executable, "-S", "-c", script], at_least=5, options=["-q", "--checksum=1000"]
    )
    assert recording.stdout.splitlines() == ["['a', 'b']", "3", "b'through'", "2", "9"]


PIPES = """
import multiprocessing as mp, os
mp.set_start_method("fork")
def work(end, number):
    end.send((number, os.getpid(), os.urandom(8))); end.close()
ends, workers = [], []
for number in range(4):
    mine, theirs = mp.Pipe()
    worker = mp.Process(target=work, args=(theirs, number)); worker.start()
    ends.append(mine); workers.append(worker)
for number, (end, worker) in enumerate(zip(ends, workers)):
    got = end.recv(); worker.join()
    assert got[0] == number and got[1] == worker.pid and worker.exitcode == 0
print("four workers")
"""


def test_python_multiprocessing_by_fork() -> None:
    recording = whole_tree(
        [sys.executable, "-S", "-c", PIPES], at_least=5, options=["-q", "--checksum=1000"]
    )
    assert recording.stdout == "four workers\n"


def test_python_pool_starts_threads_and_is_refused_clearly() -> None:
    script = (
        "import multiprocessing as mp\nmp.set_start_method('fork')\n"
        "with mp.Pool(2) as pool: print(pool.map(abs, [-1, 2]))\n"
    )
    recording = record([sys.executable, "-S", "-c", script], options=["-q"])
    assert recording.returncode == 0, recording
    assert recording.stdout == "[1, 2]\n"
    assert "starts a thread" in recording.stderr, recording
    # What the unrecorded parent writes to the pool's semaphores would not be known any more.
    assert "shares memory with process" in recording.stderr, recording
    assert_faithful(recording.trace)


def test_thread_of_a_child_ends_the_childs_recording_only(tmp_path: Path) -> None:
    script = """
import os, threading
child = os.fork()
if child == 0:
    thread = threading.Thread(target=print, args=("in a thread",)); thread.start(); thread.join()
    os._exit(5)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
os.system("exit 3")
print("after")
"""
    recording = record([sys.executable, "-S", "-u", "-c", script], options=["-q"])
    assert recording.returncode == 0, recording
    assert recording.stdout.splitlines() == ["in a thread", "after"]
    assert "recording stops" not in recording.stderr
    assert "not recorded any more" in recording.stderr and "thread" in recording.stderr
    found = processes_of(recording.trace)
    assert [each["end"]["how"] for each in found] == ["exited", "stopped", "exited"], found
    assert "sh" in commands_of(recording.trace)
    assert_faithful(recording.trace)


def test_database_killed_in_mid_transaction(tmp_path: Path) -> None:
    database = tmp_path / "data.db"
    statements = (
        "create table t(x); begin; insert into t values (1);\n.shell kill -9 $PPID\n"
        "insert into t values (2); commit;\n"
    )
    recording = record(["sqlite3", database], stdin=statements, options=["-q", "--checksum=50"])
    assert recording.returncode == 128 + signal.SIGKILL, recording
    first, *others = processes_of(recording.trace)
    assert first["end"]["how"] == "killed" and first["end"]["signal"] == signal.SIGKILL
    assert len(others) == 1
    assert_faithful(recording.trace)
    assert run(["sqlite3", database, "select count(*) from t"]).stdout == "0\n"


def test_ssh_keygen(tmp_path: Path) -> None:
    key = tmp_path / "key"
    whole_tree([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", key], at_least=1)
    assert "PRIVATE KEY" in key.read_text()


def test_vi_filters_text_through_a_program(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("c\nb\na\n")
    argv = [program("vi"), "-u", "NONE", "-es", "-c", "%!sort", "-c", "wq", text]
    whole_tree(argv, at_least=2, env={"TERM": "dumb"})
    assert text.read_text() == "a\nb\nc\n"


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def test_nginx_serves_200_requests(tmp_path: Path) -> None:
    port = _free_port()
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "page").write_text("a page\n" * 500)
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(
        f"pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{ }}\n"
        f"http {{ access_log {tmp_path}/access.log; sendfile off;\n"
        + "".join(
            f"{kind}_temp_path {tmp_path}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + f"server {{ listen 127.0.0.1:{port}; root {tmp_path}/www; }} }}\n"
    )
    trace = tmp_path / "nginx.srl"
    server = subprocess.Popen(
        [
            command("sysrift-record"), "-q", "--checksum=500", "-o", trace, program("nginx"),
            "-c", configuration, "-e", tmp_path / "error.log",
            "-g", "daemon off; master_process off;",
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_until(lambda: _accepts(port), what="nginx listens")
        urls = [f"http://127.0.0.1:{port}/page"] * 199 + [f"http://127.0.0.1:{port}/none"]
        done = run([program("curl"), "-s", "--noproxy", "*", "-w", "%{http_code}\n", *urls])
        assert done.stdout.count("a page") == 199 * 500 and done.stdout.count("200\n") == 199
        server.terminate()  # passed on: a quick shutdown
        assert server.wait(30) == 0, server.communicate()
    finally:
        if server.poll() is None:
            server.kill()
        server.communicate()
    assert_faithful(trace)
    served = sysrift("dump", "--name", "accept4", trace).stdout
    assert "accept4" in served


def _accepts(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


# -- options --------------------------------------------------------------------------------------


def test_follow_none_records_the_first_process_only() -> None:
    argv = ["sh", "-c", "/bin/true; (exit 3); echo $?; ls / | wc -l >/dev/null"]
    recording = record(argv, options=["-q", "-f", "none", "--checksum=20"])
    assert recording.returncode == 0 and recording.stdout == "3\n", recording
    assert "not recorded: only the first process is" in recording.stderr
    assert len(processes_of(recording.trace)) == 1
    assert_faithful(recording.trace)


def test_status_is_the_first_processs_whatever_the_others_end_with() -> None:
    script = "(exit 9); (kill -SEGV $(exec sh -c 'echo $PPID')); (sleep 0.2; exit 8) & exit 6"
    recording = whole_tree(["sh", "-c", script], at_least=4, status=6)
    ends = [each["end"] for each in processes_of(recording.trace)]
    assert ends[0]["status"] == 6
    assert {end["status"] for end in ends if end["how"] == "exited"} >= {6, 8, 9}


DAEMON = "(trap '' TERM; while :; do sleep 0.1; done) >/dev/null 2>&1 & echo $!; exit 4"


def test_no_wait_lets_the_others_go_on() -> None:
    recording = record(["sh", "-c", DAEMON], options=["-q", "--no-wait"], timeout=20)
    daemon = int(recording.stdout)
    try:
        assert recording.returncode == 4, recording
        status = Path(f"/proc/{daemon}/status").read_text()
        assert "TracerPid:\t0" in status, status
        assert re.search(r"State:\t[SR]", status), status
        found = processes_of(recording.trace)
        assert found[0]["end"]["how"] == "exited"
        assert found[1]["end"]["how"] == "stopped"
        assert_faithful(recording.trace)
    finally:
        os.kill(daemon, signal.SIGKILL)


def test_hint_and_interrupt_when_only_a_daemon_goes_on(tmp_path: Path) -> None:
    trace = tmp_path / "daemon.srl"
    terminal = pexpect.spawn(
        command("sysrift-record"), ["-q", "-o", str(trace), "setsid", "-w", "sh", "-c", DAEMON],
        timeout=20, encoding="utf-8",
    )  # fmt: skip
    daemon = 0
    try:
        terminal.expect(r"(\d+)\r\n")
        daemon = int(terminal.match[1])
        terminal.expect("the program has ended, .* go on and are recorded: Ctrl-C ends")
        terminal.sendintr()
        terminal.expect(pexpect.EOF)
        terminal.wait()
        assert terminal.exitstatus == 4
        assert "TracerPid:\t0" in Path(f"/proc/{daemon}/status").read_text()
    finally:
        terminal.close(force=True)
        if daemon:
            os.kill(daemon, signal.SIGKILL)
    assert_faithful(trace)


# -- looking at a tree ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tree(built_fixtures: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace of a shell, two cats, a true, and a forked child that crashes."""
    target: Path = tmp_path_factory.mktemp("tree") / "tree.srl"
    crashing = built("programs/processes/child_segfault")
    script = f"cat </dev/null; cat </dev/null; true | /bin/true; {crashing}; exit 5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LC_ALL", "C.UTF-8")
        done = record(["sh", "-c", script], trace=target, options=["-q", "--checksum=20"])
    assert done.returncode == 5, done
    return target


def test_ps_lists_the_tree(tree: Path) -> None:
    done = sysrift("ps", tree, env={"COLUMNS": "120"})
    assert done.returncode == 0, done
    lines = done.stdout.splitlines()
    assert re.search(r"^ *\d+ +started +\d+ +exited with status 5 +sh -c", lines[1]) or any(
        re.search(r"started .*exited with status 5.* sh -c", line) for line in lines
    ), done
    assert sum("+exec" in line and " cat" in line for line in lines) == 2, done
    assert any("killed by SIGSEGV" in line and "(" in line for line in lines), done


def test_ps_as_json(tree: Path) -> None:
    found = processes_of(tree)
    by_pid = {each["pid"]: each for each in found}
    assert len(by_pid) == len(found)
    first = found[0]
    assert first["parent"] is None and first["parent_event"] is None
    for each in found[1:]:
        parent = by_pid[each["parent"]]
        assert each["first_event"] == each["parent_event"] > 0
        assert each["time_us"] >= parent["time_us"]
        assert each["events"] > 0
    crashed = [each for each in found if each["end"]["how"] == "killed"]
    assert [each["end"]["signal"] for each in crashed] == [signal.SIGSEGV]


def test_process_by_pid_and_by_name(tree: Path) -> None:
    found = processes_of(tree)
    true = next(each for each in found if each["command"].split()[0] == "/bin/true")
    for which in (str(true["pid"]), "true"):
        done = sysrift("dump", "--process", which, tree)
        assert done.returncode == 0, done
        assert "exit_group(0" in done.stdout
    checked = sysrift("verify", "--process", "true", tree)
    assert checked.returncode == 0, checked
    assert "processes" not in checked.stdout


def test_process_whose_name_is_ambiguous_or_unknown(tree: Path) -> None:
    pids = [str(e["pid"]) for e in processes_of(tree) if e["command"].split()[0] == "cat"]
    ambiguous = sysrift("dump", "--process", "cat", tree)
    assert ambiguous.returncode == 2, ambiguous
    assert_one_line_error(ambiguous, "2 processes", *pids)
    for which in ("no-such-program", "99999999"):
        unknown = sysrift("verify", "--process", which, tree)
        assert unknown.returncode == 2, unknown
        assert_one_line_error(unknown, which, "sysrift ps")
    assert_one_line_error(sysrift("dump", "--process", "-1", tree), "process")


def test_verify_of_one_child_leaves_the_others_out(tree: Path) -> None:
    for each in processes_of(tree):
        done = sysrift("verify", "--process", str(each["pid"]), tree)
        assert done.returncode == 0, done
    assert verify(tree).returncode == 0


def test_replay_begins_with_the_process_that_crashed(tree: Path) -> None:
    crashed = next(each for each in processes_of(tree) if each["end"]["how"] == "killed")
    done = run(
        [command("sysrift-replay"), tree, "--", "-nx", "-batch", "-ex", "continue", "-ex", "bt"]
    )
    said = done.stdout + done.stderr
    assert str(crashed["pid"]) in said, done
    assert "Program received signal SIGSEGV" in said, done
    assert "in deep (depth=0)" in said and "main (" in said, done
    other = run([command("sysrift-replay"), "--process", "true", tree, "--", "-nx", "-batch"])
    assert "SIGSEGV" not in other.stdout + other.stderr


def test_child_that_nobody_may_trace_is_recorded_all_the_same(built_fixtures: None) -> None:
    whole_tree([built("programs/processes/clone_untraced")], at_least=2)
