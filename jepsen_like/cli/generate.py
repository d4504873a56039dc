"""`k2 check gen`: histories with known verdicts."""

from __future__ import annotations

from pathlib import Path
from random import Random

import click

from jepsen_like.generate import MODELS, PERTURBATIONS, Settings
from jepsen_like.generate import generate as make
from jepsen_like.generate import perturb as change


@click.command(name="gen")
@click.option(
    "--model", required=True, type=click.Choice(sorted(MODELS)), help="What kind of object."
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["native", "edn", "json"]),
    help="The form of the file; by default from its name, else our own.",
)
@click.option(
    "--operations",
    default=1000,
    show_default=True,
    type=click.IntRange(1),
    help="How many operations.",
)
@click.option(
    "--processes", default=5, show_default=True, type=click.IntRange(1), help="How many clients."
)
@click.option("--keys", default=3, show_default=True, type=click.IntRange(1), help="How many keys.")
@click.option(
    "--spread",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="How many values; 0: all new.",
)
@click.option(
    "--crash",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of unknown outcomes.",
)
@click.option(
    "--fail", default=0.0, show_default=True, type=click.FloatRange(0, 1), help="Share of refusals."
)
@click.option("--seed", default=0, show_default=True, help="Equal seeds give equal files.")
@click.option("--perturb", metavar="NAME", help="Make one provable error: a name, or `any`.")
def generate(
    model: str,
    out: Path,
    form: str | None,
    operations: int,
    processes: int,
    keys: int,
    spread: int,
    crash: float,
    fail: float,
    seed: int,
    perturb: str | None,
) -> None:
    """Write a history that is valid, or wrong by one provable change."""
    from jepsen_like.formats.write import write

    if crash + fail > 1:
        raise click.UsageError("--crash and --fail together are more than everything")
    random = Random(seed)
    settings = Settings(
        operations=operations, processes=processes, keys=keys, spread=spread, crash=crash, fail=fail
    )
    history = make(model, settings, random)
    if perturb is not None:
        names = sorted(PERTURBATIONS[model])
        if not names or perturb not in (*names, "any"):
            offered = ", ".join(["any", *names]) if names else "none"
            raise click.BadParameter(f"{model} has {offered}", param_hint="--perturb")
        changed = change(history, model, random, None if perturb == "any" else perturb)
        if changed is None:
            raise click.ClickException(
                "the history offers no place for that error; try another seed"
            )
        history = changed
    write(out, history, form)
    click.echo(
        f"{out}: {len(history.operations)} operations, {'wrong' if perturb else 'valid'}", err=True
    )
