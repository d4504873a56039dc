"""The tutorial, run from top to bottom against a node: every command, every output."""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from k2store.cli.group import k2
from k2store.testing import LocalNode

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
FENCE = re.compile(r"^```(\w+)(?: (\w+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)
ASSIGNMENT = re.compile(r"(\w+)=\$\((.*)\)")


class Step(NamedTuple):
    """A command line, and what it is to print."""

    command: str
    expected: str


def steps(block: str) -> list[Step]:
    """The commands of a console block."""
    found = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        found.append(Step(command, expected))
    return found


def prints(command: str) -> str:
    """What a `k2` command line prints, and its exit code unless that is 0."""
    words = shlex.split(command)
    assert words[0] == "k2", command
    result = CliRunner().invoke(k2, words[1:])
    code = f"(exit code {result.exit_code})\n" if result.exit_code else ""
    # Progress, which is not part of the page, goes to the error stream, and so do failures.
    return result.stdout + (result.stderr + code if code else "")


def assert_alike(expected: str, found: str, command: str) -> None:
    """The output is the page's, where `...` stands for anything."""
    alike = doctest.OutputChecker().check_output(
        expected, found, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    assert alike, f"$ {command}\nprints\n{found}instead of\n{expected}"


def test_the_tutorial_is_true(
    k2_node: LocalNode,
    k2_blocking_db: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each command of the page prints what the page says, on a store that begins empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("K2_CLIENT__ENDPOINT", k2_node.address)
    variables: dict[str, str] = {}
    ran, printed = 0, ""
    for language, name, block in FENCE.findall(PAGE.read_text(encoding="utf-8")):
        if language == "console":
            for step in steps(block):
                command = re.sub(r"\$(\w+)", lambda match: variables[match[1]], step.command)
                assignment = ASSIGNMENT.fullmatch(step.command)
                if assignment:
                    variables[assignment[1]] = prints(assignment[2]).strip()
                else:
                    assert_alike(step.expected, prints(command), command)
                ran += 1
        elif language == "python":
            printed = subprocess.run(
                [sys.executable, "-c", block], capture_output=True, text=True, check=True
            ).stdout
        elif name == "output":
            assert printed == block
            ran += 1
        elif language == "text":
            (tmp_path / name).write_text(block, encoding="utf-8")
    assert ran > 15
