# SPDX-License-Identifier: GPL-2.0-or-later
"""A user at GDB's prompt: questions, Ctrl-C, and leaving in the middle of a replay."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pexpect
import pytest
from gdb_prompt import PROMPT

Replay = Callable[..., Any]


def test_ctrl_c_while_running_ahead(
    recorded: Replay, at_the_prompt: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYSRIFT_PLAYER", "never")  # or it would be at the end at once
    prompt = at_the_prompt(recorded("many_calls", "40000"))
    prompt.do("tbreak main")  # a busy machine takes its time for the libraries' symbols
    assert "main (argc=2, " in prompt.do("continue")
    prompt.gdb.sendline("continue")
    prompt.gdb.expect_exact("Continuing.")
    with pytest.raises(pexpect.TIMEOUT):
        prompt.gdb.expect_exact(PROMPT, timeout=0.7)
    prompt.gdb.sendintr()
    assert "SIGINT" in prompt.wait()
    at = re.search(r"before event (\d+) of (\d+)", prompt.do("sysrift-when"))
    assert at is not None and 1 < int(at[1]) < int(at[2])
    assert "main (argc=2, " in prompt.do("backtrace")
    assert "end of the recording: exited with status 0" in prompt.do("continue")


def test_ctrl_c_while_going_somewhere(
    recorded: Replay, at_the_prompt: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYSRIFT_PLAYER", "never")  # or it would be there at once
    prompt = at_the_prompt(recorded("many_calls", "40000"))
    prompt.gdb.sendline("sysrift-goto end")
    with pytest.raises(pexpect.TIMEOUT):
        prompt.gdb.expect_exact(PROMPT, timeout=0.7)
    prompt.gdb.sendintr()
    assert "interrupted at event" in prompt.wait()
    assert "main (argc=2, " in prompt.do("backtrace")
    assert "before event 100 of" in prompt.do("sysrift-goto 100") + prompt.do("sysrift-when")


def test_ctrl_c_while_events_are_played(recorded: Replay, at_the_prompt: Replay) -> None:
    # A million events or two take their time without a stop, too.
    recording = recorded("hot_calls", "800000", options=["-q", "--agent"], timeout=200)
    prompt = at_the_prompt(recording)
    prompt.gdb.sendline("sysrift-goto end")
    with pytest.raises(pexpect.TIMEOUT):
        prompt.gdb.expect_exact(PROMPT, timeout=0.4)
    prompt.gdb.sendintr()
    assert "interrupted at event" in prompt.wait()
    assert "main (argc=2, " in prompt.do("backtrace")
    prompt.gdb.sendline("continue")
    with pytest.raises(pexpect.TIMEOUT):
        prompt.gdb.expect_exact(PROMPT, timeout=0.4)
    prompt.gdb.sendintr()
    prompt.wait()
    assert "main (argc=2, " in prompt.do("backtrace")
    assert "before event 100 of" in prompt.do("sysrift-goto 100") + prompt.do("sysrift-when")


def test_ctrl_c_in_a_computation(recorded: Replay, at_the_prompt: Replay) -> None:
    # The recorded alarm is far away while the loop is single-stepped by a software watchpoint.
    prompt = at_the_prompt(recorded("watch_me"))
    prompt.do("break in_computation")
    prompt.do("continue")
    prompt.do("set can-use-hw-watchpoints 0")
    prompt.do("watch watched if watched == 12345")
    prompt.gdb.sendline("continue")
    prompt.gdb.expect_exact("Continuing.")
    with pytest.raises(pexpect.TIMEOUT):
        prompt.gdb.expect_exact(PROMPT, timeout=0.3)
    prompt.gdb.sendintr()
    prompt.wait()
    prompt.ask("delete")
    assert "end of the recording: exited with status 0" in prompt.do("continue")


@pytest.mark.both_gdbs
def test_kill_and_again(recorded: Replay, at_the_prompt: Replay) -> None:
    recording = recorded("watch_me")
    prompt = at_the_prompt(recording)
    prompt.do("break by_the_kernel")
    prompt.do("continue")
    assert "killed" in prompt.ask("kill")
    assert "no replay is going on" in prompt.do("sysrift-when")
    table = prompt.do("info breakpoints")
    assert "by_the_kernel" in table and "_sysrift" not in table, table
    assert "to start subprocesses is on" in prompt.do("show startup-with-shell")
    prompt.do(f"sysrift-replay {recording.trace}")
    assert re.search(r"Breakpoint \d+, by_the_kernel ", prompt.do("continue"))


def test_delete_everything(recorded: Replay, at_the_prompt: Replay) -> None:
    prompt = at_the_prompt(recorded("watch_me"))
    prompt.do("break main")
    prompt.ask("delete")
    assert "end of the recording: exited with status 0" in prompt.do("continue")


def test_quit_in_the_middle(recorded: Replay, at_the_prompt: Replay) -> None:
    prompt = at_the_prompt(recorded("watch_me"))
    prompt.do("break main")
    prompt.do("continue")
    prompt.gdb.sendline("quit")
    prompt.gdb.expect_exact("(y or n) ")
    prompt.gdb.sendline("y")
    prompt.gdb.expect(pexpect.EOF)  # that nothing is left is looked at after every test


def test_repeating_with_enter(recorded: Replay, at_the_prompt: Replay) -> None:
    prompt = at_the_prompt(recorded("deep"))
    prompt.do("break main")
    prompt.do("continue")
    first, second = prompt.do("next"), prompt.do("")
    assert first and second and first != second


@pytest.mark.both_gdbs
def test_the_prompt_shows_the_event(recorded: Replay, at_the_prompt: Replay) -> None:
    prompt = at_the_prompt(recorded("watch_me"))
    assert "in the prompt is off" in prompt.do("show sysrift prompt")
    assert prompt.do("set sysrift prompt on").endswith("[1] ")
    assert prompt.do("sysrift-goto 12").endswith("\n[12] ")
    assert prompt.do("sysrift-goto 20").endswith("\n[20] ")
    assert prompt.do("print $_event").endswith("= 20\n[20] ")
    assert prompt.do("set sysrift prompt off").strip() == "set sysrift prompt off"
    prompt.do("set sysrift prompt on")
    assert not prompt.ask("kill").endswith("] ")
    assert "is void" in prompt.do("print $_event") or "void" in prompt.do("print $_event")


def test_ctrl_c_while_going_back(recorded: Replay, at_the_prompt: Replay) -> None:
    # Every pass of a hot line is a halt, and none fulfills the condition.
    prompt = at_the_prompt(recorded("going_back"))
    prompt.do("break with_local if n == 1")
    assert "with_local (n=1)" in prompt.do("continue")
    prompt.do('break hot if $_streq("a", "b")')  # nothing that could be compiled
    prompt.gdb.sendline("reverse-continue")
    with pytest.raises(pexpect.TIMEOUT):
        prompt.gdb.expect_exact(PROMPT, timeout=0.5)
    prompt.gdb.sendintr()
    assert "interrupted at event" in prompt.wait()
    # Where the search began, and everything still works from there.
    assert "with_local (n=1)" in prompt.do("backtrace")
    prompt.do("delete 5")
    prompt.ask("delete")
    prompt.do("watch counter")
    assert "Old value = 40" in prompt.do("reverse-continue")
    assert "New value = 40" in prompt.do("continue")
    assert "end of the recording: exited with status 0" in prompt.do("continue")
