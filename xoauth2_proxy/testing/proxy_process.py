"""A proxy with its sandbox as a process, driven from tests of any kind, with or without a loop."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import argon2

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

TokenKind = Literal["valid", "expired", "revoked", "tampered", "wrong-mailbox", "refresh"]

_START_SECONDS = 120.0  # a machine that is busy with tests takes its time
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.05
_HTTP_SECONDS = 30.0
_BATCH = 100  # accounts in one request
_PASSWORD_OCTETS = 18
# A password of this many octets cannot be guessed, so its hash need not be slow.
_QUICK_HASH = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
_NOT_FOUND = 404
_LAST_OCTETS = 4000  # of what the process wrote, to explain its end

# To loopback only, whatever proxy the environment names.
_http = build_opener(ProxyHandler({}))


class ProxyNotStarted(Exception):
    """The process ended, or did not listen in time; the text has what it wrote."""


class RequestRefused(Exception):
    """The sandbox or the admin server refused a request; the text is its answer."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status  # of HTTP


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Someone with a mailbox: `password` is for the proxy, `token` for both servers."""

    mailbox: str
    password: str = field(repr=False)
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BadTokens:
    """Access tokens that a mail server must refuse for a mailbox."""

    expired: str = field(repr=False)
    revoked: str = field(repr=False)
    tampered: str = field(repr=False)  # the signature is not that of its claims
    of_another: str = field(repr=False)  # good, for another mailbox


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedMessage:
    """A message that the sandbox accepted."""

    mailbox: str  # who was authenticated
    sender: str  # of the envelope; "": none
    recipients: tuple[str, ...]
    content: bytes = field(repr=False)  # as it was sent


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningSandbox:
    """The sandbox: a mail provider that accepts its own tokens, and delivers nothing."""

    host: str
    port: int  # SMTP, with STARTTLS
    http_url: str = field(repr=False)  # pages and JSON; also the OpenID Connect issuer
    ca_file: Path  # whom a client must trust

    def token(self, mailbox: str, kind: TokenKind = "valid", *, ttl_seconds: float = 3600.0) -> str:
        """Return a new token: an access token, good or bad, or a refresh token."""
        asked = {"mailbox": mailbox, "kind": kind, "ttl_seconds": ttl_seconds}
        return str(self._ask("POST", "/test/tokens", asked)["token"])

    def tokens(self, mailboxes: list[str], *, ttl_seconds: float = 3600.0) -> list[str]:
        """Return a new access token for each mailbox, in their order."""
        found: list[str] = []
        for first in range(0, len(mailboxes), _BATCH):
            part = mailboxes[first : first + _BATCH]
            asked = {"mailboxes": part, "ttl_seconds": ttl_seconds}
            minted = self._ask("POST", "/test/tokens/batch", asked)["tokens"]
            found += [str(one["token"]) for one in minted]
        return found

    def bad_tokens(self, mailbox: str) -> BadTokens:
        """Return one token of each kind that must be refused for this mailbox."""
        return BadTokens(
            expired=self.token(mailbox, "expired"),
            revoked=self.token(mailbox, "revoked"),
            tampered=self.token(mailbox, "tampered"),
            of_another=self.token(mailbox, "wrong-mailbox"),
        )

    def messages(self) -> list[ReceivedMessage]:
        """Return the messages it accepted, the oldest first."""
        found, after = [], 0
        while rows := self._ask("GET", f"/messages?after={after}&limit=1000")["messages"]:
            for row in rows:
                after = int(row["seq"])
                content = _octets("GET", f"{self.http_url}/messages/{after}/content")
                found.append(
                    ReceivedMessage(
                        mailbox=row["mailbox"],
                        sender=row["reverse_path"],
                        recipients=tuple(row["forward_paths"]),
                        content=content,
                    )
                )
        return found

    def refusals(self) -> list[dict[str, Any]]:
        """Return what it refused and the real reasons, the newest first."""
        return list(self._ask("GET", "/refusals?limit=1000")["refusals"])

    def add_fault(self, step: str, action: str, **fields: object) -> None:
        """Have something go wrong; docs/sandbox.md lists the steps, actions and fields."""
        self._ask("POST", "/test/faults", {"step": step, "action": action, **fields})

    def clear(self) -> None:
        """Forget the messages and the faults."""
        self._ask("DELETE", "/test/faults")
        self._ask("DELETE", "/messages")

    def _ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - any JSON
        return json.loads(_octets(method, f"{self.http_url}{path}", body))


class ProxyProcess:
    """`xoauth2-proxy --sandbox` on free ports, from `start` to `stop`; also a context manager."""

    host: str
    port: int  # for mail clients; AUTH in clear, since it is loopback
    admin_url: str
    sandbox: RunningSandbox

    def __init__(self, directory: Path, sandbox_settings: Path | None = None) -> None:
        """Keep everything in `directory`, which is to be empty and private."""
        self._directory = directory
        self._output = directory / "output"
        self._ready_file = directory / "ready.json"
        self._command = [
            *(sys.executable, "-m", "xoauth2_proxy", "--sandbox", "--port", "0"),
            *("--admin-port", "0", "--state-dir", str(directory / "state")),
            *("--ready-file", str(self._ready_file)),
        ]
        if sandbox_settings is not None:
            self._command += ["--sandbox-settings", str(sandbox_settings)]
        self._process: subprocess.Popen[bytes] | None = None
        self._users = 0

    def start(self) -> None:
        """Start it and wait until it listens. Raises `ProxyNotStarted`."""
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - this very program
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it, by force if it takes too long."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        """As `start`."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """As `stop`."""
        self.stop()

    def add_users(self, count: int) -> list[User]:
        """Add mailboxes to the proxy; return who owns them, with a good token each."""
        names = range(self._users, self._users + count)
        self._users += count
        mailboxes = [f"user{number:04}@mock.example" for number in names]
        password = secrets.token_urlsafe(_PASSWORD_OCTETS)
        document = {"provider": "mock", "password": _QUICK_HASH.hash(password)}
        for first in range(0, count, _BATCH):
            part = mailboxes[first : first + _BATCH]
            self._ask("POST", "/accounts/batch", [document | {"email": one} for one in part])
        return [
            User(mailbox=mailbox, password=password, token=token)
            for mailbox, token in zip(mailboxes, self.sandbox.tokens(mailboxes), strict=True)
        ]

    def remove_users(self) -> None:
        """Remove all mailboxes that `add_users` added."""
        try:
            self._ask("DELETE", "/accounts?confirm=true")
        except RequestRefused as refused:
            if refused.status != _NOT_FOUND:  # which it is if there are none
                raise

    def _wait_until_ready(self) -> None:
        assert self._process is not None  # noqa: S101 - started before
        ends_at = time.monotonic() + _START_SECONDS
        while not self._ready_file.exists():
            if self._process.poll() is not None or time.monotonic() > ends_at:
                raise ProxyNotStarted(self._output.read_bytes()[-_LAST_OCTETS:].decode())
            time.sleep(_POLL_SECONDS)
        ready = json.loads(self._ready_file.read_text())
        self.host, _, port = ready["smtp"].rpartition(":")
        self.port, self.admin_url = int(port), ready["admin"]
        sandbox = ready["sandbox"]
        host, _, port = sandbox["smtp"].rpartition(":")
        self.sandbox = RunningSandbox(
            host=host,
            port=int(port),
            http_url=sandbox["http"],
            ca_file=self._directory / "state" / "sandbox" / "ca.pem",
        )

    def _ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - any JSON
        return json.loads(_octets(method, f"{self.admin_url}{path}", body))


def _octets(method: str, url: str, body: object = None) -> bytes:
    headers: Mapping[str, str] = {"Content-Type": "application/json", "X-Requested-By": "tests"}
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, dict(headers), method=method)  # noqa: S310 - loopback
    try:
        with _http.open(request, timeout=_HTTP_SECONDS) as response:
            octets: bytes = response.read()
            return octets
    except HTTPError as error:
        with error:
            answer = error.read().decode(errors="replace")
        raise RequestRefused(f"{method} {url}: {error.code} {answer}", error.code) from None
