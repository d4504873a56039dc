"""From files, environment and flags to one checked :class:`Settings`.

Every problem is reported as :class:`SettingsRefused` with the setting, the value and the place it
came from; the first problem ends the load.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from k2store.config.quantity import Duration, Quantity
from k2store.config.settings import Settings
from k2store.config.table import Row, Value, rows, sections
from k2store.errors import Rejected

FILE_NAME: Final = "k2.toml"
FILE_VARIABLE: Final = "K2_CONFIG"
TICK_NS: Final = 256
PAGE_BYTES: Final = 4096


class SettingsRefused(Rejected):
    """A setting does not exist, has the wrong form, or contradicts another; ``field`` names it."""


class Loaded(msgspec.Struct, frozen=True):
    """Settings in force and where each came from.

    ``origins`` maps every path (``clock.bound``) to ``default``, ``file NAME``,
    ``environment VARIABLE`` or ``flag``.
    """

    settings: Settings
    origins: Mapping[str, str]


class Given(msgspec.Struct, frozen=True):
    """One value as somebody wrote it. ``typed`` is False where everything is text."""

    name: str
    value: object
    origin: str
    typed: bool


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Loaded:
    """Settings from defaults, a file, the environment and flags; the later one wins.

    ``path``: a file that must exist; without it ``$K2_CONFIG``, then ``k2.toml`` in the current
    folder if it is there. ``env``: the process environment unless given. ``overrides``: values by
    path (``{"clock.bound": "1ms"}``), as text or as the setting's own type; None means unset.

    Raises :class:`SettingsRefused`.
    """
    environment = os.environ if env is None else env
    values: dict[str, Value] = {}
    origins = dict.fromkeys(rows(), "default")
    for given in _given(path, environment, overrides or {}):
        row = _row(given)
        values[row.path] = _checked(row, given)
        origins[row.path] = given.origin
    settings = _build(values)
    _check_together(settings, origins)
    return Loaded(settings, origins)


def _given(
    path: str | os.PathLike[str] | None, env: Mapping[str, str], overrides: Mapping[str, object]
) -> Iterator[Given]:
    """Everything anybody said, weakest first."""
    file = _find_file(path, env)
    if file is not None:
        yield from _from_file(file)
    for variable in sorted(env):
        if variable.startswith("K2_") and "__" in variable:
            name = variable.removeprefix("K2_").lower().replace("__", ".", 1)
            yield Given(name, env[variable], f"environment {variable}", typed=False)
    for name, value in overrides.items():
        if value is not None:
            yield Given(name, value, "flag", typed=not isinstance(value, str))


def _find_file(path: str | os.PathLike[str] | None, env: Mapping[str, str]) -> Path | None:
    named = path if path is not None else env.get(FILE_VARIABLE) or None
    if named is not None:
        return Path(named)
    return Path(FILE_NAME) if Path(FILE_NAME).exists() else None


def _from_file(path: Path) -> Iterator[Given]:
    origin = f"file {path}"
    try:
        with path.open("rb") as stream:
            content = tomllib.load(stream)
    except OSError as error:
        raise SettingsRefused(f"cannot read {path}: {error.strerror}", field=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsRefused(f"{path} is not TOML: {error}", field=str(path)) from error
    for section, table in content.items():
        if section not in sections():
            raise _unknown(section, list(sections()), "section", origin)
        if not isinstance(table, dict):
            raise SettingsRefused(f"[{section}] must be a table ({origin})", field=section)
        for name, value in table.items():
            yield Given(f"{section}.{name}", value, origin, typed=True)


def _row(given: Given) -> Row:
    row = rows().get(given.name)
    if row is None:
        raise _unknown(given.name, list(rows()), "setting", given.origin)
    return row


def _unknown(name: str, known: list[str], what: str, origin: str) -> SettingsRefused:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else f"; `k2 config show` lists every {what}"
    return SettingsRefused(f"no {what} is called {name} ({origin}){hint}", field=name)


def _checked(row: Row, given: Given) -> Value:
    """The value as the setting's type, inside its bounds."""

    def refuse(why: str) -> SettingsRefused:
        return SettingsRefused(
            f"{row.path} = {given.value!r} ({given.origin}): {why}", field=row.path
        )

    try:
        value = _converted(row, given)
    except ValueError as error:
        raise refuse(str(error)) from None
    if row.choices and value not in row.choices:
        raise refuse(f"expected one of {', '.join(row.choices)}")
    if row.least is not None and value < row.least:  # type: ignore[operator] # a bound means a number
        raise refuse(f"the smallest allowed is {row.about.least}")
    if row.most is not None and value > row.most:  # type: ignore[operator] # a bound means a number
        raise refuse(f"the largest allowed is {row.about.most}")
    return value


