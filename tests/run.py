"""`./k2 test`: every check of the project, in the order in which a failure is cheapest to learn of.

Each step is a command of its own and all of them run, so that one look shows everything that is
wrong. Arguments are handed to pytest: ``./k2 test tests/unit -k stamp``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
WORKERS_MAX = 4

WIRE_LINT = "wire lint (buf)"
CONTRACTS = "import contracts (import-linter)"

CHECKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("generated code and pages are fresh", (sys.executable, "tests/generate.py", "all", "--check")),
    (WIRE_LINT, (str(BIN / "buf"), "lint")),
    ("lint (ruff)", (str(BIN / "ruff"), "check", "--quiet", "--output-format", "concise", ".")),
    (
        "format (ruff)",
        (str(BIN / "ruff"), "format", "--check", "--quiet", "--output-format", "concise", "."),
    ),
    (CONTRACTS, (str(BIN / "lint-imports"), "--no-logo")),
    ("spelling (codespell)", (str(BIN / "codespell"),)),
    ("types (mypy --strict)", (str(BIN / "mypy"), "--no-error-summary")),
)


def say(text: str) -> None:
    """One line of progress, in order with what the steps themselves print."""
    print(text, flush=True)  # noqa: T201 - this is a command


def pytest_command(arguments: list[str]) -> list[str]:
    """pytest over all cores, unless the caller wants a debugger or chose the workers."""
    command = [sys.executable, "-m", "pytest", *arguments]
    alone = {"-n", "--pdb", "--trace", "-s", "--update", "--collect-only"}
    workers = min(os.cpu_count() or 1, WORKERS_MAX)
    if workers > 1 and not alone.intersection(argument.split("=")[0] for argument in arguments):
        command += ["-n", str(workers), "--dist", "worksteal"]
    return command


def run_step(title: str, command: tuple[str, ...] | list[str]) -> bool:
    """Run one step under its title; what it prints follows. Returns whether it passed."""
    say(f"── {title}")
    began = time.monotonic()
    passed = subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    say(f"   {'ok' if passed else 'FAILED'} ({time.monotonic() - began:.1f} s)")
    return passed


def main(arguments: list[str]) -> int:
    """All checks, then all tests; 5 where anything failed, as `k2` answers a failed check."""
    # A shell lets what it starts with `&` ignore Ctrl-C, and every child would inherit that; many
    # tests end a verb as its user does.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    failed = [title for title, command in CHECKS if not run_step(title, command)]
    if not run_step("tests (pytest)", pytest_command(arguments)):
        failed.append("tests (pytest)")
    seconds = time.monotonic() - began
    if failed:
        say(f"FAILED after {seconds:.0f} s: " + "; ".join(failed))
        return 5
    say(f"everything passed in {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
