"""The file of `cluster.dial`: other addresses at which this node reaches its peers.

A line says ``real=dialled``, both as ``host:port``; what stands behind ``#`` is a remark. A peer
without a line is dialled where it says that it is. For networks that translate addresses, and for
the emulated one of the tests.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from k2store.config.loading import SettingsRefused

SETTING: Final = "cluster.dial"


def read_dial(path: str | os.PathLike[str]) -> Mapping[str, str]:
    """Where to dial each address of the file. Raises `SettingsRefused` with the line at fault."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsRefused(f"{SETTING}: cannot read {path}: {error}", field=SETTING) from error
    dialled: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        said = line.partition("#")[0].strip()
        if not said:
            continue
        real, sign, other = (part.strip() for part in said.partition("="))
        for one in (real, other):
            host, _, port = one.rpartition(":")
            if (
                not sign
                or not host
                or "=" in host
                or not port.isdecimal()
                or not 0 < int(port) < 1 << 16
            ):
                raise SettingsRefused(
                    f"{SETTING}: {path}:{number}: expected host:port=host:port, found {said!r}",
                    field=SETTING,
                )
        if dialled.setdefault(real, other) != other:
            raise SettingsRefused(
                f"{SETTING}: {path}:{number}: {real} is dialled at two addresses", field=SETTING
            )
    return MappingProxyType(dialled)


def dial_lines(dialled: Mapping[str, str]) -> str:
    """The text of such a file; `read_dial` reads it back."""
    return "".join(f"{real}={other}\n" for real, other in sorted(dialled.items()))
