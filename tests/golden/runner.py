"""Runs a script of commands and writes down what came of each: the transcript is the expectation.

A script is a text file. Lines that begin with ``>`` are commands, indented lines below a command
are what it brought about, and the rest is prose. Running a script gives the whole text anew;
a test passes when nothing has changed, and ``pytest --update`` accepts what has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

PROMPT = "> "
INDENT = "  "

World = TypeVar("World")
Run = Callable[[World, list[str]], list[str]]


def transcript(text: str, world: World, run: Run[World]) -> str:
    """The script again, with what its commands bring about now.

    ``run`` takes the world and the words of one command and returns the lines to write below it.
    """
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(PROMPT):
            lines.append(line)
            try:
                came_of_it = run(world, line.removeprefix(PROMPT).split())
            except Exception as error:
                raise AssertionError(f"line {number}: {line}") from error
            lines += [INDENT + each for each in came_of_it]
        elif not line.startswith(INDENT):
            lines.append(line.rstrip())
    return "\n".join(lines) + "\n"
