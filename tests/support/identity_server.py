"""A real identity provider beside the tests: npm's `oidc-provider`, which node runs over HTTPS."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import ssl
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self
from urllib.request import urlopen

import pytest

from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from types import TracebackType

    import trustme

PROGRAM = Path(__file__).parent / "identity_provider"
NATIVE = "native"  # a public client
CONFIDENTIAL = "confidential"  # its secret goes into the request's body
CONFIDENTIAL_BASIC = "confidential-basic"  # its secret goes into the Authorization header
APPLICATION = "application"  # client_credentials only


@dataclass(frozen=True, slots=True)
class Counters:
    """What was asked of the token endpoint since the last reset."""

    of: dict[str, int]

    def token_requests(self, grant_type: str = "") -> int:
        """Requests with this grant type, good and bad; all of them for ""."""
        if grant_type:
            return self.of.get(grant_type, 0)
        return sum(number for name, number in self.of.items() if " " not in name)

    def errors(self, word: str) -> int:
        """Token requests that were answered with this word, as invalid_grant."""
        return self.of.get(f"error {word}", 0)


@dataclass(slots=True)
class IdentityProvider:
    """The provider, from its start to its exit; one is enough for many tests after `reset`."""

    directory: Path
    authority: trustme.CA
    _process: subprocess.Popen[bytes] | None = None
    _ready: dict[str, Any] = field(default_factory=dict, repr=False)

    def __enter__(self) -> Self:
        node = _program("node", "nodejs")
        _install()
        self.authority.cert_pem.write_to_path(self.ca_file)
        issued = self.authority.issue_cert("127.0.0.1", "localhost")
        certificate, key = self.directory / "idp.pem", self.directory / "idp.key"
        for number, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(certificate, append=number > 0)
        issued.private_key_pem.write_to_path(key)
        with (self.directory / "idp.log").open("wb") as log:
            self._process = subprocess.Popen(
                [node, str(PROGRAM / "server.mjs"), str(certificate), str(key)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={"PATH": os.environ.get("PATH", ""), "NODE_ENV": "test"},
            )
        try:
            self._ready = self._read_ready_line()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    @property
    def ca_file(self) -> Path:
        """The certificate authority that the provider's certificate is from."""
        return self.directory / "idp-ca.pem"

    @property
    def issuer(self) -> str:
        return str(self._ready["issuer"])

    @property
    def token_endpoint(self) -> str:
        return f"{self.issuer}/token"

    @property
    def authorization_endpoint(self) -> str:
        return f"{self.issuer}/auth"

    @property
    def entra_authority(self) -> str:
        """What the provider is as Microsoft Entra: the login host; see `tenant`."""
        return str(self._ready["authority"])

    @property
    def tenant(self) -> str:
        return str(self._ready["tenant"])

    @property
    def audience(self) -> str:
        """The `aud` of access tokens."""
        return str(self._ready["resource"])

    @property
    def key_id(self) -> str:
        return str(self._ready["key_id"])

    @property
    def public_key_pem(self) -> str:
        """The key that all tokens are signed with (RS256)."""
        return str(self._ready["public_key"])

    def secret(self, client_id: str) -> str:
        """The client's secret; "" for the public client."""
        return str(self._ready["clients"][client_id])

    def counters(self) -> Counters:
        return Counters(self._control("counters"))

    def reset(self) -> None:
        """Begin to count again and behave as at the start; sessions and grants stay."""
        self._control("reset")

    def set(
        self, **settings: bool | int | str | None
    ) -> None:  # the names are those of DEFAULTS in server.mjs
        """Behave otherwise until the next `reset`."""
        self._control("settings", settings)

    def revoke(self, mailbox: str) -> None:
        """Take back all that the mailbox's owner granted: refresh tokens are worth nothing now."""
        self._control("revoke", {"mailbox": mailbox.lower()})

    def trust(self) -> ssl.SSLContext:
        """A TLS context that trusts the provider, and it alone."""
        return ssl.create_default_context(cafile=self.ca_file)

    def _control(self, verb: str, wanted: dict[str, Any] | None = None) -> dict[str, Any]:
        body = json.dumps(wanted or {}).encode()
        url = f"{self.entra_authority}/control/{verb}"
        with urlopen(url, body, timeout=PATIENCE_SECONDS, context=self.trust()) as answer:
            document: dict[str, Any] = json.load(answer)
        return document

    def _read_ready_line(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        patience = threading.Timer(PATIENCE_SECONDS, self._process.kill)
        patience.start()
        try:
            for line in self._process.stdout:
                if line.startswith(b"{"):
                    document: dict[str, Any] = json.loads(line)
                    return document
        finally:
            patience.cancel()
        raise RuntimeError(
            "the identity provider did not start: " + (self.directory / "idp.log").read_text()
        )

    def _stop(self) -> None:
        process = self._process
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        process.terminate()
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _install() -> None:
    """Install the provider's packages, once for all sessions."""
    wanted = json.loads((PROGRAM / "package.json").read_text())["dependencies"]["oidc-provider"]
    installed = PROGRAM / "node_modules" / "oidc-provider" / "package.json"
    with (PROGRAM / "package.json").open() as document:
        fcntl.flock(document, fcntl.LOCK_EX)
        with suppress(OSError):
            if json.loads(installed.read_text())["version"] == wanted:
                return
        npm = _program("npm", "npm")
        try:
            done = subprocess.run(
                [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--omit=dev"],
                cwd=PROGRAM,
                capture_output=True,
                timeout=PATIENCE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            _missing("npm did not install oidc-provider in time")
        if done.returncode:
            _missing(f"npm could not install oidc-provider: {done.stderr.decode()[-500:]}")


def _program(name: str, package: str) -> str:
    path = shutil.which(name)
    return path or _missing(f"{name} is not installed (Debian package {package})")


def _missing(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
