"""Pages by example: their shape, memory on disk, and the arena of single layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import k2store
from serving.pages.arena import Arena
from serving.pages.geometry import Geometry
from serving.pages.memory import Memory
from serving.pages.store import PageStore

GEOMETRY = Geometry(layers=3, kv_heads=2, head_dim=4, page_tokens=2)


def test_a_page_of_smollm_is_one_copy_of_720_kib() -> None:
    """The size of a page is that of all its layers, and a shape that is none is refused."""
    smollm = Geometry(layers=30, kv_heads=3, head_dim=64)
    assert smollm.page_bytes == 737_280
    assert smollm.page_shape == (30, 2, 16, 3, 64)
    assert Geometry(layers=30, kv_heads=3, head_dim=64, dtype="bfloat16").page_bytes == 368_640
    assert len({smollm.layout, GEOMETRY.layout}) == 2
    with pytest.raises(ValueError, match="head_dim"):
        Geometry(layers=1, kv_heads=1, head_dim=0)
    with pytest.raises(ValueError, match="int3"):
        Geometry(layers=1, kv_heads=1, head_dim=2, dtype="int3")


def test_a_disk_tier_is_a_private_file_that_goes_with_its_pool(tmp_path: Path) -> None:
    """What is written to the tensor is in the file, which others may not read and nobody finds later."""
    path = tmp_path / "pages" / "disk"
    store = PageStore(GEOMETRY, 2, memory=Memory(2 * GEOMETRY.page_bytes, path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_blocks * 512 >= 2 * GEOMETRY.page_bytes
    store.tensor[1] = 1.0
    assert path.read_bytes()[-4:] == torch.tensor(1.0).numpy().tobytes()
    store.close()
    assert not path.exists()


def test_a_path_that_cannot_hold_pages_is_refused(tmp_path: Path) -> None:
    """A file where a folder must be, and more bytes than the disk has, are told by name."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(k2store.Rejected, match="file/pages"):
        Memory(10, tmp_path / "file" / "pages")
    with pytest.raises(k2store.Rejected, match="cannot hold"):
        Memory(1 << 60, tmp_path / "pages")
    assert not (tmp_path / "pages").exists()


def test_the_arena_gives_single_layers_and_packs_them() -> None:
    """Pages are their owner's until given back; one page of each layer makes an ordinary page."""
    arena = Arena(GEOMETRY, 5)
    mine = [arena.take(7) for _ in range(3)]
    other = arena.take(8)
    arena.check_integrity()
    for layer, page in enumerate(mine):
        arena.tensor[page] = float(layer + 1)
    whole = torch.zeros(GEOMETRY.page_shape)
    arena.pack(mine, whole)
    assert [layer.unique().tolist() for layer in whole] == [[1.0], [2.0], [3.0]]
    arena.give_back(mine[1], 7)
    assert arena.free_pages == 2
    assert arena.take(8) == mine[1]
    arena.take(9)
    with pytest.raises(k2store.Overloaded) as caught:
        arena.take(9)
    assert caught.value.limit == "arena"
    assert (arena.release(7), arena.release(8), arena.release(9)) == (2, 2, 1)
    assert arena.free_pages == 5
    assert other < 5
    arena.check_integrity()
