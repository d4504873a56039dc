"""`k2 txn`: a small script as one interactive transaction.

::

    # one statement a line; quotes hold words with spaces together
    get alice
    require bob == 5
    require carol absent
    put bob 7
    delete dave
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Literal, TextIO

import click
from msgspec import Struct

from k2store.cli.reach import StoreVerb, bytes_of, database, shown, stamp_fields, text_of
from k2store.cli.verb import output
from k2store.errors import ConditionFailed, Rejected

if TYPE_CHECKING:
    from k2store.client.transaction import Transaction

Operation = Literal["get", "put", "delete", "require"]


class Statement(Struct, frozen=True):
    """One line of a script.

    require: `value` is what the key must have; None with `present` says whether it must have any.
    """

    line: int
    operation: Operation
    key: bytes
    value: bytes | None = None
    present: bool = True


@click.command("txn", cls=StoreVerb)
@click.argument("script", type=click.File("r", encoding="utf-8"), default="-", metavar="[FILE]")
@click.option(
    "--attempts",
    type=click.IntRange(min=1),
    metavar="N",
    help="Most attempts when it conflicts (client.attempts_max).",
)
async def txn(*, script: TextIO, attempts: int | None) -> None:
    """Run the statements of FILE, or of the standard input, as one transaction.

    Statements: `get KEY`, `put KEY VALUE`, `delete KEY`, `require KEY == VALUE`,
    `require KEY absent`, `require KEY present`. Quotes hold words with spaces together, and a line
    that begins with # is a comment. Reads see the script's own writes. Everything takes effect at
    one stamp, or nothing does: exit code 4 when a requirement does not hold, or when every attempt
    lost to another transaction.
    """
    statements = parse_script(script.read())
    async with database() as db:
        async for transaction in db.transactions(attempts=attempts):
            async with transaction:
                results = [await _run(transaction, each) for each in statements]
    at = transaction.committed_at or transaction.at
    reads = [each for each in results if each["operation"] == "get"]
    lines = [
        f"{each['key']}\t{each['value']}" if each["value"] is not None else f"{each['key']}"
        for each in reads
    ]
    output().document(
        {"committed": True} | stamp_fields(at) | {"results": results},
        "\n".join([*lines, f"committed at {at}"]),
    )


def parse_script(text: str) -> list[Statement]:
    """The statements of a script; `Rejected` names the line that is none."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            found.append(_statement(number, stripped))
    if not found:
        raise Rejected("the script has no statement", field="script")
    return found


def _statement(number: int, line: str) -> Statement:
    # Backslashes belong to the notation of bytes, not to the quotes.
    words = shlex.shlex(line, posix=True, punctuation_chars=False)
    words.whitespace_split, words.escape, words.commenters = True, "", ""
    try:
        match list(words):
            case ["get", key]:
                return Statement(number, "get", bytes_of(key))
            case ["put", key, value]:
                return Statement(number, "put", bytes_of(key), bytes_of(value))
            case ["delete", key]:
                return Statement(number, "delete", bytes_of(key))
            case ["require", key, "==", value]:
                return Statement(number, "require", bytes_of(key), bytes_of(value))
            case ["require", key, ("absent" | "present") as state]:
                return Statement(number, "require", bytes_of(key), present=state == "present")
            case _:
                why = "expected get K, put K V, delete K, require K == V, require K absent|present"
    except ValueError as error:
        why = str(error)
    except Rejected as error:
        why = error.message
    raise Rejected(f"line {number}: {line!r}: {why}", field="script")


async def _run(transaction: Transaction, statement: Statement) -> dict[str, object]:
    key, value = statement.key, statement.value
    match statement.operation:
        case "get":
            value = await transaction.get(key)
        case "put":
            assert value is not None, "a put has a value"
            transaction.put(key, value)
        case "delete":
            transaction.delete(key)
        case "require":
            _check(statement, await transaction.get(key))
    return {"operation": statement.operation, "key": text_of(key), "value": shown(value)}


def _check(statement: Statement, found: bytes | None) -> None:
    wanted = statement.value
    holds = found == wanted if wanted is not None else (found is not None) == statement.present
    if not holds:
        has = "has no value" if found is None else f"has the value {text_of(found)}"
        raise ConditionFailed(
            f"line {statement.line} does not hold: {text_of(statement.key)} {has}; "
            "nothing was written",
            key=statement.key,
            condition=statement.line,
        )
