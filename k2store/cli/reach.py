"""Verbs that talk to a store: where it is, who asks, and how bytes are written down.

::

    @click.command("get", cls=StoreVerb)
    @click.argument("key", type=KEY)
    async def get(key: bytes) -> None:
        \"\"\"Read one key.\"\"\"
        async with database() as db:
            value = await db.get(key)

A :class:`StoreVerb` has, beyond what every verb has, the options that say which node is asked and
with which credentials, and ``--hex`` and ``--base64`` for keys and values that are no text. Its
callback is a coroutine function, run to its end on an event loop of its own.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from k2store.cli.notation import parse, show
from k2store.cli.remote import token_of
from k2store.cli.verb import Verb, settings
from k2store.errors import Rejected
from truetime import timestamp

if TYPE_CHECKING:
    from k2store.client.connect import Tls
    from k2store.client.database import Database
    from k2store.client.ranges import KeyRange
    from k2store.client.snapshot import View

_FORM: Final = "k2store.form"
_SAID: Final = "k2store.reach"
_SETTINGS: Final = {
    "address": "client.endpoint",
    "token": "client.token",
    "ca": "client.authority",
    "timeout": "client.deadline",
}


class StoreVerb(Verb):
    """A verb with a store to talk to; its callback is a coroutine function."""

    def __init__(self, *arguments: object, **options: object) -> None:
        callback = options.get("callback")
        assert asyncio.iscoroutinefunction(callback), "a store verb is an async function"
        super().__init__(*arguments, **(options | {"callback": _to_its_end(callback)}))
        self.params += [
            click.Option(
                ["--address", "--endpoint", "address"],
                metavar="HOST:PORT[,...]",
                help="The store (client.endpoint).",
            ),
            click.Option(
                ["--token"], metavar="FILE", help="File with a bearer token (client.token)."
            ),
            click.Option(
                ["--ca"], metavar="FILE", help="Authority of a TLS store (client.authority)."
            ),
            click.Option(
                ["--timeout"], metavar="DURATION", help="Deadline of a call (client.deadline)."
            ),
            _form_option("hex", "Read and show keys and values as hexadecimal."),
            _form_option("base64", "Read and show keys and values as Base64."),
        ]

    def invoke(self, ctx: click.Context) -> object:
        """Keep what was said about the store, then run the verb."""
        ctx.meta[_SAID] = {
            path: said
            for name, path in _SETTINGS.items()
            if (said := ctx.params.pop(name)) is not None
        }
        return super().invoke(ctx)


@dataclass(frozen=True)
class Reach:
    """Where the store is, and how it is spoken to."""

    address: str
    tls: Tls | None
    token: str | None
    timeout_s: float
    attempts_max: int


def reach() -> Reach:
    """What the settings and the verb's own options say."""
    from k2store.client.connect import Tls

    loaded = settings(click.get_current_context().meta[_SAID]).settings
    client = loaded.client
    tls = None
    if client.authority:
        tls = Tls(
            authority=client.authority,
            certificate=client.certificate or None,
            key=client.key or None,
        )
    token = token_of(loaded)
    return Reach(client.endpoint, tls, token, client.deadline.seconds, client.attempts_max)


def database() -> Database:
    """The store that the settings and the verb's own options name, for ``async with``."""
    from k2store.client.connect import connect
    from k2store.client.settings import ClientSettings

    found = reach()
    return connect(
        found.address,
        timeout=found.timeout_s,
        token=found.token,
        tls=found.tls,
        name="k2",
        settings=ClientSettings(attempts_max=found.attempts_max),
    )


def view_of(db: Database, at: int | None) -> View:
    """The store at a past stamp, or at a fresh one; `Rejected` for a stamp that lies ahead."""
    if at is None:
        return db.snapshot(strong=True)
    # A stamp ahead of true time would be waited for. What lies ahead by less than a call may take
    # is a stamp that this machine has just been told, so waiting for it is right.
    now_ns = db.session.bounded_time.lower_ns()
    if now_ns and timestamp.time_ns(at) > now_ns + int(db.timeout_s * 1e9):
        raise Rejected(f"{timestamp.describe(at)} lies in the future", field="at")
    return db.snapshot(at=at)


# ---------------------------------------------------------------------------- bytes and stamps


class _Cell(click.ParamType):  # type: ignore[type-arg] # generic in newer click only
    """An argument that is bytes, in the form that the verb was asked to use."""

    name = "bytes"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> bytes:
        """The bytes that the text names."""
        if isinstance(value, bytes):
            return value
        try:
            return bytes_of(str(value))
        except Rejected as error:
            self.fail(error.message, param, ctx)


class _Stamp(click.ParamType):  # type: ignore[type-arg] # generic in newer click only
    """A stamp as a number or in its human form, or a time."""

    name = "stamp"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """The stamp that the text names; a time is the boundary just below it."""
        if isinstance(value, int):
            return value
        try:
            stamp = timestamp.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if stamp == timestamp.ZERO:
            self.fail("0 is no stamp: it lies before all of them", param, ctx)
        return stamp


KEY: Final = _Cell()
VALUE: Final = _Cell()
STAMP: Final = _Stamp()


def bytes_of(text: str) -> bytes:
    """The bytes that a text of the command line names; `Rejected` when it names none."""
    form = _form()
    try:
        if form == "hex":
            return bytes.fromhex(text)
        if form == "base64":
            return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise Rejected(f"{text!r} is not {form}: {error}", field="key") from None
    return parse(text)


def text_of(data: bytes) -> str:
    """Bytes as the verb was asked to show them; `bytes_of` reads it back."""
    form = _form()
    if form == "hex":
        return data.hex()
    if form == "base64":
        return base64.b64encode(data).decode("ascii")
    return show(data)


def shown(value: bytes | None) -> str | None:
    """A value that may be missing, as text."""
    return None if value is None else text_of(value)


def stamp_fields(at: int) -> dict[str, object]:
    """A stamp in a document: the number, and the same for people."""
    return {"at": at, "time": timestamp.describe(at)}


def chosen_range(prefix: bytes | None, start: bytes | None, end: bytes | None) -> KeyRange:
    """The range that PREFIX, or --start and --end, name; everything when none is given."""
    from k2store.client.ranges import KeyRange
    from k2store.client.ranges import prefix as beginning_with

    if prefix is not None:
        if start is not None or end is not None:
            raise click.UsageError("give a PREFIX or --start and --end, not both")
        return beginning_with(prefix)
    if start is not None and end is not None and end <= start:
        raise click.UsageError("--end must be larger than --start")
    return KeyRange(start or b"", end or b"")


def _form() -> str:
    form: str = click.get_current_context().meta.get(_FORM, "text")
    return form


def _form_option(form: str, text: str) -> click.Option:
    """An option that is read before the arguments, which it says how to read."""

    def choose(ctx: click.Context, _: click.Parameter, given: bool) -> None:  # noqa: FBT001
        if not given:
            return
        if ctx.meta.get(_FORM, form) != form:
            raise click.UsageError("give --hex or --base64, not both")
        ctx.meta[_FORM] = form

    return click.Option(
        [f"--{form}"], is_flag=True, is_eager=True, expose_value=False, callback=choose, help=text
    )


def _to_its_end(
    function: Callable[..., Coroutine[Any, Any, None]],
) -> Callable[..., None]:
    @functools.wraps(function)
    def call(*arguments: object, **options: object) -> None:
        asyncio.run(function(*arguments, **options))

    return call
