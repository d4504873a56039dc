"""Linking measured on SmolLM2: how far it is from the full computation, and what it saves."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Final

from bench.serve.part import Findings, Options, Table
from bench.serve.zipf import Load, count_hits
from serving.linking.evaluation import DOCUMENTS, FULL, Answer, answers
from serving.linking.lego import prefill_products, recomputed_rows
from serving.model import Llama, load

PROMPTS: Final = 200
PROMPTS_QUICK: Final = 4
PROMPT_SECONDS: Final = 3.0
RESAMPLES: Final = 1000
LENGTHS: Final = (512, 1024, 2048, 4096, 8192)
"""Prompt lengths whose operations are counted, in four chunks each."""


def measure(options: Options) -> Findings:
    """Deviation and accuracy of each arm; rows and operations; hits of a Zipf load."""
    count = PROMPTS_QUICK if options.quick else PROMPTS
    loaded = load()
    found_by_arm: dict[str, list[Answer]] = {}
    for number, found_by in enumerate(answers(loaded, count, options.seed)):
        if number % 10 == 0:
            options.begin(f"linking, prompt {number} of {count}", 10 * PROMPT_SECONDS)
        for name, answer in found_by.items():
            found_by_arm.setdefault(name, []).append(answer)
    rng = random.Random(options.seed)
    summary = {name: _summary(each, rng) for name, each in found_by_arm.items()}
    operations = {str(length): _operations(loaded.model, length) for length in LENGTHS}
    zipf = count_hits(Load(prompts=200 if options.quick else 2000), options.seed)
    found = Findings()
    found.add(
        {
            "epic": {
                "prompts": count,
                "arms": summary,
                "prefill_products": operations,
                "zipf": {
                    "prefix_ratio": round(zipf.prefix_ratio, 4),
                    "content_ratio": round(zipf.content_ratio, 4),
                    "inert_prompts": zipf.inert,
                    "prompts": zipf.prompts,
                },
            }
        }
    )
    found.tables += _tables(summary, operations, count)
    ratio = f"{zipf.prefix_ratio:.1%} by prefix, {zipf.content_ratio:.1%} by content"
    found.tables.append(
        Table(
            "Zipf load, tokens found computed (counted)",
            ("load", "inert prompts"),
            [(ratio, f"{zipf.inert} of {zipf.prompts}")],
        )
    )
    return found


def _summary(given: Sequence[Answer], rng: random.Random) -> dict[str, float]:
    """Means, with the standard error of each: of the divergence by resampling."""
    count = len(given)
    accuracy = sum([answer.right for answer in given]) / count
    divergences = {
        "kl": [answer.divergence for answer in given],
        "kl_first_word": [answer.at_beginning for answer in given],
        "kl_answer": [answer.of_answer for answer in given],
    }
    found: dict[str, float] = {}
    for name, values in divergences.items():
        means = [sum(rng.choices(values, k=count)) / count for _ in range(RESAMPLES)]
        middle = sum(means) / RESAMPLES
        spread = math.sqrt(sum([(mean - middle) ** 2 for mean in means]) / (RESAMPLES - 1))
        found |= {name: round(sum(values) / count, 6), f"{name}_error": round(spread, 6)}
    return found | {
        "accuracy": round(accuracy, 4),
        "accuracy_error": round(math.sqrt(accuracy * (1 - accuracy) / count), 4),
        "recomputed_tokens": sum([answer.recomputed for answer in given]),
        "products": sum([answer.products for answer in given]),
    }


def _operations(model: Llama, length: int) -> dict[str, int]:
    """Multiply-adds of a prompt of four chunks and a question of 32 tokens, by arm."""
    tail = 32
    chunk = (length - tail) // 4
    lengths = [length - tail - 3 * chunk, chunk, chunk, chunk]
    return {
        FULL: prefill_products(model, range(length)),
        "lego-16": prefill_products(model, recomputed_rows(lengths, tail, 16)),
    }


def _tables(
    summary: dict[str, dict[str, float]], operations: dict[str, dict[str, int]], count: int
) -> list[Table]:
    arms = [
        (
            name,
            *[
                f"{each[name]:.4f} ± {each[f'{name}_error']:.4f}"
                for name in ("kl_first_word", "kl", "kl_answer")
            ],
            f"{each['accuracy']:.2f} ± {each['accuracy_error']:.2f}",
            each["recomputed_tokens"],
            f"{each['products'] / summary[FULL]['products']:.1%}",
        )
        for name, each in summary.items()
    ]
    return [
        Table(
            f"Linking documents, {count} prompts of {DOCUMENTS[0]} to {DOCUMENTS[-1]} (counted)",
            ("arm", "KL first word", "first digit", "answer", "found", "rows", "operations"),
            arms,
        ),
        Table(
            "Operations of a prefill by length, four chunks (counted)",
            ("tokens", *next(iter(operations.values()))),
            [(length, *each.values()) for length, each in operations.items()],
        ),
    ]
