from __future__ import annotations

import hashlib
from email import message_from_bytes
from email.policy import default
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load.messages import Messages, MessagesUnusable, _normalised, read_folder
from bench.plan.workloads import Recipients, Sizes, Workload
from tests.benchmark.runs import MAILBOX

if TYPE_CHECKING:
    from pathlib import Path

LEAST_BYTES = 450  # more than any head here


def messages_of(size_bytes: int, **changes: Any) -> Messages:
    workload = Workload(sizes=Sizes.parse(str(size_bytes)), **changes)
    return Messages("recipient@outlook.com", workload)


@given(st.integers(LEAST_BYTES, 20_000), st.integers(0, 10_000_000))
def test_a_message_has_the_size_asked_for_and_clean_lines(size_bytes: int, number: int) -> None:
    content = messages_of(size_bytes).content(number, MAILBOX)
    assert len(content) == size_bytes
    assert content.endswith(b"\r\n")
    lines = content.split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    assert max(map(len, lines)) <= 78


@given(st.integers(1, LEAST_BYTES))
def test_header_fields_are_the_least(size_bytes: int) -> None:
    content = messages_of(size_bytes).content(1, MAILBOX)
    assert b"\r\n\r\n" in content
    assert content.endswith(b"\r\n")
    assert len(content) >= size_bytes


def test_lines_that_begin_with_dots_are_there() -> None:
    lines = messages_of(4096).content(1, MAILBOX).split(b"\r\n")
    assert b"." in lines
    assert any(line.startswith(b"..") for line in lines)


def test_fields_are_those_of_a_real_message() -> None:
    messages = messages_of(4096)
    message = message_from_bytes(messages.content(7, MAILBOX), policy=default)
    assert message["From"].addresses[0].addr_spec == MAILBOX
    assert message["To"].addresses[0].addr_spec == "recipient@outlook.com"
    assert message["Date"].datetime.utcoffset() is not None
    assert message["Message-ID"] == f"<{messages.run_id}.7@bench.invalid>"
    assert message["X-Bench-Id"] == f"{messages.run_id}.7"
    assert not message.defects


def test_a_message_can_be_written_again_from_its_number() -> None:
    messages = messages_of(4096)
    content = messages.content(3, MAILBOX)
    assert messages.content(3, MAILBOX) == content
    assert messages.sha256(3, MAILBOX) == hashlib.sha256(content).hexdigest()
    assert messages.content(4, MAILBOX) != content
    assert messages.sha256(3, "test.account2@gmail.com") != messages.sha256(3, MAILBOX)


def test_a_message_id_tells_its_number_and_other_mail_has_none() -> None:
    messages, other = (messages_of(500) for _ in range(2))
    assert messages.number(f"<{messages.run_id}.12@bench.invalid>") == 12
    assert messages.number(f"<{other.run_id}.12@bench.invalid>") is None
    assert messages.number(f"<{messages.run_id}.12@example.org>") is None
    assert messages.number(f"<{messages.run_id}.x@bench.invalid>") is None
    assert messages.number("") is None


def test_sizes_of_a_distribution() -> None:
    workload = Workload(sizes=Sizes.parse("600:1,5k:1"))
    messages = Messages("recipient@outlook.com", workload)
    for number in range(50):
        assert len(messages.content(number, MAILBOX)) == workload.sizes.pick(number)


def test_several_recipients_are_in_the_envelope_and_in_the_head() -> None:
    messages = messages_of(4096, recipients=Recipients(3, 3))
    paths = messages.forward_paths(0)
    assert paths == [
        "recipient@outlook.com",
        "recipient+2@outlook.com",
        "recipient+3@outlook.com",
    ]
    content = messages.content(0, MAILBOX)
    message = message_from_bytes(content, policy=default)
    assert [address.addr_spec for address in message["To"].addresses] == paths
    assert len(content) == 4096


def folder_of(tmp_path: Path, **contents: bytes) -> Path:
    for name, content in contents.items():
        (tmp_path / f"{name}.eml").write_bytes(content)
    return tmp_path


def test_messages_from_a_folder_are_sent_in_turn_and_traceable(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path,
        a=b"From: a@x.test\nMessage-Id: <old\n folded>\nSubject: one\n\nMessage-ID: stays\nend",
        b=b"Subject: two\r\nX-Bench-Id: old\r\n\r\nbare\rreturn\r\n.dot\r\n",
    )
    messages = Messages("recipient@outlook.com", Workload(eml_dir=folder), read_folder(folder))
    first, second, third = (messages.content(number, MAILBOX) for number in range(3))
    parsed = message_from_bytes(first, policy=default)
    assert parsed.get_all("Message-ID") == [f"<{messages.run_id}.0@bench.invalid>"]
    assert parsed["X-Bench-Id"] == f"{messages.run_id}.0"
    assert (parsed["Subject"], parsed["From"]) == ("one", "a@x.test")
    assert first.endswith(b"Subject: one\r\n\r\nMessage-ID: stays\r\nend\r\n")
    assert second.endswith(b"Subject: two\r\n\r\nbare\r\nreturn\r\n.dot\r\n")
    assert b"old" not in second
    assert message_from_bytes(third, policy=default)["Subject"] == "one"
    assert messages.sha256(0, MAILBOX) != messages.sha256(0, "test.account2@gmail.com")


@given(st.lists(st.sampled_from((b"a", b"A: b", b"\r", b"\n", b"\r\n", b".", b" "))))
def test_whatever_a_file_holds_becomes_clean_lines(parts: list[bytes]) -> None:
    content = Messages("a@b.test", files=(_normalised(b"".join(parts)),)).content(0, MAILBOX)
    assert content.endswith(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line for line in content.split(b"\r\n"))
    assert message_from_bytes(content, policy=default)["X-Bench-From"] == MAILBOX


def test_a_file_without_a_body_has_only_a_head(tmp_path: Path) -> None:
    (content,) = read_folder(folder_of(tmp_path, a=b"Subject: x"))
    assert content == b"Subject: x\r\n\r\n"


@pytest.mark.parametrize("contents", [{}, {"a.txt": b""}])
def test_a_folder_without_messages_is_of_no_use(tmp_path: Path, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(MessagesUnusable, match=r"no \.eml file"):
        read_folder(tmp_path)


def test_a_folder_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a.eml").open("wb") as file:
        file.truncate(257 << 20)  # sparse
    with pytest.raises(MessagesUnusable, match="more than 256 MB"):
        read_folder(tmp_path)
