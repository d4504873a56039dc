"""A store in the test's own process: the engine, the log and the settled state, without a network."""

from __future__ import annotations

import contextlib
import os
import tempfile
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from k2store import blocking
    from k2store.client.database import Database
    from k2store.config import Settings


def embedded(path: str | os.PathLike[str] | None = None, **settings: object) -> Embedded:
    """A store in this process, for ``with`` (blocking) or ``async with``; gives the client.

    path      folder of the data; without one it is a folder that is removed at the end
    settings  of the engine, with two underscores for the dot: ``storage__sync=False``
    """
    return Embedded(path, settings)


class Embedded:
    """See `embedded`; used once."""

    def __init__(self, path: str | os.PathLike[str] | None, settings: dict[str, object]) -> None:
        self._path = path
        self._said = {name.replace("__", "."): one for name, one in settings.items()}
        self._stack = contextlib.ExitStack()
        self._async: AbstractAsyncContextManager[Database] | None = None

    def __enter__(self) -> blocking.Database:
        from k2store.embedded import open as open_blocking

        try:
            store = open_blocking(self._folder(), settings=self._settings())
            return self._stack.enter_context(store)
        except BaseException:
            self._stack.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    async def __aenter__(self) -> Database:
        from k2store.embedded import open_async

        try:
            self._async = open_async(self._folder(), settings=self._settings())
            return await self._async.__aenter__()
        except BaseException:
            self._stack.close()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._async is not None, "entered before it is left"
        try:
            await self._async.__aexit__(kind, error, trace)
        finally:
            self._stack.close()

    def _folder(self) -> str:
        if self._path is not None:
            return os.fspath(self._path)
        return self._stack.enter_context(tempfile.TemporaryDirectory(prefix="k2-store-"))

    def _settings(self) -> Settings:
        from k2store.config import load

        return load(env={}, overrides={"storage.segment": "4MiB"} | self._said).settings
