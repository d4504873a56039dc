"""The probe: a model of 0.8 million weights that reasons in chains, trained by a recipe that stands here.

What a policy drops from the cache shows only in a model that needs it later. A small model of language
does not follow long chains of reasoning at all, so nothing could be learned from it. The probe follows
chains of four hundred tokens without a mistake, and it is known which tokens it must remember.

`task` is what it learns, `train` the recipe, `checkpoint.safetensors` the outcome and `checkpoint.json`
how it was made. ``python -m serving.model.probe`` makes it anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from serving.model.config import ModelConfig
from serving.model.conversion import read_weights
from serving.model.llama import Llama
from serving.model.probe.task import VOCABULARY

CHECKPOINT: Final = Path(__file__).parent / "checkpoint.safetensors"

CONFIG: Final = ModelConfig(
    vocabulary=VOCABULARY,
    layers=4,
    width=128,
    query_heads=4,
    kv_heads=4,
    head_dim=32,
    feed_forward=344,
    norm_epsilon=1e-5,
    rope_theta=10_000.0,
    context_tokens=4096,
)


def load_probe(path: Path = CHECKPOINT) -> Llama:
    """The trained probe; ``Corruption`` where its file is damaged."""
    config, weights, _ = read_weights(path)
    return Llama(config, weights)
