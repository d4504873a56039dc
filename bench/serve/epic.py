"""Linking measured on SmolLM2: how far it is from the full computation, and what it saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from bench.serve.estimate import Estimate, estimate
from bench.serve.part import Findings, Options, Table
from bench.serve.records import Records
from bench.serve.zipf import Hits, Load, count_hits
from serving.linking.evaluation import (
    ARMS,
    DOCUMENTS,
    FULL,
    LINKED,
    NAIVE,
    SENTENCES,
    Answer,
    answers,
    draw_prompts,
    lego,
)
from serving.linking.lego import prefill_products, recomputed_rows
from serving.model import Llama, LoadedModel, load

PROMPTS: Final = 200
PROMPTS_QUICK: Final = 4
PROMPT_SECONDS: Final = 6.0
STEP: Final = 10
"""Prompts between two words of progress."""
RECORDS: Final = "epic.jsonl"
PLACES: Final = {
    "kl": "of_answer",
    "kl_first_word": "at_first_word",
    "kl_first_digit": "at_first_digit",
}
"""Where divergences are taken, by their names in the findings; the mean over the answer leads."""
CLIMB: Final = (*[lego(k) for k in LINKED], FULL)
"""From arm to arm more rows are computed."""
DEEPEST: Final = lego(LINKED[-1])
LENGTHS: Final = (512, 1024, 2048, 4096, 8192)
"""Prompt lengths whose operations are counted, in four chunks each."""

Found = dict[str, Answer]
"""What the arms made of a prompt, by name."""


def measure(options: Options) -> Findings:
    """Deviation and accuracy of each arm; rows and operations; hits of a Zipf load.

    Interrupted, it says what it has found over the prompts that were through.
    """
    count = PROMPTS_QUICK if options.quick else PROMPTS
    loaded = load()
    found, interrupted = _ask(loaded, count, options)
    zipf = count_hits(Load(prompts=200 if options.quick else 2000), options.seed)
    findings = _findings(found, count, loaded.model, zipf)
    findings.interrupted = interrupted
    return findings


def _ask(loaded: LoadedModel, count: int, options: Options) -> tuple[list[Found], bool]:
    """What the arms make of the prompts, and whether somebody wanted no more of it."""
    about = {
        "model": loaded.revision,
        "seed": options.seed,
        "documents": DOCUMENTS,
        "sentences": SENTENCES,
        "arms": list(ARMS),
    }
    file = None if options.records is None else options.records / RECORDS
    records = Records(file, about, Found)
    try:
        for number, prompt in enumerate(draw_prompts(loaded.tokenizer, count, options.seed)):
            if number < len(records.found):
                continue
            if number % STEP == 0:
                options.begin(f"linking, prompt {number} of {count}", STEP * PROMPT_SECONDS)
            records.add(answers(loaded, prompt))
    except KeyboardInterrupt:
        if not records.found:
            raise
        return records.found[:count], True
    return records.found[:count], False


def _findings(found: Sequence[Found], wanted: int, model: Llama, zipf: Hits) -> Findings:
    summary = {name: _summary([each[name] for each in found]) for name in ARMS}
    operations = {str(length): _operations(model, length) for length in LENGTHS}
    cut = {kl: _cut(found, place) for kl, place in PLACES.items()}
    climb = {kl: _climb(found, place) for kl, place in PLACES.items()}
    gain = {name: _gain(found, name) for name in CLIMB[1:-1]}
    document = {
        "prompts": len(found),
        "prompts_wanted": wanted,
        "arms": summary,
        "cut_of_naive": {kl: _told(each) for kl, each in cut.items()},
        "climb": {
            kl: {step: _told(each) for step, each in steps.items()} for kl, steps in climb.items()
        },
        "accuracy_above_naive": {name: _told(each) for name, each in gain.items()},
        "prefill_products": operations,
        "zipf": {
            "prefix_ratio": round(zipf.prefix_ratio, 4),
            "content_ratio": round(zipf.content_ratio, 4),
            "inert_prompts": zipf.inert,
            "prompts": zipf.prompts,
        },
    }
    several = f"{len(found)} of {wanted} prompts of {DOCUMENTS[0]} to {DOCUMENTS[-1]} documents"
    inert = f"{zipf.inert} of {zipf.prompts}"
    return Findings(
        {"epic": document},
        [
            _arms_table(summary, several),
            _comparison_table(cut, climb, gain),
            Table(
                "Operations of a prefill by length, four chunks (counted)",
                ("tokens", *next(iter(operations.values()))),
                [(length, *each.values()) for length, each in operations.items()],
            ),
            Table(
                "Zipf load, tokens found computed (counted)",
                ("by prefix", "by content", "inert prompts"),
                [(f"{zipf.prefix_ratio:.1%}", f"{zipf.content_ratio:.1%}", inert)],
            ),
        ],
    )


def _summary(given: Sequence[Answer]) -> dict[str, float]:
    """Means of an arm, with the standard error of each, and what it took in all."""
    told: dict[str, float] = {}
    for kl, place in PLACES.items():
        mean = estimate(_alone, [getattr(answer, place) for answer in given])
        told |= {kl: round(mean.value, 6), f"{kl}_error": round(mean.error, 6)}
    accuracy = estimate(_alone, [float(answer.right) for answer in given])
    return told | {
        "accuracy": round(accuracy.value, 4),
        "accuracy_error": round(accuracy.error, 4),
        "recomputed_tokens": sum([answer.recomputed for answer in given]),
        "products": sum([answer.products for answer in given]),
    }


def _cut(found: Sequence[Found], place: str) -> Estimate:
    """Which share of naive's divergence the deepest linking takes away."""
    naive, linked = _column(found, NAIVE, place), _column(found, DEEPEST, place)
    return estimate(lambda means: 1 - means[1] / means[0], naive, linked)


