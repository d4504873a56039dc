"""Every example runs against a real node and prints what it promises."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

import pytest

from k2store.testing import LocalNode

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PRINTS = {
    "exactly_once": "10 events, 4 readers one after the other, 10 counted",
    "lease": "3 holders, tokens grow: True",
    "transfer": "10 accounts hold 1000 together",
    "typed_records": "kept: ConditionFailed\nBlock(tier='disk', bytes=4096)",
}


def example(name: str) -> ModuleType:
    """The module in a file of the folder."""
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_run() -> None:
    """No file of the folder is left out here."""
    assert {path.stem for path in EXAMPLES.glob("*.py")} == PRINTS.keys() | {"embedded"}


@pytest.mark.parametrize("name", sorted(PRINTS))
def test_example(name: str, k2_node: LocalNode, capsys: pytest.CaptureFixture[str]) -> None:
    """An example against a node prints its last lines as they stand here."""
    done = example(name).main(k2_node.address)
    if inspect.iscoroutine(done):
        asyncio.run(done)
    assert capsys.readouterr().out.strip() == PRINTS[name]


def test_embedded_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The embedded store keeps its rows from one opening to the next."""
    module = example("embedded")
    module.main(tmp_path)
    module.main(tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        "run 1; the store remembers 1 of them",
        "run 2; the store remembers 2 of them",
    ]
