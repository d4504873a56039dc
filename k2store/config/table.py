"""The settings as rows: what the loader checks against and the documentation is made from."""

from __future__ import annotations

from functools import cache
from typing import Literal, NamedTuple, get_args, get_origin, get_type_hints

from k2store.config.quantity import Quantity
from k2store.config.settings import About, Section, Settings

Value = str | int | bool


class Row(NamedTuple):
    """One setting. ``kind`` is the Python type; for a choice it is ``str`` with ``choices``."""

    section: str
    name: str
    kind: type[str] | type[int] | type[bool]
    choices: tuple[str, ...]
    default: Value
    about: About

    @property
    def path(self) -> str:
        """The name as flags and messages have it: ``clock.bound``."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable that sets it: ``K2_CLOCK__BOUND``."""
        return f"K2_{self.section}__{self.name}".upper()

    @property
    def least(self) -> int | None:
        """Smallest value, in the unit of the integer; None where any is allowed."""
        return self._bound(self.about.least)

    @property
    def most(self) -> int | None:
        """Largest value, in the unit of the integer; None where any is allowed."""
        return self._bound(self.about.most)

    def _bound(self, text: str | None) -> int | None:
        if text is None:
            return None
        return self.kind.parse(text) if issubclass(self.kind, Quantity) else int(text)


@cache
def sections() -> dict[str, type[Section]]:
    """Sections by name, in the order of the tree."""
    return dict(get_type_hints(Settings))


@cache
def rows() -> dict[str, Row]:
    """Settings by path, in the order of the tree."""
    table = {}
    defaults = Settings()
    for section, kind in sections().items():
        for name, hint in get_type_hints(kind, include_extras=True).items():
            typed, about = get_args(hint)
            choices = get_args(typed) if get_origin(typed) is Literal else ()
            default = getattr(getattr(defaults, section), name)
            row = Row(section, name, str if choices else typed, choices, default, about)
            table[row.path] = row
    return table
