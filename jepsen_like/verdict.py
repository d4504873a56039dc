"""The answer of every checker: valid, invalid or unknown, and why."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Validity: TypeAlias = bool | Literal["unknown"]


class Step(msgspec.Struct, frozen=True):
    """One edge of an explanation: operation `source` must stand before `target` because of `kind`.

    `source` and `target` are numbers of operations in the history. `kind` is `ww`, `wr`, `rw`, `process` or
    `realtime`; `key`, `value` and `next_value` are the versions a data edge speaks of,
    `witness` an operation that read both.
    """

    source: int
    target: int
    kind: str
    why: str
    key: object = None
    value: object = None
    next_value: object = None
    witness: int | None = None


class Finding(msgspec.Struct, frozen=True):
    """One anomaly: its name, the operations in it, a sentence, and the edges if it is a cycle."""

    name: str
    why: str
    operations: tuple[int, ...] = ()
    steps: tuple[Step, ...] = ()
    key: object = None


class Verdict(msgspec.Struct, frozen=True):
    """What a checker says of one history.

    `valid` is True, False or "unknown". `anomalies` are names as Elle spells them; `violated` holds the weakest
    consistency models that the anomalies rule out and `also_violated` all stronger ones. `reason` says why a
    verdict is unknown, or sums up an invalid one. `seconds` counts checking without reading the file.
    """

    valid: Validity
    anomalies: tuple[str, ...] = ()
    violated: tuple[str, ...] = ()
    also_violated: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    reason: str = ""
    operations: int = 0
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 valid, 5 invalid, 6 unknown."""
        if self.valid == "unknown":
            return 6
        return 0 if self.valid else 5
