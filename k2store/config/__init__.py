"""Settings: one frozen tree, four places to say a thing, and no silent surprise.

::

    defaults  <  k2.toml  <  K2_SECTION__FIELD  <  flags          the later one wins
                     │
                     └─ [clock]
                        bound = "500us"

- Every setting is a field of a section of :class:`Settings`, with its text, its smallest and its
  largest value beside it: the same table checks input and makes ``docs/configuration.md``.
- Durations and sizes are typed strings (``"5s"``, ``"500us"``, ``"4GiB"``): a bare number is
  refused, since nobody could say its unit. In code a :class:`Duration` is an ``int`` of
  nanoseconds and a :class:`Size` an ``int`` of bytes.
- A name that does not exist is refused with the nearest one that does, wherever it was written.
- :class:`Loaded` remembers where each value came from; ``k2 config show --origin`` prints it.
- Settings that contradict each other are refused at start, with the sum that does not add up.

Reading: ``load(path, env=..., overrides=...)`` gives ``Loaded(settings, origins)``. Nothing here
reads the process environment or the disk before that call.
"""

from __future__ import annotations

from k2store.config.loading import Loaded, SettingsRefused, load
from k2store.config.quantity import Duration, Size
from k2store.config.settings import (
    Admin,
    Auth,
    Client,
    Clock,
    Limits,
    Logging,
    Node,
    Settings,
    Storage,
    Tls,
    Transactions,
)

__all__ = [
    "Settings",
    "Node",
    "Clock",
    "Transactions",
    "Storage",
    "Limits",
    "Tls",
    "Auth",
    "Admin",
    "Logging",
    "Client",
    "Duration",
    "Size",
    "Loaded",
    "SettingsRefused",
    "load",
]
