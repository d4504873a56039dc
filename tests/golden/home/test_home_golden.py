"""The rules of home leases, one by one, as scripts with their exact transcripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.home import scene
from tests.golden.runner import transcript

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_transcript_is_as_recorded(path: Path, *, update: bool) -> None:
    """Each command of the script brings about exactly what the script says."""
    text = path.read_text(encoding="utf-8")
    now = transcript(text, scene.Scene(), scene.run)
    if update:
        path.write_text(now, encoding="utf-8")
    else:
        assert now == text
