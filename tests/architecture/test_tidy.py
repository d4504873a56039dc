"""House rules that the linter cannot state: a ban, its reason, and where it does not hold."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.architecture.tree import CORES, PACKAGES, files, python_files, text, tree

FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 100


class Ban(NamedTuple):
    """Source text that must not appear, why, and the beginnings of paths that may have it."""

    name: str
    pattern: str
    reason: str
    allowed: tuple[str, ...] = ()


BANS = (
    Ban(
        "wall clock",
        r"\btime\.time(_ns)?\b",
        "true time is an interval: ask a Clock; measure spans with a monotonic clock",
        # The store notes when it was made, for people.
        ("k2store/clock/", "k2store/storage/store.py", "bench/", "jepsen_like/", "tests/"),
    ),
    Ban(
        "local dates",
        r"\bdatetime\.(now|utcnow|today)\(",
        "dates are made from stamps, for people only",
        ("bench/", "jepsen_like/", "tests/"),
    ),
    Ban(
        "code from data",
        r"^\s*(import|from)\s+(pickle|marshal|shelve|dill|cloudpickle|yaml)\b|(?<![\w.])(eval|exec)\(",
        "data is parsed into declared types, never turned into code or objects",
    ),
    Ban(
        "unfinished work",
        r"\braise NotImplementedError\b|\b(TODO|FIXME|XXX|HACK)\b",
        "what lands is finished; what is missing stands in the documentation",
    ),
    Ban(
        "swallowed warnings",
        r"warnings\.(simplefilter|filterwarnings)\(\s*[\"']ignore",
        "a warning is answered where it arises",
        ("tests/",),
    ),
)


@pytest.mark.parametrize("ban", BANS, ids=lambda ban: ban.name)
def test_banned_text_is_absent(ban: Ban) -> None:
    """No Python file contains a banned construct outside the places that have a reason to."""
    pattern = re.compile(ban.pattern, re.MULTILINE)
    mine = "tests/architecture/test_tidy.py"
    found = [
        f"{path}:{text(path).count(chr(10), 0, match.start()) + 1}: {match[0].strip()}"
        for path in python_files()
        if path != mine and not path.startswith(ban.allowed)
        for match in pattern.finditer(text(path))
    ]
    assert not found, f"{ban.name}: {ban.reason}\n" + "\n".join(found)


def test_bans_catch_what_they_ban() -> None:
    """Each ban's pattern finds a sample of what it is about, so that none of them is dead."""
    samples = {
        "wall clock": "now = time.time()",
        "local dates": "datetime.now(UTC)",
        "code from data": "import pickle",
        "unfinished work": "raise NotImplementedError",
        "swallowed warnings": 'warnings.simplefilter("ignore")',
    }
    for ban in BANS:
        assert re.search(ban.pattern, samples[ban.name]), ban.name


def test_no_file_is_named_for_nothing() -> None:
    """A module is named for the concept it holds; grab-bags are not accepted."""
    bags = {"utils", "util", "helpers", "helper", "misc", "common", "base"}
    found = [path for path in python_files() if path.split("/")[-1].removesuffix(".py") in bags]
    assert not found, found


def test_no_machine_of_somebody_is_named() -> None:
    """The tree holds no absolute path of the machine it was written on."""
    homes = re.compile("(?<![\\w.])/" + "(work|root|home/[a-z]+|Users)/")
    found = [
        f"{path}: {match[0]}"
        for path in files()
        if path != "LICENSE"
        for match in homes.finditer(text(path))
    ]
    assert not found, found


def functions(path: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file, nested ones included."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_files_and_functions_fit_in_a_head() -> None:
    """No module exceeds 800 lines and no function of a package 100; most are far below."""
    long_files = [
        f"{path}: {lines} lines"
        for path in python_files(*PACKAGES)
        if (lines := text(path).count("\n")) > FILE_LINES_MAX
    ]
    long_functions = [
        f"{path}:{node.lineno} {node.name}: {lines} lines"
        for path in python_files(*PACKAGES)
        for node in functions(path)
        if (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert not long_files + long_functions, "\n".join(long_files + long_functions)


def test_input_is_never_asserted() -> None:
    """Where users' input comes in, no public function asserts the type of its own parameter."""
    found = []
    doors = ("k2store/client/", "k2store/cli/", "k2store/config/", "k2store/node/")
    for path in python_files("k2store"):
        for node in functions(path):
            if node.name.startswith("_") or not path.startswith(doors):
                continue
            parameters = {argument.arg for argument in node.args.args + node.args.kwonlyargs}
            found += [
                f"{path}:{statement.lineno}"
                for statement in ast.walk(node)
                if isinstance(statement, ast.Assert)
                and isinstance(statement.test, ast.Call)
                and isinstance(statement.test.func, ast.Name)
                and statement.test.func.id == "isinstance"
                and isinstance(statement.test.args[0], ast.Name)
                and statement.test.args[0].id in parameters
            ]
    assert not found, found


def shared_chance(syntax: ast.Module) -> list[int]:
    """Lines that draw from the interpreter's shared generator instead of a seeded one."""
    imports = any(
        isinstance(node, ast.Import) and any(alias.name == "random" for alias in node.names)
        for node in ast.walk(syntax)
    )
    bound = {node.arg for node in ast.walk(syntax) if isinstance(node, ast.arg)}
    if not imports or "random" in bound:
        return []
    return [
        node.lineno
        for node in ast.walk(syntax)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "random"
        and node.func.attr not in {"Random", "SystemRandom"}
    ]


def test_chance_is_seeded() -> None:
    """Chance comes from a generator that somebody seeded, so that a run can be repeated."""
    assert shared_chance(ast.parse("import random\nrandom.choice(nodes)")) == [2]
    found = [f"{path}:{line}" for path in python_files() for line in shared_chance(tree(path))]
    assert not found, found


def is_set(node: ast.expr) -> bool:
    """Whether an expression is plainly a set, whose order differs from process to process."""
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"set", "frozenset"}
    )


def test_cores_do_not_iterate_over_sets() -> None:
    """No core walks a set where its order could be seen: runs repeat under any hash seed."""
    found = []
    for path in python_files(*CORES):
        for node in ast.walk(tree(path)):
            iterated = (
                [node.iter] if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension) else []
            )
            found += [f"{path}:{each.lineno}" for each in iterated if is_set(each)]
    assert not found, found


def test_each_test_says_what_it_proves() -> None:
    """Every test function has a docstring, and none of them sleeps."""
    mute = []
    sleepers = []
    for path in python_files("tests"):
        for node in functions(path):
            if node.name.startswith("test_"):
                if ast.get_docstring(node) is None:
                    mute.append(f"{path}:{node.lineno} {node.name}")
                sleepers += [
                    f"{path}:{call.lineno}"
                    for call in ast.walk(node)
                    if isinstance(call, ast.Call) and ast.unparse(call.func) == "time.sleep"
                ]
    assert not mute + sleepers, "\n".join(mute + sleepers)
