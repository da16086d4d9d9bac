"""Log lines: one line a record, whatever is in its fields."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoauth2_proxy import log

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOMENT = datetime(2026, 11, 20, 6, 30, 1, 250_000, tzinfo=UTC)


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Put back what `configure` changes for the whole process."""
    touched = [logging.getLogger(name) for name in (None, log.LOGGER_NAME, "mail")]
    before = [(one, one.level, list(one.handlers)) for one in touched]
    yield
    for one, level, handlers in before:
        one.setLevel(level)
        one.handlers[:] = handlers


def formatted(log_format: log.LogFormat, message: str = "hello", **fields: object) -> str:
    """Return the line that the configured handler makes of a record."""
    log.configure(log.LogLevel.INFO, log_format)
    record = logging.LogRecord("xoauth2_proxy.x", logging.INFO, "", 0, message, None, None)
    record.created = _MOMENT.timestamp()
    record.fields = fields
    return logging.getLogger().handlers[0].format(record)


def test_a_line_of_text() -> None:
    line = formatted(log.LogFormat.TEXT, "transaction", id="a-1", bytes=12, relay_seconds=0.12345)
    assert (
        line == "2026-11-20T06:30:01.250Z INFO    transaction id=a-1 bytes=12 relay_seconds=0.123"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("", '""'),
        ("a b", '"a b"'),
        ("a=b", '"a=b"'),
        ('a"b', '"a\\"b"'),
        ("é", "é"),
        (None, "None"),
    ],
)
def test_values_that_could_be_misread_are_quoted(value: object, shown: str) -> None:
    assert formatted(log.LogFormat.TEXT, key=value).endswith(f" key={shown}")


def test_a_line_of_json() -> None:
    line = json.loads(formatted(log.LogFormat.JSON, "transaction", id="a-1", bytes=12))
    assert line == {
        "time": "2026-11-20T06:30:01.250000+00:00",
        "level": "info",
        "logger": "xoauth2_proxy.x",
        "message": "transaction",
        "id": "a-1",
        "bytes": 12,
    }


@given(st.text(st.characters(codec="utf-8")))
@pytest.mark.parametrize("log_format", list(log.LogFormat))
def test_no_value_starts_a_second_line(log_format: log.LogFormat, value: str) -> None:
    line = formatted(log_format, sender=value, error=ValueError(value))
    assert "\n" not in line
    assert "\r" not in line


@given(st.text(st.characters(codec="utf-8")))
def test_json_gives_every_value_back(value: str) -> None:
    assert json.loads(formatted(log.LogFormat.JSON, sender=value))["sender"] == value


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"])))
def test_no_value_of_text_looks_like_another_field(value: str) -> None:
    line = formatted(log.LogFormat.TEXT, sender=value, reply="250")
    before, _, after = line.rpartition(" reply=")
    assert after == "250"
    shown = before.partition(" sender=")[2]
    assert shown == value or json.loads(shown) == value


@pytest.mark.parametrize("control", ["\x1b[2J", "\x9b2J", "\x85", "\u2028", "\x7f", "\x0b"])
@pytest.mark.parametrize("log_format", list(log.LogFormat))
def test_no_value_moves_the_cursor_or_breaks_the_line_for_a_reader(
    log_format: log.LogFormat, control: str
) -> None:
    assert formatted(log_format, sender=f"a{control}b@example.com").isprintable()


@pytest.mark.parametrize("log_format", list(log.LogFormat))
def test_exceptions_are_shown_with_their_traceback(
    log_format: log.LogFormat, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure(log.LogLevel.INFO, log_format)
    try:
        raise ValueError("broken")
    except ValueError:
        log.logger("x").exception("internal error in %s", "a-1")
    shown = capsys.readouterr().err
    assert "internal error in a-1" in shown
    assert "ValueError: broken" in shown
    if log_format is log.LogFormat.JSON:
        assert "Traceback" in json.loads(shown)["exception"]


@pytest.mark.parametrize("level", list(log.LogLevel))
def test_only_wanted_levels_are_written(
    level: log.LogLevel, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure(level, log.LogFormat.JSON)
    numbers = [logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR]
    for number in numbers:
        log.logger("x").event(number, "said", number=number)
    shown = [json.loads(line)["number"] for line in capsys.readouterr().err.splitlines()]
    assert shown == [one for one in numbers if one >= logging.getLevelName(level.upper())]


def test_libraries_are_heard_from_warning_on_and_aiosmtpd_from_error_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure(log.LogLevel.DEBUG, log.LogFormat.TEXT)
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("trouble")
    logging.getLogger("mail.log").warning("AUTH PLAIN secret")
    shown = capsys.readouterr().err
    assert "trouble" in shown
    assert "chatter" not in shown
    assert "secret" not in shown


def test_a_line_without_fields_has_none() -> None:
    log.configure(log.LogLevel.INFO, log.LogFormat.TEXT)
    record = logging.LogRecord("x", logging.WARNING, "", 0, "words %s", ("here",), None)
    assert logging.getLogger().handlers[0].format(record).endswith("WARNING words here")
