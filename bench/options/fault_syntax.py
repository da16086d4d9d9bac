"""The syntax of faults and settings on the command line, such as `end:drop:rate=0.01`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from xoauth2_proxy.sandbox.faults import Action, Step, TokenAction

if TYPE_CHECKING:
    from xoauth2_proxy.sandbox.faults import DocumentedEnum

_NUMBERS = frozenset({"nth", "rate", "seconds", "retry_after_seconds"})
_WORDS = frozenset({"mailbox", "matching"})
FAULT_FORM = "step:action[:nth=2|every|rate=0.01][:mailbox=…][:seconds=…][:matching=…][:text=…]"


def fault_document(text: str) -> dict[str, object]:
    """Return the document of a fault like `end:drop:rate=0.01`; `text=` takes all that follows.

    Raises `ValueError`: the syntax is wrong; the text says what is expected.
    """
    step, _, rest = text.partition(":")
    action, _, rest = rest.partition(":")
    if not (step and action):
        raise ValueError(f"{text!r} is not of the form {FAULT_FORM}")
    fault: dict[str, object] = {"step": step, "action": action}
    while rest:
        if rest.startswith("text="):
            fault["text"] = rest.removeprefix("text=")
            break
        word, _, rest = rest.partition(":")
        key, _, value = word.partition("=")
        if word == "every":
            fault["nth"] = None
        elif key in _WORDS and value:
            fault[key] = value
        elif key in _NUMBERS and value:
            fault[key] = _number(key, value)
        else:
            raise ValueError(f"{word!r} in {text!r} is not known; the form is {FAULT_FORM}")
    return fault


def fault_words() -> str:
    """Return every step and action with its meaning, for a help text."""
    groups: dict[str, type[DocumentedEnum]] = {
        "Steps:": Step,
        "Actions at these steps:": Action,
        "Actions at the step token, where the argument is the grant type:": TokenAction,
    }
    paragraphs = []
    for title, words in groups.items():
        width = max(len(word.value) for word in words) + 2
        lines = (f"  {word.value:<{width}}{word.meaning}" for word in words)
        paragraphs.append("\n".join([title, *lines]))
    return "\n\n".join(paragraphs)


def override(text: str) -> tuple[str, object]:
    """Return key and value of `messages_per_minute=5`; a value is JSON, or a word.

    Raises `ValueError`: there is no key.
    """
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ValueError(f"{text!r} is not of the form setting=value")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _number(key: str, value: str) -> int | float:
    try:
        return int(value) if value.isdigit() else float(value)
    except ValueError:
        raise ValueError(f"{key}={value} is no number") from None
