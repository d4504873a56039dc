"""`k2` itself: the options before the verb, and the verb found by its name."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from k2store.cli.exits import Exit, tell
from k2store.cli.extras import missing_extra
from k2store.cli.verb import say_settings
from k2store.cli.verbs import Place, places


class Verbs(click.Group):
    """A group that imports a verb when it is called, not when it is listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all verbs."""
        return sorted(places())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb of that name, imported now."""
        place = places().get(cmd_name)
        return None if place is None else _import(cmd_name, place)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs, from the table alone."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, place.summary) for name, place in sorted(places().items())])


def _import(name: str, place: Place) -> click.Command:
    module, _, attribute = place.target.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command), f"verb {name}: {place.target} is no click command"
    return command


def _assignment(
    ctx: click.Context, param: click.Parameter, values: Sequence[str]
) -> dict[str, str]:
    """`--set NAME=VALUE` options as one mapping."""
    said = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE", ctx, param)
        said[name.strip()] = text.strip()
    return said


@click.group(
    cls=Verbs,
    subcommand_metavar="VERB [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 unavailable, 4 conflict, 5 check failed or "
    "data damaged, 6 outcome unknown.",
)
@click.option("--config", "path", metavar="FILE", help="Settings file, instead of k2.toml.")
@click.option(
    "--set",
    "overrides",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_assignment,
    help="A setting, such as clock.bound=300us; may be repeated.",
)
@click.version_option(package_name="k2store", prog_name="k2")
@click.pass_context
def k2(ctx: click.Context, path: str | None, overrides: dict[str, str]) -> None:
    """K2store: a transactional, multi-version metadata store."""
    say_settings(ctx, path, overrides)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `k2` and end the process with its exit code."""
    try:
        sys.exit(k2.main(arguments, prog_name="k2", standalone_mode=False) or Exit.OK)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        tell(missing, as_json=False)
        sys.exit(missing.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(Exit.INTERRUPTED)
    except BrokenPipeError:
        # Whoever read has read enough (`k2 scan | head`); what is left to flush goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.FAILED)
