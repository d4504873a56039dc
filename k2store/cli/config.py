"""`k2 config`: what is in force, who said so, and whether a file would be accepted."""

from __future__ import annotations

import click

from k2store.cli.verb import Verb, output, settings
from k2store.config import Loaded, load
from k2store.config.table import Row, rows


@click.group()
def config() -> None:
    """Show and check the settings in force."""


@config.command("show", cls=Verb)
@click.option("--origin", is_flag=True, help="Also say where each value comes from.")
@click.argument("names", nargs=-1, metavar="[SECTION|NAME]...")
def show(names: tuple[str, ...], *, origin: bool) -> None:
    """Print the settings in force: all of them, or those of the sections and names given."""
    loaded = settings()
    wanted = [row for row in rows().values() if _is_wanted(row, names)]
    if not wanted:
        raise click.BadParameter(f"no setting or section is called {' or '.join(names)}")
    if origin:
        table = [(row.path, value_of(loaded, row), loaded.origins[row.path]) for row in wanted]
        output().table("settings", ("setting", "value", "origin"), table)
    else:
        pairs = [(row.path, value_of(loaded, row)) for row in wanted]
        output().table("settings", ("setting", "value"), pairs)


@config.command("check", cls=Verb)
@click.argument("file", type=click.Path(dir_okay=False))
def check(file: str) -> None:
    """Say whether a node would start with FILE, the environment left aside."""
    loaded = load(file, env={})
    said = sum(origin != "default" for origin in loaded.origins.values())
    output().document(
        {"file": file, "valid": True, "settings": said},
        f"{file} is valid: {said} of {len(loaded.origins)} settings given",
    )


def _is_wanted(row: Row, names: tuple[str, ...]) -> bool:
    return not names or row.section in names or row.path in names


def value_of(loaded: Loaded, row: Row) -> str | int | bool:
    """A value in force as a file would have it: quantities as text with their unit."""
    value = getattr(getattr(loaded.settings, row.section), row.name)
    return value if type(value) in (int, bool, str) else str(value)
