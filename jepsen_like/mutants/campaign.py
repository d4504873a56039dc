"""Every mutant against what should notice it.

Each lives in processes of its own. Seeds are run until one fails; that one is then run with the store
as it is, and counts only if it holds there. A mutant that clients can see is pursued until what clients
saw is enough to tell. A process that says nothing for `SILENT_S` is ended, and its seed counts as stuck.
"""

from __future__ import annotations

import collections
import concurrent.futures
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from jepsen_like.mutants.mutant import Mutant, Stage
from jepsen_like.mutants.subject import UNCHANGED, Told

ROOT: Final = Path(__file__).resolve().parents[2]
"""The project's folder, where its tests are if this is a checkout."""
SILENT_S: Final = 180
SCRIPTS_S: Final = 900
FIRST_SEED: Final = 1
FOUND_CHARACTERS: Final = 300
SEEN: Final = ("history", "stamps")
"""Caught by nothing but what clients were told."""
_TESTS_FAILED: Final = 1
_SUBJECT: Final = ("-m", "jepsen_like.mutants.subject")


class Catch(msgspec.Struct, frozen=True):
    """How one mutant fared. `by` is empty for one that nobody noticed."""

    name: str
    rule: str
    visible: bool
    by: str
    """history, stamps, inside, invariant, liveness or script."""
    stage: str = ""
    seeds: int = 0
    """Seeds run up to the one that showed it."""
    what: str = ""


class Report(msgspec.Struct, frozen=True):
    """All in sum: what `k2 check mutants --json` prints last."""

    mutants: int
    caught: int
    visible: int
    """Those that clients can see."""
    caught_by_history_alone: int
    """By what clients saw: by the checkers of their workloads, or by the replay in order of stamps."""
    visible_not_by_history: list[str]
    seeds_median: float
    seeds_max: int
    by: dict[str, int]
    survived: list[str]
    caught_by: dict[str, str]


def pursue(
    mutants: Sequence[Mutant],
    seeds_max: int,
    *,
    history: bool = True,
    jobs: int = 1,
    tests: Path = ROOT,
) -> Iterator[Catch]:
    """Each mutant, in their order, `jobs` at a time.

    `history`: go on until what clients saw is enough to tell a visible one.
    """
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(
            lambda mutant: _pursue(
                mutant, seeds_max, history=history and mutant.visible, tests=tests
            ),
            mutants,
        )


def _pursue(mutant: Mutant, seeds_max: int, *, history: bool, tests: Path) -> Catch:
    best: Catch | None = None
    for stage in mutant.stages:
        if stage is Stage.SCRIPTS:
            found = _by_scripts(mutant, tests) if best is None else None
        else:
            found = _by_seeds(mutant, stage, seeds_max, history=history)
        best = best or found
        if found is not None and (found.by in SEEN or not history):
            return found
    return best or Catch(mutant.name, mutant.rule, mutant.visible, "")


def _by_seeds(mutant: Mutant, stage: Stage, seeds_max: int, *, history: bool) -> Catch | None:
    first, last = FIRST_SEED, FIRST_SEED + seeds_max - 1
    best: Catch | None = None
    while first <= last:
        told = _run(mutant.name, mutant, stage, first, last - first + 1)
        if told is None:
            return best
        by, what = _seen(told)
        if by and _holds(mutant, stage, told.seed):
            catch = Catch(
                mutant.name,
                mutant.rule,
                mutant.visible,
                by,
                stage.value,
                told.seed - FIRST_SEED + 1,
                what[:FOUND_CHARACTERS],
            )
            if by in SEEN or not history:
                return catch
            best = best or catch
        first = told.seed + 1
    return best


def _seen(told: Told) -> tuple[str, str]:
    if told.history:
        return "history", told.history[0]
    if told.stamps:
        return "stamps", told.stamps[0]
    if told.inside:
        return "inside", told.inside[0]
    for what in told.others:
        if "AssertionError" in what:
            return "invariant", what
    return ("liveness", told.others[0]) if told.others else ("", "")


def _holds(mutant: Mutant, stage: Stage, seed: int) -> bool:
    """Whether the store as it is passes the seed."""
    return _run(UNCHANGED, mutant, stage, seed, 1) is None


def _run(name: str, mutant: Mutant, stage: Stage, first: int, count: int) -> Told | None:
    """The first seed that failed, None if none did."""
    python = (sys.executable,) if mutant.asserts else (sys.executable, "-O")
    command = [*python, *_SUBJECT, name, stage.value, str(first), str(count), *mutant.workloads]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        complaints: collections.deque[str] = collections.deque(maxlen=3)
        reader = threading.Thread(target=complaints.extend, args=(process.stderr,), daemon=True)
        reader.start()
        latest = first - 1
        timer = _killer(process)
        for line in process.stdout:
            timer.cancel()
            told = msgspec.json.decode(line, type=Told)
            latest = told.seed
            if _seen(told)[0]:
                return told
            timer = _killer(process)
        timer.cancel()
        status = process.wait()
        reader.join()
    if status:
        # It said nothing any more, or something came out that no run should let out.
        died = "".join(complaints).strip() or f"nothing for {SILENT_S} s"
        return Told(latest + 1, others=[died])
    return None


def _killer(process: subprocess.Popen[str]) -> threading.Timer:
    timer = threading.Timer(SILENT_S, process.kill)
    timer.daemon = True
    timer.start()
    return timer


def _by_scripts(mutant: Mutant, tests: Path) -> Catch | None:
    if not (tests / "tests").is_dir():
        return None
    done = subprocess.run(
        [sys.executable, *_SUBJECT, mutant.name, Stage.SCRIPTS.value],
        cwd=tests,
        capture_output=True,
        text=True,
        timeout=SCRIPTS_S,
        check=False,
    )
    if done.returncode != _TESTS_FAILED:
        if done.returncode:
            raise RuntimeError(f"{mutant.name}: pytest ended with {done.returncode}: {done.stderr}")
        return None
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    what = failed[0].removeprefix("FAILED ") if failed else done.stdout[-FOUND_CHARACTERS:]
    return Catch(
        mutant.name,
        mutant.rule,
        mutant.visible,
        "script",
        Stage.SCRIPTS.value,
        0,
        what[:FOUND_CHARACTERS],
    )


def summed(catches: Sequence[Catch]) -> Report:
    """All in one."""
    caught = [one for one in catches if one.by]
    seeds = [one.seeds for one in caught if one.seeds]
    return Report(
        len(catches),
        len(caught),
        sum(one.visible for one in catches),
        sum(one.by in SEEN for one in caught),
        [one.name for one in catches if one.visible and one.by not in SEEN],
        statistics.median(seeds) if seeds else 0,
        max(seeds, default=0),
        dict(collections.Counter(one.by for one in caught).most_common()),
        [one.name for one in catches if not one.by],
        {
            one.name: f"{one.by} ({one.stage} {one.seeds or ''})".replace(" )", ")")
            for one in caught
        },
    )
