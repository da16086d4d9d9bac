from __future__ import annotations

import hashlib
from email import message_from_bytes
from email.policy import default

from hypothesis import given
from hypothesis import strategies as st

from bench.messages import Messages
from tests.benchmark.runs import MAILBOX

LEAST_BYTES = 450  # more than any head here


@given(st.integers(LEAST_BYTES, 20_000), st.integers(0, 10_000_000))
def test_a_message_has_the_size_asked_for_and_clean_lines(size_bytes: int, number: int) -> None:
    content = Messages("recipient@outlook.com", size_bytes).content(number, MAILBOX)
    assert len(content) == size_bytes
    assert content.endswith(b"\r\n")
    lines = content.split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    assert max(map(len, lines)) <= 78


@given(st.integers(1, LEAST_BYTES))
def test_header_fields_are_the_least(size_bytes: int) -> None:
    content = Messages("recipient@outlook.com", size_bytes).content(1, MAILBOX)
    assert b"\r\n\r\n" in content
    assert content.endswith(b"\r\n")
    assert len(content) >= size_bytes


def test_lines_that_begin_with_dots_are_there() -> None:
    lines = Messages("recipient@outlook.com", 4096).content(1, MAILBOX).split(b"\r\n")
    assert b"." in lines
    assert any(line.startswith(b"..") for line in lines)


def test_fields_are_those_of_a_real_message() -> None:
    messages = Messages("recipient@outlook.com", 4096)
    message = message_from_bytes(messages.content(7, MAILBOX), policy=default)
    assert message["From"].addresses[0].addr_spec == MAILBOX
    assert message["To"].addresses[0].addr_spec == "recipient@outlook.com"
    assert message["Date"].datetime.utcoffset() is not None
    assert message["Message-ID"] == f"<{messages.run_id}.7@bench.invalid>"
    assert message["X-Bench-Id"] == f"{messages.run_id}.7"
    assert not message.defects


def test_a_message_can_be_written_again_from_its_number() -> None:
    messages = Messages("recipient@outlook.com", 4096)
    content = messages.content(3, MAILBOX)
    assert messages.content(3, MAILBOX) == content
    assert messages.sha256(3, MAILBOX) == hashlib.sha256(content).hexdigest()
    assert messages.content(4, MAILBOX) != content
    assert messages.sha256(3, "test.account2@gmail.com") != messages.sha256(3, MAILBOX)


def test_a_message_id_tells_its_number_and_other_mail_has_none() -> None:
    messages, other = (Messages("recipient@outlook.com", 500) for _ in range(2))
    assert messages.number(f"<{messages.run_id}.12@bench.invalid>") == 12
    assert messages.number(f"<{other.run_id}.12@bench.invalid>") is None
    assert messages.number(f"<{messages.run_id}.12@example.org>") is None
    assert messages.number(f"<{messages.run_id}.x@bench.invalid>") is None
    assert messages.number("") is None
