"""Structured logs of a node process: one event a line, `noun.verb` with key-value context.

JSON in service, coloured text on a terminal. The logger is made here and handed on: nothing is
configured globally except that warnings of other libraries, gRPC's above all, come out through it
as well. Secrets are never logged: fields with telling names lose their value, whoever wrote them.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog
from structlog.typing import FilteringBoundLogger, Processor

SECRET_NAMES: Final = frozenset(
    {"authorization", "key_file", "password", "private_key", "secret", "token", "value"}
)
"""Fields whose value never leaves the process."""

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def make_logger(stream: TextIO, *, level: str, form: str, **bound: object) -> FilteringBoundLogger:
    """A logger that writes to `stream`; `form` is `auto`, `json` or `text`."""
    text = form == "text" or (form == "auto" and stream.isatty())
    colors = text and stream.isatty()
    processors: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide_secrets,
        structlog.processors.ExceptionPrettyPrinter()
        if text
        else structlog.processors.dict_tracebacks,
        structlog.dev.ConsoleRenderer(colors=colors)
        if text
        else structlog.processors.JSONRenderer(),
    ]
    logger: FilteringBoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(stream),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        context_class=dict,
    )
    return logger.bind(**bound)


def hide_secrets(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Blank the fields that may hold a secret."""
    for name in SECRET_NAMES & event.keys():
        event[name] = "***"
    return event


class Forward(logging.Handler):
    """Hands warnings of libraries that use `logging` to a structured logger."""

    def __init__(self, logger: FilteringBoundLogger) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record as one event."""
        event = "library.errored" if record.levelno >= logging.ERROR else "library.warned"
        self._logger.log(record.levelno, event, library=record.name, message=record.getMessage())
