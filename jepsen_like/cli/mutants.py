"""`k2 check mutants`: protocol mistakes made on purpose, and who notices them."""

from __future__ import annotations

import click


@click.command()
@click.option("--only", multiple=True, metavar="NAME", help="Only these mutants.")
@click.option(
    "--seeds",
    "seeds_max",
    default=200,
    show_default=True,
    type=click.IntRange(1),
    help="Seeds a mutant may live through.",
)
@click.option(
    "--any",
    "anybody",
    is_flag=True,
    help="Be content with whoever notices first, where clients could see it later.",
)
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="At a time.")
@click.option("--list", "listed", is_flag=True, help="Only list the mutants.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a mutant, and the sum.")
@click.pass_context
def mutants(
    ctx: click.Context,
    only: tuple[str, ...],
    seeds_max: int,
    *,
    anybody: bool,
    jobs: int,
    listed: bool,
    as_json: bool,
) -> None:
    """Break one rule of the protocol at a time, and see who notices.

    Each mutant is the real store with one passage of its source replaced, run on seeds of the
    simulator until what clients saw is enough to tell, or, where they see nothing, against the
    golden scripts and models of a checkout.

    Exit status: 0 when every mutant is caught, 5 when one survives, 2 for a usage error.
    """
    import msgspec

    from jepsen_like.mutants import MUTANTS, named
    from jepsen_like.mutants.campaign import pursue, summed

    try:
        chosen = [named(name) for name in only] or list(MUTANTS)
    except KeyError as unknown:
        raise click.BadParameter(f"no mutant {unknown}", param_hint="--only") from None
    if listed:
        for mutant in chosen:
            click.echo(f"{mutant.name:42} {mutant.rule}")
            if mutant.unseen:
                click.echo(f"{'':42} not seen by clients: {mutant.unseen}")
        return
    catches = []
    for catch in pursue(chosen, seeds_max, history=not anybody, jobs=jobs):
        catches.append(catch)
        if as_json:
            click.echo(msgspec.json.encode(catch).decode())
        elif catch.by:
            where = f"{catch.stage}, {catch.seeds} seeds" if catch.seeds else catch.stage
            click.echo(f"{catch.name:42} {catch.by} ({where}): {catch.what}")
        else:
            click.echo(f"{catch.name:42} SURVIVED: {catch.rule}")
    report = summed(catches)
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
    else:
        click.echo(
            f"{report.caught} of {report.mutants} caught; of {report.visible} that clients can see, "
            f"{report.caught_by_history_alone} by what they saw alone; by seeds after "
            f"{report.seeds_median:g} in the median, {report.seeds_max} at most"
        )
    ctx.exit(5 if report.survived else 0)
