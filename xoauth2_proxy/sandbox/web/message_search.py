"""Finds stored messages by sender, recipient or subject."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.sandbox.web.mime_view import subject_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xoauth2_proxy.sandbox.message_store import Message

MAX_EXAMINED = 5000  # messages for one request: reading a subject takes up to 0.1 ms
_MAX_QUERY_CHARACTERS = 200


def normalized_query(text: str) -> str:
    """Return a query without outer blanks, at most 200 characters long."""
    return text.strip()[:_MAX_QUERY_CHARACTERS]


def search(messages: Iterable[Message], query: str, limit: int) -> tuple[list[Message], int]:
    """Return the first `limit` messages that contain `query`, in any case of letters.

    Also returns the number of the last message that was examined; 0 if there was none. Meant for
    a thread: it may take half a second.
    """
    wanted = query.casefold()
    found: list[Message] = []
    seq = 0
    for message in messages:
        seq = message.seq
        if _contains(message, wanted):
            found.append(message)
            if len(found) >= limit:
                break
    return found, seq


def _contains(message: Message, wanted: str) -> bool:
    addresses = (message.mailbox, message.reverse_path, *message.forward_paths)
    if any(wanted in address.casefold() for address in addresses):
        return True
    content = message.content
    return content is not None and wanted in subject_of(content).casefold()
