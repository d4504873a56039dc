"""``python -m serving.model.probe``: train the probe anew and judge it.

Writes ``checkpoint.safetensors``, and ``checkpoint.json`` with the seed, the recipe, the loss curve and what
was reached. About nine minutes of one core.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
import torch

from serving.model.conversion import write_notes, write_weights
from serving.model.probe import CONFIG
from serving.model.probe.evaluation import accuracy
from serving.model.probe.train import RECIPE, Progress, train

TOLD_EVERY = 10


@click.command()
@click.option("--seed", type=int, default=7, show_default=True, help="Of weights and chains.")
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Folder to write to; the current one unless given.",
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of torch.")
def main(*, seed: int, into: Path, threads: int) -> None:
    """Train the probe anew, and write its checkpoint and how it was made."""
    into.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    curve: list[dict[str, object]] = []
    began_s = time.process_time()

    def tell(progress: Progress) -> None:
        if progress.step % TOLD_EVERY == 0:
            curve.append(progress._asdict())
            sys.stderr.write(
                f"{progress.phase}, step {progress.step}: loss {progress.loss:.4f}, "
                f"lemmas {progress.lemma:.3f}, bits {progress.bits:.3f}\n"
            )

    model = train(seed, tell)
    path = into / "checkpoint.safetensors"
    write_weights(path, CONFIG, model.weights)
    reached = {
        "all_visible": accuracy(model, chains=64, seed=seed + 1000)._asdict(),
        "older_steps_hidden": accuracy(model, chains=64, seed=seed + 1000, hidden=True)._asdict(),
    }
    write_notes(
        path.with_suffix(".json"),
        {
            "seed": seed,
            "recipe": [phase._asdict() for phase in RECIPE],
            "accuracy": reached,
            "torch": str(torch.__version__),
            "cpu_s": round(time.process_time() - began_s),
            "curve": curve,
        },
    )
    click.echo(f"{path}: {reached}")


if __name__ == "__main__":
    main()
