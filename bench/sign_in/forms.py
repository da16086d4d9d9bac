"""Reads the forms of a provider's page and fills them in as a user does who agrees. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

# Words of buttons that no one presses who wants to sign in.
_NO = re.compile(
    r"\b(abort|back|cancel|cancelled|decline|deny|disagree|reject|refuse|no|not|reset|switch)\b",
    re.IGNORECASE,
)
_LOGIN_NAME = re.compile(r"e?-?mail|login|user|account|identifier|loginfmt", re.IGNORECASE)
_TYPED = frozenset({"", "text", "email", "tel"})
_LEFT_OUT = frozenset({"button", "image", "reset", "file"})


@dataclass(slots=True)
class Field:
    """An input of a form."""

    name: str
    kind: str  # the attribute `type`, in lower case
    value: str
    is_checked: bool = False
    autocomplete: str = ""

    @property
    def is_password(self) -> bool:
        """Whether the user's password belongs there."""
        return self.kind == "password"

    @property
    def is_login(self) -> bool:
        """Whether the user's mailbox belongs there."""
        if self.kind not in _TYPED:
            return False
        is_named = _LOGIN_NAME.search(self.name) is not None
        return self.kind == "email" or "username" in self.autocomplete or is_named


@dataclass(slots=True)
class Button:
    """A button that sends a form."""

    name: str
    value: str
    action: str  # "": the form's
    text: str = ""

    @property
    def is_refusal(self) -> bool:
        """Whether it says no."""
        return is_refusal(f"{self.name} {self.value} {self.text}")


@dataclass(slots=True)
class Form:
    """One form of a page."""

    action: str
    method: str
    form_id: str = ""
    fields: list[Field] = field(default_factory=list)
    buttons: list[Button] = field(default_factory=list)

    @property
    def asks_for_login(self) -> bool:
        """Whether the user's mailbox or password is asked for."""
        return any(one.is_login or one.is_password for one in self.fields)

    @property
    def is_refusal(self) -> bool:
        """Whether every button says no."""
        return bool(self.buttons) and all(one.is_refusal for one in self.buttons)

    def filled(self, mailbox: str, password: str) -> tuple[str, dict[str, str]]:
        """Return the action and what is sent when the user has filled it in and agrees."""
        values = {one.name: one.value for one in self.fields if _is_sent(one)}
        values |= {one.name: mailbox for one in self.fields if one.is_login}
        values |= {one.name: password for one in self.fields if one.is_password}
        pressed = next((one for one in self.buttons if not one.is_refusal), None)
        if pressed is not None and pressed.name:
            values[pressed.name] = pressed.value
        return (pressed.action if pressed else "") or self.action, values


def form_of(page: str) -> Form | None:
    """Return the form of a page that leads on: one that asks for a login, else the first."""
    parser = _Forms()
    parser.feed(page)
    parser.close()
    usable = [one for one in parser.forms if not one.is_refusal]
    return next((one for one in usable if one.asks_for_login), usable[0] if usable else None)


def is_refusal(words: str) -> bool:
    """Return whether a button with these words says no."""
    return _NO.search(words) is not None


def _is_sent(one: Field) -> bool:
    if one.kind in {"checkbox", "radio"}:
        return one.is_checked
    return one.kind not in _LEFT_OUT


class _Forms(HTMLParser):
    """Collects forms; a button outside may belong to one by the attribute `form`."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self._open: Form | None = None
        self._button: Button | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take a form, an input or a button."""
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            method = values.get("method", "get").lower()
            self._open = Form(values.get("action", ""), method, values.get("id", ""))
            self.forms.append(self._open)
        elif tag == "input" or tag == "button":
            self._take_control(tag, values)

    def handle_endtag(self, tag: str) -> None:
        """Leave a form or a button."""
        if tag == "form":
            self._open = None
        elif tag == "button":
            self._button = None

    def handle_data(self, data: str) -> None:
        """Take a button's text."""
        if self._button is not None:
            self._button.text += data

    def _take_control(self, tag: str, values: dict[str, str]) -> None:
        owner = self._open
        if "form" in values:
            owner = next((one for one in self.forms if one.form_id == values["form"]), None)
        if owner is None or "disabled" in values:
            return
        name, value = values.get("name", ""), values.get("value", "")
        kind = values.get("type", "submit" if tag == "button" else "").lower()
        if kind == "submit":
            button = Button(name, value, values.get("formaction", ""))
            owner.buttons.append(button)
            self._button = button if tag == "button" else None
        elif tag == "input" and name:
            if kind in {"checkbox", "radio"} and not value:
                value = "on"
            autocomplete = values.get("autocomplete", "")
            owner.fields.append(Field(name, kind, value, "checked" in values, autocomplete))
