"""The tree as the architecture tests see it: what git tracks or would track, parsed once."""

from __future__ import annotations

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORES = ("truetime", "mvcc", "replication", "kv_pool")
PACKAGES = (*CORES, "k2store", "serving", "jepsen_like", "bench")
GENERATED = "k2store/v1/"


@cache
def files() -> tuple[str, ...]:
    """Paths of all files that git does not ignore, relative to the root, generated code apart."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return tuple(
        path
        for path in sorted(set(listed.stdout.split("\n")) - {""})
        if not path.startswith(GENERATED) and (ROOT / path).is_file()
    )


@cache
def text(path: str) -> str:
    """The text of a file; bytes that are no text come out as replacement characters."""
    return (ROOT / path).read_text(encoding="utf-8", errors="replace")


@cache
def tree(path: str) -> ast.Module:
    """The syntax tree of a Python file."""
    return ast.parse(text(path), path)


def python_files(*folders: str) -> list[str]:
    """Python files below the given folders; all of them without any."""
    found = [path for path in files() if path.endswith(".py")]
    return [path for path in found if not folders or path.split("/")[0] in folders]


def imported_modules(path: str) -> set[str]:
    """Full names of the modules that a file imports, wherever in it; ``from a import b`` is a.b."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names
