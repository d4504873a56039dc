"""`docs/configuration.md`, made from the table of settings."""

from __future__ import annotations

import inspect
from typing import Final

from k2store.config.quantity import Duration, Size
from k2store.config.table import Row, rows, sections

_HEAD: Final = """\
# Configuration

*Made from the table in `k2store/config/settings.py` by `./k2 docs`; edit there.*

A setting has a default. `k2.toml` in the current folder overrides it (`--config FILE` or
`K2_CONFIG` name another file), the environment overrides the file, and flags override both. A name
that does not exist, in whichever of these places, is refused with the nearest one that does, and
so are settings that contradict each other.

```toml
# k2.toml
[node]
name = "fra-1"
listen = "10.0.0.7:7400"

[clock]
bound = "300us"
```

```sh
export K2_CLOCK__BOUND=300us              # K2_SECTION__FIELD
k2 --set clock.bound=300us config show    # any setting as a flag, before the verb
k2 config show --origin                   # what is in force, and who said so
k2 config check k2.toml                   # exit code 0: a node would start with it
```

Durations (`ns`, `us`, `ms`, `s`, `m`, `h`, `d`) and sizes (`B`, `KiB`, `MiB`, `GiB`, `TiB`) are
text with a unit; parts add up (`"1m30s"`). Bounds are inclusive.
"""

_KINDS: Final = {
    str: "text",
    int: "number",
    bool: "true or false",
    Duration: "duration",
    Size: "size",
}


def render() -> str:
    """The whole page."""
    parts = [_HEAD]
    for section, kind in sections().items():
        parts.append(f"## `[{section}]`\n\n{inspect.getdoc(kind)}\n")
        parts.append(
            "| setting | kind | default | from | to | meaning |\n|---|---|---|---|---|---|"
        )
        parts += [_line(row) for row in rows().values() if row.section == section]
        parts[-1] += "\n"
    return "\n".join(parts)


def _line(row: Row) -> str:
    kind = " or ".join(f"`{choice}`" for choice in row.choices) or _KINDS[row.kind]
    default = str(row.default).lower() if row.kind is bool else str(row.default)
    cells = [
        f"`{row.name}`",
        kind,
        f"`{default}`" if default else "empty",
        row.about.least or "",
        row.about.most or "",
        row.about.text,
    ]
    return "| " + " | ".join(cells) + " |"
