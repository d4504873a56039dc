"""The `k2` command: one verb a file, imported only when it is called.

::

    k2 [--config FILE] [--set NAME=VALUE]...  VERB  [--json] [-q] ...

A verb is a :class:`~k2store.cli.verb.Verb` in a module of its own, listed in
:mod:`k2store.cli.verbs`; packages above the store add theirs through the entry-point group
``k2.commands``. Listing the verbs imports neither gRPC nor RocksDB, so `k2 --help` is quick and
works in the light install.

What holds for every verb:

- ``--json`` gives one document (or one line a record, where records stream) on the output stream;
  progress and errors go to the error stream. ``-q`` drops the progress. ``NO_COLOR`` is honoured.
- Keys and values are bytes. They are read and shown as text in which a byte that is no printable
  UTF-8 stands as ``\\xNN`` and a backslash as ``\\\\``.
- The exit code says what happened: see :mod:`k2store.cli.exits`.
"""

from __future__ import annotations

from k2store.cli.group import main

__all__ = ["main"]
