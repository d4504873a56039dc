"""Protocol mistakes are noticed: a few are run here, all of them are held to the sources."""

from __future__ import annotations

import collections
import re
from pathlib import Path

import pytest

from jepsen_like.mutants import MUTANTS, Change, Mutant, Stage, named
from jepsen_like.mutants.campaign import SEEN, pursue, summed
from jepsen_like.mutants.transform import StaleMutant, changed, source_of

ROOT = Path(__file__).resolve().parents[2]
MUTANTS_MIN = 36
SAMPLE = ("read-only-without-commit-wait", "scan-leaves-no-mark", "push-kills-the-young")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_the_source_of_today(mutant: Mutant) -> None:
    """Every passage stands exactly once, and what takes its place compiles."""
    by_module: dict[str, list[Change]] = collections.defaultdict(list)
    for change in mutant.changes:
        by_module[change.module].append(change)
    assert by_module
    for module, changes in by_module.items():
        path = source_of(module)
        source = path.read_text(encoding="utf-8")
        text = changed(source, changes)
        assert text != source
        compile(text, str(path), "exec")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_says_what_it_breaks_and_where_it_shows(mutant: Mutant) -> None:
    """It names a rule of a document, a stage, and scripts that exist."""
    assert re.match(r"§5\.|docs/", mutant.rule)
    assert mutant.stages
    assert (Stage.SCRIPTS in mutant.stages) == bool(mutant.scripts)
    assert mutant.visible == (mutant.unseen == "")
    assert mutant.visible <= any(stage is not Stage.SCRIPTS for stage in mutant.stages)
    assert [path for path in mutant.scripts if not (ROOT / path).exists()] == []


def test_there_are_enough_and_no_name_is_taken_twice() -> None:
    """The catalogue has the size that was asked for."""
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= MUTANTS_MIN
    assert named(MUTANTS[0].name) is MUTANTS[0]


def test_a_stale_mutant_is_refused() -> None:
    """A passage that is gone, or stands there twice, is an error and not a survivor."""
    with pytest.raises(StaleMutant):
        changed("one two", [Change("some.module", "three", "four")])
    with pytest.raises(StaleMutant):
        changed("one one", [Change("some.module", "one", "four")])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SAMPLE)
def test_a_mistake_is_noticed(name: str) -> None:
    """Within a few seeds by what clients saw, and the same seed holds without it; or by a script, where
    they see nothing."""
    (catch,) = pursue([named(name)], 10)
    assert catch.by in (SEEN if catch.visible else ("script",)), catch
    report = summed([catch])
    assert (report.caught, report.survived, report.visible_not_by_history) == (1, [], [])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_changes_nothing_survives() -> None:
    """The machinery itself makes no seed fail: a mutant of a comment is caught by nobody."""
    comment = Change(
        "mvcc.upkeep",
        "# Tested by every read from now on, and logged long before anything is deleted.",
        "# Said otherwise.",
    )
    harmless = Mutant(name="none", rule="none", changes=(comment,), stages=(Stage.NODE,))
    (catch,) = pursue([harmless], 2)
    assert catch.by == ""
    assert summed([catch]).survived == ["none"]
