"""Fixtures for pytest: a node for the session, and an empty store for each test.

    k2_node         a node process, one for the session (and for each worker of pytest-xdist)
    k2_db           the store of that node, empty, to be opened with ``async with k2_db as db:``
    k2_blocking_db  the same, open, for tests without an event loop

Settings of the node stand in pytest's own configuration::

    k2_settings = ["clock.bound=300us", "limits.value=512KiB"]
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from k2store import blocking
    from k2store.client.database import Database
    from k2store.testing.local import LocalNode

_BATCH = 1_000


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting ``k2_settings``."""
    parser.addini(
        "k2_settings", "settings of the k2store node under test, NAME=VALUE", "linelist", []
    )


@pytest.fixture(scope="session")
def k2_node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalNode]:
    """A node process with a fresh folder; it ends with the session."""
    from k2store.testing.local import local_node

    settings = {}
    for line in request.config.getini("k2_settings"):
        name, equals, value = line.partition("=")
        if not equals:
            raise pytest.UsageError(f"k2_settings: {line!r} is not NAME=VALUE")
        settings[name.strip()] = value.strip()
    with local_node(tmp_path_factory.mktemp("k2-node"), **settings) as node:
        yield node


@pytest.fixture
def k2_db(k2_node: LocalNode) -> Database:
    """The node's store, emptied; ``async with k2_db as db:`` opens it on the test's own loop."""
    with k2_node.blocking() as db:
        empty(db)
    return k2_node.connect()


@pytest.fixture
def k2_blocking_db(k2_node: LocalNode) -> Iterator[blocking.Database]:
    """The node's store, emptied, with the blocking client open."""
    with k2_node.blocking() as db:
        empty(db)
        yield db


def empty(db: blocking.Database) -> None:
    """Delete every key of a store."""
    keys = [record.key for record in db.scan(b"")]
    for first in range(0, len(keys), _BATCH):
        db.transact(writes=[(key, None) for key in keys[first : first + _BATCH]])
