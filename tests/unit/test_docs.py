# SPDX-License-Identifier: GPL-2.0-or-later
"""The documentation says what is: options and commands exist, links lead somewhere, and the
transcripts still come out as they are written."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path
from types import ModuleType

import harness
import pytest

ROOT = harness.ROOT
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
SHELL_PAGES = sorted(path for path in (DOCS / "commands").glob("*.md") if path.stem != "gdb")

_OPTION = re.compile(r"(?<![\w-])(--[a-z][\w-]*)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_NOT_OURS = {"--parallel", "--cap-add", "--security-opt"}
_SHELL_COMMANDS = {"sysrift-record", "sysrift-replay"}


def _transcripts() -> ModuleType:
    spec = importlib.util.spec_from_file_location("transcripts", ROOT / "tools" / "transcripts.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["transcripts"] = module
    spec.loader.exec_module(module)
    return module


transcripts = _transcripts()


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _help(command: str) -> str:
    done = harness.sysrift(command, "--help", env={"COLUMNS": "200"})
    assert done.returncode == 0, done
    return done.stdout


def _help_of_the_benchmark() -> str:
    words = [sys.executable, "-m", "tools.benchmark", "--help"]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def _declared(command: str) -> set[str]:
    """The long options that a command has, by its help."""
    listed = re.findall(r"^  (-.*)$", _help(command), re.M)
    return _options("\n".join(re.split(r"  +", line)[0] for line in listed))


def _options(text: str) -> set[str]:
    return set(_OPTION.findall(text))


def _text_without_transcripts(page: Path) -> str:
    return transcripts.BLOCK.sub("", page.read_text())


@pytest.mark.parametrize("page", SHELL_PAGES, ids=lambda page: page.stem)
def test_a_commands_page_lists_its_options_and_no_others(page: Path) -> None:
    documented = set()
    for line in page.read_text().splitlines():
        if line.startswith("| `-"):
            documented |= _options(line.split("|")[1])
    assert documented == _declared(page.stem) - {"--help", "--version"}


def test_every_command_has_a_page() -> None:
    listed = harness.sysrift("--help").stdout
    commands = set(re.findall(r"^    ([a-z][a-z-]*)", listed, re.M))
    assert commands
    assert commands == {page.stem for page in SHELL_PAGES}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_options_named_anywhere_exist(page: Path) -> None:
    known = _NOT_OURS | {"--failed", "--name", "--delete"}  # those of commands in GDB
    mentioned = _options(page.read_text())
    if page.stem == "performance":
        known |= _options(_help_of_the_benchmark())
    if mentioned - known:
        for command in SHELL_PAGES:
            known |= _declared(command.stem)
    assert mentioned <= known


def _registered() -> set[str]:
    sources = (ROOT / "gdb" / "sysrift_gdb" / "commands").glob("*.py")
    text = "".join(source.read_text() for source in sources)
    return set(re.findall(r'^    name = "(sysrift-[\w-]+)"', text, re.M))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_gdb_commands_named_are_registered(page: Path) -> None:
    mentioned = set(re.findall(r"(?<![\w/$.-])sysrift-[a-z]+(?:-[a-z]+)*\b", page.read_text()))
    assert mentioned - _SHELL_COMMANDS <= _registered()


def test_the_gdb_page_names_every_command_and_setting() -> None:
    text = (DOCS / "commands" / "gdb.md").read_text()
    assert {name for name in _registered() if f"`{name}" not in text} == set()
    parameters = (ROOT / "gdb" / "sysrift_gdb" / "parameters.py").read_text()
    for name in re.findall(r'__init__\("(sysrift \w+)"', parameters):
        assert f"`set {name} " in text


def _anchors(page: Path) -> set[str]:
    found = set()
    for heading in re.findall(r"^#+ (.*)$", page.read_text(), re.M):
        words = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(words.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(_text_without_transcripts(page)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{_name(page)} links to {link}"
        assert not anchor or anchor in _anchors(target), f"{_name(page)} links to {link}"


def test_every_transcript_is_shown_once_and_known() -> None:
    shown = [
        match["name"] for page in PAGES for match in transcripts.BLOCK.finditer(page.read_text())
    ]
    assert sorted(shown) == sorted(transcripts.TRANSCRIPTS)


@pytest.mark.parametrize("name", sorted(transcripts.TRANSCRIPTS))
def test_a_transcript_still_comes_out_as_it_is_written(name: str, built_fixtures: None) -> None:
    _, text = transcripts.written()[name]
    again = transcripts.made(name)
    assert "Traceback" not in again and "internal error" not in again, again
    assert again.splitlines()[0] == text.splitlines()[0]
    if transcripts.TRANSCRIPTS[name].compared:
        assert transcripts.masked(again) == transcripts.masked(text)


def test_masking_keeps_what_matters() -> None:
    line = '#0  0x0000555555555203 in load_config (path=0x55555555602d "flaky.conf") at flaky.c:50'
    masked = '#N HEX in load_config (path=HEX "flaky.conf") at flaky.c:N'
    assert transcripts.masked(line) == [masked]
    assert transcripts.masked(line.replace("load", "save")) != [masked]


def test_the_picture_shows_the_crash_and_needs_no_network() -> None:
    text = (DOCS / "crash.svg").read_text()
    xml.etree.ElementTree.fromstring(text)
    for word in ("discount_for", "load_config", "SIGSEGV", "flaky.conf"):
        assert word in text
    assert "@font-face" not in text and "url(https" not in text


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_pages_name_no_machine_of_ours(page: Path) -> None:
    text = page.read_text()
    assert str(ROOT) not in text and "/tmp/" not in text
