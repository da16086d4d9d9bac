"""An event loop that outlives the inputs, and what was complained about in the meantime."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from xoauth2_proxy.log import LOGGER_NAME

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, "fields", "")
        text = f"logged: {record.getMessage()} {fields}"
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self.records.append(text)


class Harness:
    """Runs coroutines one after the other on one event loop of asyncio's own."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._errors = _Errors()
        self._loggers = [logging.getLogger(name) for name in (LOGGER_NAME, "mail", "asyncio")]
        self._levels = [(one.level, one.propagate) for one in self._loggers]
        for one in self._loggers:
            one.addHandler(self._errors)
            one.setLevel(logging.ERROR)
            one.propagate = False
        self._runner.get_loop().set_exception_handler(self._on_loop_error)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def complaints(self) -> list[str]:
        """Return what was logged as an error since the last time, and what nobody caught."""
        found, self._errors.records = self._errors.records, []
        return found

    def close(self) -> None:
        self._runner.close()
        for one, (level, propagate) in zip(self._loggers, self._levels, strict=True):
            one.removeHandler(self._errors)
            one.setLevel(level)
            one.propagate = propagate

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        # TLS that fails in the midst of a handshake is the other end's doing.
        self._errors.records.append(f"uncaught: {context['message']} {error!r}")
