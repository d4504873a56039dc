"""A verb of `k2`: a click command with the options that every verb has.

::

    @click.command("get", cls=Verb)
    @click.argument("key", type=KEY)
    def get(key: bytes) -> None:
        \"\"\"Read one key.\"\"\"
        ...
        output().document({"key": key, "value": value}, show(value))

A failure that is a :class:`~k2store.errors.K2Error` is told once and ends the run with its code;
anything else is a fault of ours and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import click

from k2store.cli.exits import tell
from k2store.cli.extras import missing_extra
from k2store.cli.notation import parse
from k2store.cli.output import Output
from k2store.config import Loaded, load
from k2store.errors import K2Error, Rejected

_OUTPUT: Final = "k2store.output"
_SAID: Final = "k2store.said"


class Verb(click.Command):
    """A command with ``--json`` and ``-q``, and failures told as exit codes."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type] # click's own signature
        self.params += [
            click.Option(
                ["--json", "as_json"],
                is_flag=True,
                help="Print JSON instead of text.",
            ),
            click.Option(
                ["-q", "--quiet", "quiet"],
                is_flag=True,
                help="Print results only, no progress.",
            ),
        ]

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb; a failure of the store ends the run with the code of its class."""
        wanted = Output(as_json=ctx.params.pop("as_json"), quiet=ctx.params.pop("quiet"))
        ctx.meta[_OUTPUT] = wanted
        try:
            return super().invoke(ctx)
        except K2Error as error:
            tell(error, as_json=wanted.as_json)
            ctx.exit(error.exit_code)
        except ModuleNotFoundError as error:
            missing = missing_extra(error)
            if missing is None:
                raise
            tell(missing, as_json=wanted.as_json)
            ctx.exit(missing.exit_code)


class Bytes(click.ParamType):  # type: ignore[type-arg] # generic in newer click only
    """An argument that is bytes, in the notation of :mod:`k2store.cli.notation`."""

    name = "bytes"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> bytes:
        """The bytes that the text names."""
        if isinstance(value, bytes):
            return value
        try:
            return parse(str(value))
        except Rejected as error:
            self.fail(error.message, param, ctx)


KEY: Final = Bytes()
VALUE: Final = Bytes()


def output() -> Output:
    """The output of the verb that is running."""
    found = click.get_current_context().meta[_OUTPUT]
    assert isinstance(found, Output), "only a Verb has an output"
    return found


def say_settings(ctx: click.Context, path: str | None, overrides: Mapping[str, object]) -> None:
    """Remember what the options before the verb said of the settings."""
    ctx.meta[_SAID] = (path, dict(overrides))


def settings(overrides: Mapping[str, object] | None = None) -> Loaded:
    """The settings in force: defaults, file, environment, options before the verb, then its own.

    ``overrides``: values by path from the verb's own options; None means the option was not given.
    """
    path, said = click.get_current_context().meta.get(_SAID, (None, {}))
    own = {name: value for name, value in (overrides or {}).items() if value is not None}
    return load(path, overrides=said | own)
