"""Secrets that a test plants, and the search for them in everything that comes out.

Errors are looked through with all that hangs on them: causes and contexts, also those that Python
would not show. Objects are found, not listed, so that new ones are looked at as well.
"""

from __future__ import annotations

import base64
import gc
import html
import json
import re
import secrets
import traceback
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from xoauth2_proxy.errors import ProxyError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

# How access tokens and JWTs ({"alg", {"typ", {"kid") begin, and what stands before one in XOAUTH2.
TOKEN_MARKS = ("ya29.", "EwAoA8l6", "eyJhbGci", "eyJ0eXAi", "eyJraWQi", "auth=Bearer ")

_TELLING = 8  # shorter pieces of base64 occur by chance
_ODD = "+/\"\\&%<'"  # what some way of writing has to write otherwise


def leaked(text: str, secrets: Iterable[str]) -> set[str]:
    """Return the secrets that are in the text, in whatever form."""
    text = _bare(text)
    return {secret for secret in secrets if any(form in text for form in _forms(secret))}


@lru_cache(maxsize=4096)
def _forms(secret: str) -> frozenset[str]:
    """Return the secret in every way in which a log, a page or a request may write it, bare."""
    forms = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), _lower_hex(secret)}
    forms |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    forms |= {html.escape(secret), html.escape(secret, quote=False), secret.encode().hex()}
    forms.update(*(_base64(text.encode()) for text in (secret, quote_plus(secret))))
    return frozenset(map(_bare, forms))


def _bare(text: str) -> str:
    """Return the text without backslashes: escapes may be escaped again, however often."""
    return text.replace("\\", "")


def _lower_hex(secret: str) -> str:
    """Return the secret as a form has it whose writer prefers %2f to %2F."""
    return re.sub("%..", lambda octet: octet[0].lower(), quote(secret, safe=""))


def _base64(octets: bytes) -> Iterator[str]:
    """Yield what is the same in every base64 text that holds the octets, wherever they begin."""
    for shift in range(3):
        shifted = bytes(shift) + octets
        whole = shifted[: len(shifted) - len(shifted) % 3]
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(whole).decode()[4 if shift else 0 :]
            if len(text) >= _TELLING:
                yield text


@dataclass
class Planted:
    """The secrets of one test, each with its name, so that no failure has to quote one."""

    _names: dict[str, str] = field(default_factory=dict, repr=False)  # by value

    @property
    def values(self) -> Collection[str]:
        return tuple(self._names)

    def new(self, name: str, *, is_plain: bool = False) -> str:
        """Return a secret that nothing else is like; a plain one holds no odd characters.

        It is short: what is left out for its length alone would hide nothing here.
        """
        odd = "-" if is_plain else _ODD
        return self.add(name, f"{secrets.token_hex(3)}{odd}{secrets.token_hex(3)}")

    def add(self, name: str, value: str) -> str:
        """Search for this value, too, unless it is short enough to stand anywhere."""
        if len(value) >= _TELLING:
            self._names.setdefault(value, name)
        return value

    def leaks(self, text: str) -> set[str]:
        """Return the names of the secrets in the text; a token nobody planted is one as well."""
        found = {self._names[value] for value in leaked(text, list(self._names))}
        return found | {f"something like {mark}" for mark in leaked(text, TOKEN_MARKS)}


def told_by(error: BaseException) -> str:
    """Return all that a log, a crash report or a debugger would show of an error."""
    told = traceback.format_exception(error)
    for one in chain(error):
        told += [str(one), repr(one), *getattr(one, "__notes__", ())]
        if isinstance(one, ProxyError):
            told.append(repr(vars(one)))
    return "\n".join(told)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came of, also where `from None` hides that."""
    if error is not None:
        yield error
        yield from chain(error.__cause__)
        if error.__context__ is not error.__cause__:
            yield from chain(error.__context__)


def objects() -> str:
    """Return what every object of the relay's own classes says of itself."""
    own = [one for one in gc.get_objects() if _is_own(type(one))]  # type: ignore[arg-type]
    return "\n".join(dict.fromkeys(map(repr, own)))  # many say the same


@cache
def _is_own(kind: type) -> bool:
    return str(kind.__module__).startswith("xoauth2_proxy")
