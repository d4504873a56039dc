"""The page of verification names only what there is, and leaves no case of the protocol out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from jepsen_like.mutants import MUTANTS
from jepsen_like.sim.swarm import SWARM_PROBES
from jepsen_like.swarm.reach import OUT_OF_REACH
from tests.architecture.tree import ROOT

PAGE = (ROOT / "docs" / "VERIFICATION.md").read_text(encoding="utf-8")
CASES = 45
NOT_IN_SEEDS = {
    28: "promoting a lost home may lose what was acknowledged: scripts and a model judge that",
    36: "a copy answers from what it has, and never asks an anchor",
}
"""Cases that do not apply to seeds, each with the reason."""
SEEDS = ROOT / "tests" / "simulation"
HAZARD = re.compile(r"^\| (\d+) [^|]+\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
TESTS = sorted(set(re.findall(r"`(tests/[^`:]+)(?:::(\w+))?`", PAGE)))


def quoted(text: str) -> list[str]:
    """What stands between backquotes."""
    return re.findall(r"`([^`]+)`", text)


def functions(path: Path) -> set[str]:
    """The names of the tests in a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize(("path", "name"), TESTS, ids=lambda part: str(part) or "all")
def test_named_tests_exist(path: str, name: str) -> None:
    """Each file is there, and has the test that is named."""
    assert (ROOT / path).is_file(), path
    if name:
        assert name in functions(ROOT / path), f"{path} has no {name}"


def test_every_case_of_the_protocol_has_a_row() -> None:
    """The cases of §5.8 are all there, in order, and each is shown by something that can fail."""
    rows = HAZARD.findall(PAGE)
    assert [int(number) for number, *_ in rows] == list(range(1, CASES + 1))
    assert [number for number, _, _, scripts in rows if not quoted(scripts)] == []


def test_every_case_that_applies_is_met_by_a_swarm() -> None:
    """It has a probe, and the probe is among those that a swarm must hit."""
    declared = set(SWARM_PROBES) - set(OUT_OF_REACH)
    for number, met, _, _ in HAZARD.findall(PAGE):
        if int(number) in NOT_IN_SEEDS:
            assert quoted(met) == [], number
        else:
            assert quoted(met), number
            assert set(quoted(met)) <= declared, number


def test_named_probes_and_mutants_exist() -> None:
    """A probe or a mutant that is renamed is renamed here as well."""
    probes, mutants = set(SWARM_PROBES), {mutant.name for mutant in MUTANTS}
    for _, met, left_out, _ in HAZARD.findall(PAGE):
        assert set(quoted(met)) <= probes, met
        assert set(quoted(left_out)) <= mutants, left_out


@pytest.mark.parametrize(
    ("file", "kind"), [("seeds.txt", "seed"), ("cluster_seeds.txt", "cluster seed")]
)
def test_every_seed_that_failed_is_in_the_record(file: str, kind: str) -> None:
    """What is kept as a regression is told, too."""
    kept = [
        line.split()[0]
        for line in (SEEDS / file).read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    record = PAGE.split("## Bugs that were found")[1]
    told = {
        number
        for one in re.findall(rf"\| {kind}s? ([\d, ]+)\|", record)
        for number in re.findall(r"\d+", one)
    }
    assert [number for number in kept if number not in told] == []