def _converted(row: Row, given: Given) -> Value:
    value = given.value
    if issubclass(row.kind, Quantity):
        if isinstance(value, row.kind):
            return value
        if not isinstance(value, str):
            raise ValueError(f'write it with its unit, such as "{row.kind.example}"')
        return row.kind.parse(value)
    if given.typed:
        if type(value) is not row.kind:
            raise ValueError(f"expected {_WORDS[row.kind]}")
        return value
    assert isinstance(value, str), "untyped values are text"
    if row.kind is str:
        return value
    try:
        return msgspec.convert(value.strip().lower(), row.kind, strict=False)
    except msgspec.ValidationError:
        raise ValueError(f"expected {_WORDS[row.kind]}") from None


_WORDS: Final[Mapping[type, str]] = {str: "text", int: "a whole number", bool: "true or false"}


def _build(values: Mapping[str, Value]) -> Settings:
    chosen: dict[str, dict[str, Value]] = {section: {} for section in sections()}
    for path, value in values.items():
        chosen[rows()[path].section][rows()[path].name] = value
    built = {name: kind(**chosen[name]) for name, kind in sections().items()}
    return Settings(**built)  # type: ignore[arg-type] # sections() maps each field to its own type


def _check_together(settings: Settings, origins: Mapping[str, str]) -> None:
    """What no single bound can say. The sum for D is docs/protocol.md §6."""

    def require(holds: bool, path: str, why: str) -> None:  # noqa: FBT001 - reads as a sentence
        if not holds:
            raise SettingsRefused(f"{path} ({origins[path]}): {why}", field=path)

    clock, life, tls = settings.clock, settings.transactions, settings.tls
    require(
        clock.bound <= clock.bound_max,
        "clock.bound_max",
        f"{clock.bound_max} is below clock.bound ({clock.bound}): no stamp would ever be given",
    )
    needed = Duration(clock.bound_max + clock.stamp_ttl + clock.stamp_batch * TICK_NS)
    require(
        clock.ahead_max >= needed,
        "clock.ahead_max",
        f"{clock.ahead_max} is too small; clock.bound_max {clock.bound_max} + clock.stamp_ttl "
        f"{clock.stamp_ttl} + clock.stamp_batch {clock.stamp_batch} x {TICK_NS}ns need {needed}",
    )
    require(
        clock.source != "file" or clock.file != "",
        "clock.file",
        "the source `file` needs the name of a file",
    )
    require(
        life.expiry >= 2 * life.heartbeat,
        "transactions.expiry",
        f"{life.expiry} is below two heartbeats of {life.heartbeat}: one late packet would abort",
    )
    require(
        life.retention >= life.lifetime_max,
        "transactions.retention",
        f"{life.retention} is shorter than transactions.lifetime_max ({life.lifetime_max})",
    )
    longest = settings.limits.deadline_max
    require(
        life.retention > longest,
        "transactions.retention",
        f"{life.retention} is not longer than limits.deadline_max ({longest}): a request that is "
        "sent again must find its outcome",
    )
    cluster = settings.cluster
    require(
        cluster.lease <= cluster.lease_longest,
        "cluster.lease",
        f"{cluster.lease} is longer than cluster.lease_longest ({cluster.lease_longest}), which "
        "bounds what a voter that restarts may have promised",
    )
    require(
        2 * cluster.renew <= cluster.lease,
        "cluster.renew",
        f"two renewals of {cluster.renew} do not fit into cluster.lease ({cluster.lease}): one "
        "late packet would depose a leader",
    )
    require(
        cluster.patience >= cluster.lease,
        "cluster.patience",
        f"{cluster.patience} is shorter than cluster.lease ({cluster.lease}): a candidate would "
        "only wait for the lease",
    )
    segment = settings.storage.segment
    require(
        segment % PAGE_BYTES == 0,
        "storage.segment",
        f"{segment} is not a multiple of {PAGE_BYTES}B, in which disks write",
    )
    require(
        (tls.certificate == "") == (tls.key == ""),
        "tls.key",
        "tls.certificate and tls.key go together",
    )
    require(
        tls.authority == "" or tls.certificate != "",
        "tls.authority",
        "client certificates need tls.certificate and tls.key",
    )