def _climb(found: Sequence[Found], place: str) -> dict[str, Estimate]:
    """By how much the divergence changes from arm to arm; it rises where that is above its error."""
    return {
        f"{one} to {other}": estimate(
            _difference, _column(found, other, place), _column(found, one, place)
        )
        for one, other in zip(CLIMB, CLIMB[1:], strict=False)
    }


def _gain(found: Sequence[Found], name: str) -> Estimate:
    """By how much an arm finds more codes than naive."""
    return estimate(_difference, _column(found, name, "right"), _column(found, NAIVE, "right"))


def _column(found: Sequence[Found], name: str, field: str) -> list[float]:
    return [float(getattr(each[name], field)) for each in found]


def _alone(means: Sequence[float]) -> float:
    return means[0]


def _difference(means: Sequence[float]) -> float:
    return means[0] - means[1]


def _told(one: Estimate) -> dict[str, float]:
    return {name: round(value, 6) for name, value in one._asdict().items()}


def _operations(model: Llama, length: int) -> dict[str, int]:
    """Multiply-adds of a prompt of four chunks and a question of 32 tokens, by arm."""
    tail = 32
    chunk = (length - tail) // 4
    lengths = [length - tail - 3 * chunk, chunk, chunk, chunk]
    return {
        FULL: prefill_products(model, range(length)),
        "lego-16": prefill_products(model, recomputed_rows(lengths, tail, 16)),
    }


def _arms_table(summary: Mapping[str, Mapping[str, float]], several: str) -> Table:
    rows = [
        (
            name,
            *[f"{each[kl]:.4f} ± {each[f'{kl}_error']:.4f}" for kl in PLACES],
            f"{each['accuracy']:.2f} ± {each['accuracy_error']:.2f}",
            int(each["recomputed_tokens"]),
            f"{each['products'] / summary[FULL]['products']:.1%}",
        )
        for name, each in summary.items()
    ]
    columns = (
        "arm",
        "KL, whole answer",
        "first word",
        "first digit",
        "found",
        "rows",
        "operations",
    )
    return Table(f"Linking documents, {several} (counted)", columns, rows)


def _comparison_table(
    cut: Mapping[str, Estimate],
    climb: Mapping[str, Mapping[str, Estimate]],
    gain: Mapping[str, Estimate],
) -> Table:
    rows = [
        (
            f"{DEEPEST} takes away of naive's {kl}",
            f"{one.value:.0%}",
            f"{one.low:.0%} to {one.high:.0%}",
        )
        for kl, one in cut.items()
    ]
    rows += [
        (
            f"{kl}, {step}",
            f"{one.value:+.4f} ± {one.error:.4f}",
            f"{one.low:+.4f} to {one.high:+.4f}",
        )
        for kl, steps in climb.items()
        for step, one in steps.items()
    ]
    rows += [
        (
            f"codes found by {name} above naive",
            f"{one.value:+.2f} ± {one.error:.2f}",
            f"{one.low:+.2f} to {one.high:+.2f}",
        )
        for name, one in gain.items()
    ]
    return Table("Compared on the same prompts (bootstrap)", ("", "", "95 in 100"), rows)
