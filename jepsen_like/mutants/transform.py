"""Changing sources while they are imported.

A finder in front of all others answers for the modules that a mutant changes; everything else is
imported as ever. Nothing is written: the changed text is compiled in memory, past any cached byte
code.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import CodeType, ModuleType

from jepsen_like.mutants.mutant import Change


class StaleMutant(Exception):
    """The passage to be changed does not stand exactly once in the source."""


def changed(source: str, changes: Iterable[Change]) -> str:
    """The source with every passage replaced; StaleMutant if one is not there exactly once."""
    for change in changes:
        count = source.count(change.old)
        if count != 1:
            raise StaleMutant(f"{change.module} has {count} times, not once:\n{change.old}")
        source = source.replace(change.old, change.new)
    return source


def source_of(module: str) -> Path:
    """The file of a module, found without importing the module itself."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise StaleMutant(f"there is no module {module}")
    return Path(spec.origin)


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module from its changed source."""

    def __init__(self, name: str, path: str, changes: Sequence[Change]) -> None:
        super().__init__(name, path)
        self._changes = changes

    def get_code(self, fullname: str) -> CodeType:
        """Compile the changed text; never what was cached of the true one."""
        path = self.get_filename(fullname)
        text = changed(Path(path).read_text(encoding="utf-8"), self._changes)
        return self.source_to_code(text.encode(), path)


class _Finder:
    """Answers for the modules that are changed."""

    def __init__(self, changes: Iterable[Change]) -> None:
        self._changes: dict[str, list[Change]] = {}
        for change in changes:
            self._changes.setdefault(change.module, []).append(change)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The usual spec with another loader; None for everything else."""
        mine = self._changes.get(fullname)
        if mine is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None:
            raise StaleMutant(f"there is no module {fullname}")
        spec.loader = _Loader(fullname, spec.origin, mine)
        return spec


def install(changes: Sequence[Change]) -> None:
    """From now on these modules are imported changed; none of them may have been imported yet."""
    early = [change.module for change in changes if change.module in sys.modules]
    if early:
        raise StaleMutant(f"imported before it could be changed: {', '.join(early)}")
    sys.meta_path.insert(0, _Finder(changes))
