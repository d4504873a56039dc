"""`k2 check history`: verdicts of files."""

from __future__ import annotations

import json
from pathlib import Path

import click

from jepsen_like.checking import MODELS
from jepsen_like.history import HistoryError
from jepsen_like.linearizability.objects import UNSET
from jepsen_like.verdict import Verdict

MALFORMED = 2


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--model", required=True, type=click.Choice(sorted(MODELS)), help="What the object promises."
)
@click.option(
    "--initial",
    metavar="JSON",
    help="The initial value: one for all keys, or a map where keys have their own.",
)
@click.option(
    "--consistency",
    default="strict-serializable",
    show_default=True,
    metavar="MODEL",
    help="The weakest consistency that transactions must have.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="S",
    help="Give up on a file after S seconds: unknown.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a file, on a line.")
@click.option(
    "--explain",
    "pictures",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write an HTML page for every invalid file into DIR.",
)
@click.pass_context
def history(
    ctx: click.Context,
    files: tuple[Path, ...],
    model: str,
    initial: str | None,
    consistency: str,
    timeout: float | None,
    *,
    as_json: bool,
    pictures: Path | None,
) -> None:
    """Check histories in EDN, JSON, our own records, or logs of etcd.

    Exit status: 0 when all are valid, 5 when any is invalid, else 6 when any is unknown, 2 when a file cannot be
    read.
    """
    from jepsen_like.transactions.models import canonical

    try:
        start = UNSET if initial is None else json.loads(initial)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="--initial") from error
    try:
        canonical(consistency)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--consistency") from error
    codes: set[int] = set()
    for file in files:
        verdict = _judge(file, model, start, consistency, timeout)
        codes.add(MALFORMED if verdict is None else verdict.exit_code)
        if verdict is None:
            continue
        _show(file, verdict, as_json=as_json)
        if pictures is not None and verdict.valid is False:
            _draw(file, verdict, model, pictures)
    ctx.exit(next((code for code in (MALFORMED, 5, 6) if code in codes), 0))


def _judge(
    file: Path, model: str, initial: object, consistency: str, timeout_s: float | None
) -> Verdict | None:
    from jepsen_like.files import check_file

    try:
        return check_file(
            file, model=model, consistency=consistency, initial=initial, timeout_s=timeout_s
        )
    except HistoryError as error:
        click.echo(f"{file}: {error}", err=True)
    except OSError as error:
        click.echo(f"{file}: {error.strerror or error}", err=True)
    except (RecursionError, MemoryError):
        click.echo(f"{file}: too deep or too large", err=True)
    return None


def _show(file: Path, verdict: Verdict, *, as_json: bool) -> None:
    if as_json:
        click.echo(
            json.dumps(
                {
                    "file": str(file),
                    "valid": verdict.valid,
                    "anomalies": list(verdict.anomalies),
                    "not": list(verdict.violated),
                    "ops": verdict.operations,
                    "seconds": round(verdict.seconds, 6),
                }
            )
        )
        return
    word = {0: "valid", 5: "INVALID"}.get(verdict.exit_code, "unknown")
    click.echo(f"{file}: {word} ({verdict.operations} operations, {verdict.seconds:.3f} s)")
    if verdict.anomalies:
        click.echo(f"  anomalies: {', '.join(verdict.anomalies)}")
        click.echo(f"  not: {', '.join(verdict.violated)}")
    elif verdict.reason:
        click.echo(f"  {verdict.reason}")
    for finding in verdict.findings:
        click.echo(f"  {finding.name}: {finding.why}")


def _draw(file: Path, verdict: Verdict, model: str, folder: Path) -> None:
    from jepsen_like.explain.page import page_of_file

    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{file.name}.html"
    target.write_text(page_of_file(file, verdict, model))
    click.echo(f"  see {target}", err=True)
