"""A token endpoint that gives back what it was told: in errors, in garbage, in headers.

Real ones do: a proxy in between shows the request that it could not pass on, a page for developers
quotes it. What comes back is in none of the relay's words.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, urlencode

from tests.support.token_endpoint import Answer, answer, error, redirect

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.planted import Planted
    from tests.support.token_endpoint import Request, TokenEndpoint

    Treachery = Callable[[Request], Answer]
    Writing = Callable[[Request], str]

SECRET_FIELDS = (
    *("client_secret", "refresh_token", "code", "code_verifier", "device_code", "password"),
    *("token", "client_assertion", "assertion"),
)
_MIN_LENGTH = 8  # what is shorter is no secret


def secrets_of(request: Request) -> dict[str, str]:
    """Return what the request holds that nobody else may see, by its name."""
    held = {name: request.form[name] for name in SECRET_FIELDS if request.form.get(name)}
    held["the client's secret"] = request.client[1]
    held["a bearer token"] = request.headers.get("authorization", "").removeprefix("Bearer ")
    return {name: value for name, value in held.items() if len(value) >= _MIN_LENGTH}


def note(planted: Planted, endpoint: TokenEndpoint) -> None:
    """Search from now on for all secrets that the endpoint was told, and for those it gave."""
    for request in list(endpoint.requests):
        for name, value in secrets_of(request).items():
            planted.add(name, value)
            for part in value.split(".")[1:]:  # of a JWT: its claims and its signature
                planted.add(f"a part of {name}", part)
    for value in list(endpoint.issued):
        planted.add("an access token", value)


def _plainly(request: Request) -> str:
    return " ".join(secrets_of(request).values())


def _in_a_form(request: Request) -> str:
    return urlencode(secrets_of(request))


def _quoted(request: Request) -> str:
    values = secrets_of(request).values()
    return " ".join(way(value) for value in values for way in (quote, quote_plus, _fully_quoted))


def _fully_quoted(value: str) -> str:
    return quote(value, safe="").lower()


def _in_json(request: Request) -> str:
    return json.dumps(secrets_of(request))


def _in_base64(request: Request) -> str:
    words = [f"{before}{value}" for value in secrets_of(request).values() for before in ("", "x:")]
    return " ".join(base64.b64encode(word.encode()).decode() for word in words)


def _in_base64_for_urls(request: Request) -> str:
    words = [f"id:{quote_plus(value)}" for value in secrets_of(request).values()]
    return " ".join(base64.urlsafe_b64encode(word.encode()).decode() for word in words)


def _first(request: Request) -> str:
    return next(iter(secrets_of(request).values()), "nothing")


def _last(request: Request) -> str:
    return [*secrets_of(request).values(), "nothing"][-2]


def _in_headers(request: Request) -> Answer:
    names = ("Retry-After", "Server", "WWW-Authenticate", "Set-Cookie", "X-Request")
    return answer({}, 429, dict.fromkeys(names, _plainly(request)))


def _in_the_status_line(request: Request) -> Answer:
    octets = f"HTTP/1.1 400 {_plainly(request)}\r\nContent-Length: 0\r\n\r\n".encode()
    return Answer(octets)


def _in_a_truncated_body(request: Request) -> Answer:
    return answer(_plainly(request).encode(), length=4000)


def _quoting(word: str, write: Writing) -> Treachery:
    return lambda request: error(word, write(request))


WRITINGS: dict[str, Writing] = {
    "plainly": _plainly,
    "in a form": _in_a_form,
    "quoted": _quoted,
    "in JSON": _in_json,
    "in base64": _in_base64,
    "in base64 for URLs": _in_base64_for_urls,
}

TREACHERIES: dict[str, Treachery] = {
    **{
        f"invalid_grant {name}": _quoting("invalid_grant", write)
        for name, write in WRITINGS.items()
    },
    # Their descriptions go the same way as that of invalid_grant: one writing shows it.
    **{
        f"{word} plainly": _quoting(word, _plainly)
        for word in ("invalid_client", "temporarily_unavailable")
    },
    "error": lambda request: error(_first(request), "is unknown"),
    "error with words": lambda request: error(f"unknown {_last(request)}"),
    "suberror": lambda request: error("invalid_grant", suberror=_plainly(request)),
    "Google's error": lambda request: answer(
        {"error": {"status": _first(request), "message": _plainly(request)}}, 400
    ),
    "no JSON": lambda request: answer(_plainly(request).encode()),
    "a page": lambda request: answer(f"<h1>{_plainly(request)}</h1>".encode(), 502),
    "headers": _in_headers,
    "status line": _in_the_status_line,
    "truncated": _in_a_truncated_body,
    "redirect": lambda request: redirect(f"https://localhost:9/?{_in_a_form(request)}"),
    "a token": lambda request: answer({"access_token": f"a\n{_plainly(request)}"}),
    "other types": lambda request: answer(
        {"error": [_plainly(request)], "error_description": {"of": _plainly(request)}}, 400
    ),
    "numbers": lambda request: answer(
        {"access_token": [_plainly(request)], "expires_in": _plainly(request)}
    ),
}
