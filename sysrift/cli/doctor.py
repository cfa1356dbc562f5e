# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift doctor`: what this machine can and cannot do."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sysrift.cli.doctor_findings import Check, Finding


class DoctorCommand:
    """Say what this machine can and cannot do, and what to do about it.

    Everything is really tried, in child processes: ptrace, seccomp, the replay stub, GDB and its
    Python. Exits with 0, or with 1 when something is missing without which there is no recording
    or replaying.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("--json", action="store_true", help="print a JSON array of findings")
        parser.add_argument(
            "--gdb",
            default=os.environ.get("SYSRIFT_GDB", "gdb"),
            metavar="PATH",
            help="the GDB to look at (default: $SYSRIFT_GDB, else gdb)",
        )

    def run(self, args: argparse.Namespace) -> int:
        """Try everything and print what was found."""
        from sysrift.cli.doctor_findings import Level

        findings = examine(args.gdb)
        if args.json:
            print(json.dumps([_object(finding) for finding in findings], indent=2))
        else:
            _show(findings)
        return 1 if any(finding.level is Level.PROBLEM for finding in findings) else 0


def examine(gdb: str = "gdb") -> list[Finding]:
    """Every finding about this machine, and about the GDB of that name or path."""
    from sysrift.cli import doctor_kernel, doctor_machine
    from sysrift.cli.doctor_gdb import check_gdb

    checks = (*doctor_machine.CHECKS, *doctor_kernel.CHECKS)
    return [*(_checked(name, check) for name, check in checks), *check_gdb(gdb)]


def _checked(name: str, check: Check) -> Finding:
    """What a check finds; that it could not be made is a finding too."""
    from sysrift.cli.doctor_children import ProbeFailed
    from sysrift.cli.doctor_findings import problem

    try:
        return check()
    except (OSError, ProbeFailed) as error:
        remedy = "run it again; if it stays so, a sandbox is in the way: try outside of it"
        return problem(name, f"cannot be tried: {error}", remedy)


def _show(findings: list[Finding]) -> None:
    from rich.text import Text

    from sysrift.cli.doctor_findings import Level
    from sysrift.cli.tables import show, table

    styles = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}
    listing = table("", "", "")
    for finding in findings:
        text = Text(finding.text)
        if finding.remedy:
            text.append(f"\n-> {finding.remedy}", style="italic")
        label = Text(finding.level.value, style=styles[finding.level])
        listing.add_row(label, Text(finding.name), text)
    problems = sum(finding.level is Level.PROBLEM for finding in findings)
    warnings = sum(finding.level is Level.WARNING for finding in findings)
    if problems:
        verdict = f"{problems} of these must be solved before SysRift can work here."
    else:
        rest = f", {warnings} warnings" if warnings else ""
        verdict = f"SysRift works here{rest}."
    show(listing, Text(f"\n{verdict}", style="bold"))


def _object(finding: Finding) -> dict[str, str]:
    return {
        "name": finding.name,
        "level": finding.level.value,
        "text": finding.text,
        "remedy": finding.remedy,
    }
