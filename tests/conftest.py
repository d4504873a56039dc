"""What every kind of test shares: the `--update` switch and the depth of property tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# A profile says how many examples a property gets. `K2_HYPOTHESIS=nightly ./k2 test` digs deeper.
settings.register_profile(
    "default",
    max_examples=50,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("ci", settings.get_profile("default"), max_examples=200)
settings.register_profile("nightly", settings.get_profile("default"), max_examples=20_000)
settings.load_profile(os.environ.get("K2_HYPOTHESIS", "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--update`: golden transcripts and generated pages are rewritten instead of compared."""
    parser.addoption(
        "--update",
        action="store_true",
        default=False,
        help="rewrite golden transcripts and generated pages instead of comparing them",
    )


@pytest.fixture
def update(request: pytest.FixtureRequest) -> bool:
    """Whether this run rewrites what it would otherwise compare."""
    return bool(request.config.getoption("--update"))
