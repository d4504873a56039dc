"""A disk whose power can be cut, for tests; it is proved to work before anybody gets it.

Where it is not possible the tests are skipped with the reason; with K2_REQUIRE_POWER_CUT=1 they fail
instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

from k2store.testing.disk_image import DiskImage, open_disks


def _cannot(reason: str) -> NoReturn:
    if os.environ.get("K2_REQUIRE_POWER_CUT") == "1":
        pytest.fail(f"power cuts are required but not possible: {reason}")
    pytest.skip(f"NO POWER CUT WAS TESTED: {reason}")


@pytest.fixture
def power(tmp_path: Path) -> Iterator[DiskImage]:
    """A mounted file system that has survived one cut already; its image lies on the real disk."""
    with ExitStack() as stack:
        try:
            disks = stack.enter_context(open_disks(("power",), folder=tmp_path))
        except OSError as error:
            _cannot(str(error))
        yield disks["power"]
