"""Formats log lines as text or JSON and writes them to standard error.

A line is a short message and named fields. Credentials are never among the fields (I3), and the
types that hold credentials hide them in `repr`.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum

LOGGER_NAME = "xoauth2_proxy"


class LogFormat(StrEnum):
    """The format of the log: text for people, JSON for programs."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The minimum level to log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class FieldLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose keyword arguments are the line's fields."""

    def is_enabled(self, level: int) -> bool:
        """Whether lines at this level are written."""
        return self.logger.isEnabledFor(level)

    def event(self, level: int, message: str, **fields: object) -> None:
        """Write `message` with `fields` if `level` is enabled."""
        if self.logger.isEnabledFor(level):
            self.logger.log(level, message, extra={"fields": fields})


def logger(name: str) -> FieldLogger:
    """Return the logger of one part of the relay, e.g. `logger("session")`."""
    return FieldLogger(logging.getLogger(f"{LOGGER_NAME}.{name}"))


def configure(level: LogLevel, log_format: LogFormat) -> None:
    """Send the relay's log lines to standard error.

    Third-party loggers stay at WARNING: aiosmtpd writes whole command lines at INFO.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_without_quotation)
    handler.setFormatter(_JsonFormatter() if log_format is LogFormat.JSON else _TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger(LOGGER_NAME).setLevel(level.upper())
    # aiosmtpd logs through "mail.log", whose level other libraries may have changed.
    logging.getLogger("mail").setLevel(logging.ERROR)


def _without_quotation(record: logging.LogRecord) -> bool:
    """Drop aiohttp's error from a line about an unreadable request, since it quotes the request."""
    if record.exc_info and type(record.exc_info[1]).__module__ == "aiohttp.http_exceptions":
        record.exc_info = None
    return True


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return getattr(record, "fields", {})


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        fields = "".join(f" {key}={_quoted(value)}" for key, value in _fields(record).items())
        line = f"{moment}Z {record.levelname:<7} {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{key: _rounded(value) for key, value in _fields(record).items()},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        text = json.dumps(line, default=str, ensure_ascii=False)
        # Else what clients send would move a terminal's cursor, or end a line for some readers.
        return text if text.isprintable() else json.dumps(line, default=str)


def _rounded(value: object) -> object:
    return round(value, 6) if isinstance(value, float) else value


def _quoted(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    # A control character in a value could move a terminal's cursor or forge a line.
    is_plain = text.isprintable() and not set(text) & set(' "=')
    return text if text and is_plain else json.dumps(text)
