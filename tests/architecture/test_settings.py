"""Settings are no decoration: somebody reads each of them."""

from __future__ import annotations

import ast

from k2store.config.table import rows
from tests.architecture.tree import python_files, tree


def test_every_setting_is_read() -> None:
    """Each setting's name is read as an attribute somewhere in the store, outside its table."""
    read = {
        node.attr
        for path in python_files("k2store")
        if not path.startswith("k2store/config/")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute)
    }
    idle = [row.path for row in rows().values() if row.name not in read]
    assert not idle, f"nobody reads {idle}: use them or delete them"
