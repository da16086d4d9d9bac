"""No object of the relay's own shows a secret, and no library is heard that might.

All classes and all loggers are looked at, so that new ones cannot be forgotten.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import BaseModel

import xoauth2_proxy
from tests.support.planted import Planted, objects
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.accounts.oauth_client import OAuthClient

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECRETIVE = re.compile(
    r"secret|token|passw|credential|assertion|verifier|nonce|webhook|hash|private|environ"
    r"|(^|_)(code|key|keys|state|url|document|parameters|form|text|content|response|body)($|_)"
)
# Fields that are called like secrets and hold none.
_HARMLESS = frozenset(
    {
        *("AdminSection.public_url", "OAuthClient.token_endpoint", "DoctorContext.token_endpoint"),
        *("TokenInfo.token_type", "Token.token_type"),
        *(f"{one}.token_url" for one in ("ClientCredentials", "Google", "SignedIn")),
        *("Answer.text", "Failure.text", "Fault.text", "HttpError.text", "Reply.text"),
        *(
            f"{section}.{key}"
            for section in ("AccountSection", "OAuthSection", "ProviderSection")
            for key in ("authorization_url", "oauth_token_url")
        ),
        *("MailboxTable.state", "MockClaims.token_id", "Sandbox.http_url", "_Metadata.text"),
        *("SandboxAddresses.http_url", "_Metadata.response_types"),
        "_Metadata.token_endpoint_auth_method",
        "ClientSeen.credential",  # its name
        # Functions, and keys of the form mailbox and name.
        *(f"{one}.use_credentials" for one in ("AdminDependencies", "RelayControl")),
        "Config.runtime_credentials",
    }
)


def test_objects_are_searched() -> None:
    planted = Planted()
    shown = OAuthClient(client_id=planted.new("a client's id"))
    assert planted.leaks(objects()) == {"a client's id"}
    del shown


def modules() -> Iterator[Any]:
    for found in pkgutil.walk_packages(xoauth2_proxy.__path__, "xoauth2_proxy."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def visible_fields(kind: type[Any]) -> Iterator[str]:
    """Yield the fields of a dataclass or model that sound like secrets and are shown."""
    if issubclass(kind, BaseModel):
        types = get_type_hints(kind)
        fields = [(name, types[name], one.repr) for name, one in kind.model_fields.items()]
    else:
        fields = [(one.name, one.type, one.repr) for one in dataclasses.fields(kind)]
    for field, type_of_field, is_shown in fields:
        holds_text = any(name in str(type_of_field) for name in ("str", "bytes", "dict", "Mapping"))
        name = f"{kind.__qualname__}.{field}"
        if is_shown and holds_text and _SECRETIVE.search(field) and name not in _HARMLESS:
            yield f"{kind.__module__}.{name}"


def test_every_field_that_sounds_like_a_secret_is_hidden() -> None:
    @dataclass
    class Careless:
        refresh_token: str
        refresh_token_days: int

    class CarelessModel(BaseModel):
        refresh_token: str
        refresh_token_days: int

    for careless in (Careless, CarelessModel):
        assert [name.rpartition(".")[2] for name in visible_fields(careless)] == ["refresh_token"]
    kinds = {
        kind
        for module in modules()
        for kind in vars(module).values()
        if isinstance(kind, type)
        if dataclasses.is_dataclass(kind) or issubclass(kind, BaseModel)
        if kind.__module__ == module.__name__
    }
    assert len(kinds) > 50
    assert sorted(name for kind in kinds for name in visible_fields(kind)) == []


_LOGGERS = """
import importlib, logging, pkgutil, xoauth2_proxy
from xoauth2_proxy import log
for found in pkgutil.walk_packages(xoauth2_proxy.__path__, "xoauth2_proxy."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
log.configure(log.LogLevel.DEBUG, log.LogFormat.TEXT)
for name in ["", *logging.root.manager.loggerDict]:
    print(name or "root", logging.getLogger(name).isEnabledFor(logging.INFO))
"""


def test_at_debug_no_library_is_heard_below_its_warnings() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOGGERS],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_SECONDS,
    )
    heard = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert {"root", "asyncio", "aiohttp.server", "msal", "urllib3", "google.auth"} <= heard.keys()
    assert heard["xoauth2_proxy.oauth"] == "True"
    ours = {name for name, is_heard in heard.items() if is_heard == "True"}
    assert {name for name in ours if not name.startswith("xoauth2_proxy")} == set()
