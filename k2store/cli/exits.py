"""What an exit code of `k2` means, and how a failure is told.

====  ==========================================================================================
code  meaning
====  ==========================================================================================
0     done
1     failed for a reason that no other code names (history no longer kept; a fault of ours)
2     wrong usage: an option, an argument, a setting, a limit
3     unavailable: nobody answers, overloaded, clock too uncertain, deadline passed
4     conflict: lost to another transaction, a condition does not hold, expired
5     a check failed, or stored data is damaged
6     outcome unknown: the commit may or may not have taken
130   interrupted
====  ==========================================================================================

The codes of failures stand on the error classes themselves (``K2Error.exit_code``).
"""

from __future__ import annotations

import enum
import json
import sys

from k2store.cli.notation import show
from k2store.errors import K2Error


class Exit(enum.IntEnum):
    """The exit codes by name."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNAVAILABLE = 3
    CONFLICT = 4
    INVALID = 5
    UNKNOWN = 6
    INTERRUPTED = 130


def describe(error: K2Error) -> dict[str, object]:
    """A failure as the document that ``--json`` prints on the error stream."""
    fields = {name: _plain(value) for name, value in error.details().items()}
    return {
        "error": type(error).__name__,
        "message": error.message,
        "retry": error.retry.value,
        "exit_code": error.exit_code,
    } | fields


def _plain(value: object) -> object:
    """A field as JSON has it: keys as they are shown, reasons of an enumeration by their value."""
    if isinstance(value, bytes):
        return show(value)
    return value.value if isinstance(value, enum.Enum) else value


def tell(error: K2Error, *, as_json: bool) -> None:
    """Write a failure to the error stream."""
    if as_json:
        sys.stderr.write(json.dumps(describe(error)) + "\n")
    else:
        sys.stderr.write(f"k2: {type(error).__name__}: {error.message}\n")
