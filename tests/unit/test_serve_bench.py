"""What `k2 bench serve` makes of its samples: records that survive, estimates that say how far they may be off."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bench.processes import BenchError
from bench.serve import epic
from bench.serve.epic import measure
from bench.serve.estimate import estimate
from bench.serve.part import Options
from bench.serve.records import Records
from serving.linking.evaluation import ARMS, FULL, NAIVE, Answer

ABOUT = {"seed": 1, "arms": ["full", "naive"]}


def test_a_record_goes_on_where_it_was(tmp_path: Path) -> None:
    """What was found is found again, in order; a line that was being written is written anew."""
    file = tmp_path / "deep" / "record"
    records = Records(file, ABOUT, dict[str, int])
    for number in range(3):
        records.add({"number": number})
    file.write_bytes(file.read_bytes()[:-4])
    again = Records(file, ABOUT, dict[str, int])
    assert again.found == [{"number": 0}, {"number": 1}]
    again.add({"number": 7})
    assert Records(file, ABOUT, dict[str, int]).found == again.found


def test_a_record_of_something_else_is_refused(tmp_path: Path) -> None:
    """Another seed, and bytes that are no findings; an empty file is a new record."""
    file = tmp_path / "record"
    file.touch()
    Records(file, ABOUT, dict[str, int]).add({"number": 1})
    with pytest.raises(BenchError, match="another measurement"):
        Records(file, ABOUT | {"seed": 2}, dict[str, int])
    file.write_bytes(file.read_bytes() + b"words\n")
    with pytest.raises(BenchError, match="damaged"):
        Records(file, ABOUT, dict[str, int])


def test_an_estimate_is_as_wide_as_its_samples() -> None:
    """The error of a mean is that of the textbook, 95 in 100 lie within two of them; a difference of two columns
    that go up and down together is known far better than either."""
    rng = random.Random(5)
    hard = [rng.gauss(10, 3) for _ in range(400)]
    mean = estimate(lambda means: means[0], hard)
    assert mean.value == pytest.approx(sum(hard) / 400)
    assert mean.error == pytest.approx(3 / 20, rel=0.15)
    assert mean.high - mean.low == pytest.approx(4 * mean.error, rel=0.15)
    other = [one + rng.gauss(1, 0.1) for one in hard]
    apart = estimate(lambda means: means[0] - means[1], other, hard)
    assert apart.value == pytest.approx(1, abs=0.02)
    assert apart.error < mean.error / 10


def test_an_interrupted_measure_says_over_how_many_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C after two prompts: findings over two, marked so; begun again it asks for the other two only. Without any
    prompt there is nothing to tell."""
    asked = []

    def answers(_: object, prompt: object) -> dict[str, Answer]:
        if len(asked) in {0, 3}:
            asked.append(None)
            raise KeyboardInterrupt
        asked.append(prompt)
        far = {FULL: 0.0, NAIVE: 1.0}
        return {name: Answer(far.get(name, 0.25), 0.5, 0.5, name == FULL, 10, 100) for name in ARMS}

    # The model's part is tested where it is; here it is when answers come, and when they do not.
    monkeypatch.setattr(epic, "answers", answers)
    options = Options(quick=True, seed=1, begin=lambda *_: None, records=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        measure(options)
    found = measure(options)
    assert found.interrupted
    told = found.document["epic"]
    assert isinstance(told, dict)
    assert (told["prompts"], told["prompts_wanted"]) == (2, 4)
    assert "2 of 4 prompts" in found.tables[0].title
    again = measure(options)
    assert not again.interrupted
    told = again.document["epic"]
    assert isinstance(told, dict)
    assert told["prompts"] == 4
    assert len([prompt for prompt in asked if prompt is not None]) == 4
    assert told["cut_of_naive"]["kl"]["value"] == 0.75
    assert told["climb"]["kl"]["naive to lego-1"]["value"] == -0.75
    assert told["arms"]["full"]["accuracy"] == 1.0
    assert told["accuracy_above_naive"]["lego-32"]["value"] == 0.0
