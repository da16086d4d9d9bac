"""Shows what a client typed as its login without showing a password that was typed there.

Only administrators see it, but in logs and on screens. So a text is shown as it is only if it is a
known login but for letter case and punctuation. Of any other, its length is told, its domain if
that is known, and the known login that it resembles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LEAST_CHARACTERS = 3  # of a login that is suggested; shorter ones resemble too much
_MOST_CHARACTERS = 64  # of a text that is compared
_MOST_LOGINS = 5000  # that are also found with a typing error; beyond, only but for punctuation


def masked(login: str, domain: str = "") -> str:
    """Return a text that tells how long `login` is, its domain if given, and nothing else of it."""
    count = len(login)
    if domain:
        return f"***@{domain}"
    return f"{'*' * min(count, 8)} ({count} character{'' if count == 1 else 's'})"


class KnownLogins:
    """The logins that exist, to compare with those that do not."""

    def __init__(self, logins: Iterable[str]) -> None:
        known = sorted(set(logins))
        self._domains = {login.rpartition("@")[2].lower() for login in known if "@" in login}
        self._by_form: dict[str, str] = {}
        forms = _forms if len(known) <= _MOST_LOGINS else _whole
        for login in known:
            local = login.partition("@")[0]
            for form in {*forms(login), *forms(local)}:
                # A form that two logins share suggests neither.
                self._by_form[form] = "" if self._by_form.get(form, login) != login else login
        for login in known:  # one that is the same but for punctuation comes first
            self._by_form[_squashed(login)] = login

    def nearest(self, typed: str) -> str:
        """Return the login that `typed` resembles, or "". It may differ by two letters.

        Windows programs type `DOMAIN\\login`; some devices append a domain that the login has not.
        """
        if len(typed) > _MOST_CHARACTERS:
            return ""
        user = typed.rpartition("\\")[2]
        texts = dict.fromkeys((typed, user, user.partition("@")[0]))
        found = (self._by_form.get(form, "") for text in texts for form in _forms(text))
        return next(filter(None, found), "")

    def shown(self, typed: str) -> str:
        """Return `typed` if it reveals nothing beyond the known logins, else a mask."""
        nearest = self.nearest(typed)
        if nearest and _squashed(typed) in {
            _squashed(nearest),
            _squashed(nearest.partition("@")[0]),
        }:
            return typed
        domain = typed.rpartition("@")[2].lower() if "@" in typed else ""
        return masked(typed, domain if domain in self._domains else "")


def _squashed(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


def _whole(text: str) -> Iterator[str]:
    form = _squashed(text)
    if len(form) >= _LEAST_CHARACTERS:
        yield form


def _forms(text: str) -> Iterator[str]:
    """Yield the text without punctuation, and that without each one of its letters."""
    form = _squashed(text)
    if len(form) >= _LEAST_CHARACTERS:
        yield form
    if len(form) > _LEAST_CHARACTERS:
        for place in range(len(form)):
            yield form[:place] + form[place + 1 :]
