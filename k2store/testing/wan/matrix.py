"""How far apart well-known regions are: round trips between them, in milliseconds.

The figures are magnitudes, rounded to five milliseconds, of what providers and public
looking-glass pages tell about links between the cities; they are not measurements of ours, and a
route may take a third more on a bad day. Regions are named by the nearest airport.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from k2store.errors import Rejected

PLACES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "bom": "Mumbai",
        "fra": "Frankfurt",
        "gru": "São Paulo",
        "iad": "Northern Virginia",
        "lhr": "London",
        "nrt": "Tokyo",
        "pdx": "Oregon",
        "sin": "Singapore",
        "syd": "Sydney",
    }
)
"""The regions of the table, and where they are."""

DEFAULT_REGIONS: Final = ("fra", "iad", "sin")
"""Three regions on three continents: 45, 80 and 110 ms apart, one way."""

_ORDER: Final = ("fra", "lhr", "iad", "pdx", "gru", "bom", "sin", "nrt", "syd")
_ROWS: Final = (
    # fra  lhr  iad  pdx  gru  bom  sin  nrt
    (15,),  # lhr
    (90, 75),  # iad
    (145, 130, 65),  # pdx
    (205, 190, 115, 175),  # gru
    (115, 115, 190, 215, 300),  # bom
    (160, 170, 220, 165, 325, 60),  # sin
    (225, 215, 150, 95, 260, 125, 70),  # nrt
    (285, 270, 200, 140, 310, 150, 95, 105),  # syd
)

ROUND_TRIPS_MS: Final[Mapping[frozenset[str], float]] = MappingProxyType(
    {
        frozenset((_ORDER[row + 1], _ORDER[column])): float(cell)
        for row, cells in enumerate(_ROWS)
        for column, cell in enumerate(cells)
    }
)
"""Round trip of each pair of `PLACES`."""


def round_trip_ms(
    one: str, other: str, own: Mapping[frozenset[str], float] = ROUND_TRIPS_MS
) -> float:
    """Round trip between two regions; 0 inside one. `own` holds other figures than the table's.

    Raises `Rejected` for a pair that the table does not have.
    """
    if one == other:
        return 0.0
    found = own.get(frozenset((one, other)))
    if found is None:
        known = ", ".join(sorted(PLACES))
        raise Rejected(
            f"no round trip is known between {one} and {other}; the table has {known}",
            field="regions",
        )
    return found
