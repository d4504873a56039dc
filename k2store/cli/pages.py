"""Pages about what a user meets: `docs/cli.md` from the verbs, `docs/errors.md` from the tree."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Final

import click

from k2store.cli import exits
from k2store.cli.group import k2
from k2store.errors import CLASSES, K2Error, Retry

_CLI_HEAD: Final = """\
# Command line

*Made from the verbs themselves by `./k2 docs`.*

`k2 [--config FILE] [--set NAME=VALUE]... VERB ...`. Every verb takes `--json` (one document, or a
line a record where records stream; progress and failures go to the error stream), `-q` (no
progress) and `--help`. `NO_COLOR` is honoured. Keys and values are shown and read as text, in which
a byte that is no printable UTF-8 stands as `\\xNN` and a backslash as `\\\\`.

Completion: `eval "$(_K2_COMPLETE=bash_source k2)"`, likewise `zsh_source` and `fish_source`.
"""

_ERRORS_HEAD: Final = """\
# Errors

*Made from `k2store/errors.py` by `./k2 docs`.*

Every failure is a class of one tree under `K2Error`, in process, over the wire and on the command
line. Nobody parses messages: a class has a retry class and structured fields. Over gRPC the class
travels as `google.rpc.ErrorInfo` (domain `k2store`, reason = the class) beside a standard code.

| error | meaning | retry | gRPC code | exit | fields |
|---|---|---|---|---|---|
"""

_RETRIES: Final = {
    Retry.NOW: "now, with a later timestamp; `transactions()` does it",
    Retry.LATER: "later, after `retry_after_s` where given",
    Retry.RESOLVE: "only after asking for the outcome; `transactions()` does it",
    Retry.NEVER: "not at all: the same again fails again",
    Retry.CALLER: "as the caller likes",
}


def errors() -> str:
    """The page of errors."""
    from google.rpc import code_pb2

    from k2store.rpc.status import CODES

    lines = [_ERRORS_HEAD.rstrip("\n")]
    for kind in CLASSES:
        fields = ", ".join(f"`{name}`" for name in kind.fields)
        code = code_pb2.Code.Name(CODES[kind])
        meaning = _sentence(kind)
        lines.append(
            f"| `{kind.__name__}` | {meaning} | {kind.retry.value} | `{code}` "
            f"| {kind.exit_code} | {fields} |"
        )
    lines += ["", "| retry | means |", "|---|---|"]
    lines += [f"| {retry.value} | {text} |" for retry, text in _RETRIES.items()]
    return "\n".join([*lines, "", *_exit_codes()]) + "\n"


def _sentence(kind: type[K2Error]) -> str:
    """The whole docstring of an error in one line."""
    return " ".join((inspect.getdoc(kind) or "").split()).replace("``", "`")


def _exit_codes() -> Iterator[str]:
    """The table of exit codes, as it stands in the docstring of its module."""
    yield "## Exit codes of `k2`"
    yield ""
    yield "| code | meaning |"
    yield "|---|---|"
    for code, meaning in re.findall(r"^(\d+) +(\S.*)$", exits.__doc__ or "", re.MULTILINE):
        yield f"| {code} | {meaning} |"


def commands() -> str:
    """The page of verbs."""
    parts = [_CLI_HEAD]
    context = click.Context(k2, info_name="k2")
    for name in k2.list_commands(context):
        command = k2.get_command(context, name)
        assert command is not None, f"a listed verb exists: {name}"
        parts += _sections(command, context, name)
    return "\n".join(parts)


def _sections(command: click.Command, above: click.Context, name: str) -> Iterator[str]:
    """A verb and the verbs below it, each with its usage and options."""
    context = click.Context(command, info_name=name, parent=above)
    level = 1 + len(context.command_path.split())
    yield f"{'#' * min(level - 1, 4)} `{context.command_path}`\n"
    if isinstance(command, click.Group):
        yield _prose(command)
        for inner in command.list_commands(context):
            below = command.get_command(context, inner)
            assert below is not None, f"a listed verb exists: {inner}"
            yield from _sections(below, context, inner)
        return
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{context.command_path} {usage}\n```\n"
    yield _prose(command)
    own = [
        record
        for parameter in command.params
        if isinstance(parameter, click.Option)
        and parameter.name not in {"as_json", "quiet"}
        and (record := parameter.get_help_record(context)) is not None
    ]
    if own:
        yield "| option | |\n|---|---|"
        yield "\n".join(f"| `{_cell(option)}` | {_cell(text)} |" for option, text in own) + "\n"


def _prose(command: click.Command) -> str:
    """The help text, its lines joined into paragraphs."""
    paragraphs = inspect.cleandoc(command.help or "").replace("\b", "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
