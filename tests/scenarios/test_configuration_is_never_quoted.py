"""Whatever is wrong with a configuration, what is said of it tells no secret; nor does a good one.

Names alone are told: of keys, variables, files, providers and programs.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.betrayed import ALICE
from tests.support.config_files import ConfigFile
from tests.support.planted import Planted, objects, told_by
from xoauth2_proxy.config import ConfigSource, Overrides
from xoauth2_proxy.config.sections import FileSection
from xoauth2_proxy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


def gmail(planted: Planted, **changes: object) -> dict[str, object]:
    """Return an account whose every secret is planted."""
    secrets = {name: planted.new(name) for name in ("password", "client_secret", "refresh_token")}
    account = {"email": ALICE, "provider": "gmail", "client_id": "id", **secrets, **changes}
    return {name: value for name, value in account.items() if value is not None}


def misplaced(secret: str) -> Iterator[Mapping[str, object]]:
    """Yield changes of an account, each with the secret where none belongs."""
    for key in ("password", "client_secret", "refresh_token", "client_id"):
        for wrong in ([secret], {"text": secret}, "${" + secret, secret + "\ud800"):
            yield {key: wrong}
    for key in (
        *("grant", "tenant", "client_secret_expires", "scopes", "parameters", "oauth_token_url"),
        *(
            "authorization_url",
            "issuer",
            "authority",
            "upstream",
            "limits",
            "enabled",
            "recipients",
        ),
        *("refresh_token_days", "refresh_window_seconds", "allow_any_password", "email"),
        *("clientSecret", "client_secert", "retry"),
    ):
        yield from ({key: one} for one in (secret, [secret], {"of": secret}))
    # The names of providers and programs are told: only what has the form of neither is tried.
    yield from ({"provider": one} for one in ([secret], {"of": secret}))
    yield from ({"command": one} for one in (secret, {"of": secret}, [[secret]]))
    for url in (
        f"https://me:{secret}@provider.example/",
        f"https://provider.example/#{secret}",
        f"https://provider.example/?secret={secret}",
        f"http://provider.example/{secret}",
        f"ftp://{secret}",
        f"https://[{secret}",
    ):
        keys = ("oauth_token_url", "authorization_url", "issuer", "authority")
        yield from ({key: url, "provider": "outlook"} for key in keys)
    yield {"parameters": {"client_secret": secret}}
    yield {"parameters": {"audience": [secret]}}
    yield {"upstream": {"host": f"x:{secret}", "port": secret, "tls": secret}}
    yield {"password": "$argon2id$" + secret}


def wrong_documents(planted: Planted, *, is_plain: bool) -> Iterator[object]:
    secret = planted.new("a misplaced secret", is_plain=is_plain)
    for changes in misplaced(secret):
        yield {"accounts": [gmail(planted, **changes)]}
    good = gmail(planted)
    yield {"accounts": secret}
    yield {"accounts": [secret, [secret], good]}
    yield [good, good]
    yield secret
    for section in (
        {"store": {"kind": secret, "key": secret[:8], "url": secret}},
        {"store": {"kind": "redis", "url": f"http://{secret}"}},
        {"store": {"kind": "redis", "url": f"redis://me:{secret}@host:port"}},
        {"store": secret},
        {"alerts": {"webhook": f"http://hooks.example/{secret}", "warn_days": secret}},
        {"alerts": {"webhook": f"ftp://{secret}"}},
        {"admin": {"token": [secret], "port": secret}},
        {"admin": {"token": planted.new("the admin's token"), "public_url": f"x:{secret}"}},
        {"providers": {"gmail": secret}},
        {"providers": {"gmail": {"client_secret": {"text": secret}, "passwort": secret}}},
        {"providers": {"own": {"refresher": "oidc", "client_secret": secret, "issuer": secret}}},
        {"listener": {"tls_key": {"text": secret}}},
    ):
        yield {"accounts": [good], **section}


@pytest.mark.parametrize("is_plain", [True, False])
def test_a_configuration_that_cannot_be_used_is_not_quoted(
    tmp_path: Path, planted: Planted, is_plain: bool
) -> None:
    file = ConfigFile(tmp_path)
    leaks = {}
    for document in wrong_documents(planted, is_plain=is_plain):
        # Without its end it is not even JSON.
        for text in (json.dumps(document), json.dumps(document)[:-1]):
            if (error := refusal(file, text)) is not None:  # some text may stand anywhere
                leaks[text] = planted.leaks(told_by(error))
    assert len(leaks) > 200
    assert {text: found for text, found in leaks.items() if found} == {}


def refusal(file: ConfigFile, text: str) -> ConfigError | None:
    file.write(text)
    try:
        file.load()
    except ConfigError as error:
        return error
    return None


def test_files_of_secrets_that_cannot_be_used_are_not_quoted(
    tmp_path: Path, planted: Planted
) -> None:
    file = ConfigFile(tmp_path)
    private = planted.new("a private key", is_plain=True)
    pem = f"-----BEGIN PRIVATE KEY-----\n{private}\n-----END PRIVATE KEY-----\n"
    contents = (
        *(private, pem, f"\xff{private}", json.dumps(private), json.dumps({"private_key": pem})),
        json.dumps({"type": "service_account", "client_email": "a@b", "private_key": pem}),
    )
    told = []
    for content in contents:
        file.add("secret", content)
        for provider, changes in (
            ("gmail", {"service_account": "secret"}),
            ("outlook", {"certificate": "secret", "grant": "client_credentials"}),
            ("gmail", {"ca_file": "secret"}),
        ):
            account = gmail(planted, provider=provider, client_secret=None, **changes)
            refused = refusal(file, json.dumps({"accounts": [account]}))
            assert refused is not None
            told.append(told_by(refused))
    file.path.with_name("secret").write_bytes(b"\xff" + private.encode())
    refused = refusal(file, json.dumps([gmail(planted, password={"file": "secret"})]))
    assert refused is not None
    assert planted.leaks("\n".join([*told, told_by(refused)])) == set()


def test_a_configuration_shows_none_of_its_secrets(tmp_path: Path, planted: Planted) -> None:
    document = {
        "accounts": [gmail(planted), gmail(planted, email="bob@example.com", provider="own")],
        "providers": {
            "own": {
                "refresher": "oidc",
                "issuer": "https://idp.example",
                "upstream": {"host": "mail.example", "port": 587},
                "client_id": "id",
                "client_secret": planted.new("a provider's client secret"),
                "parameters": {"resource": planted.new("a parameter")},
            }
        },
        "admin": {"token": planted.new("the admin's token")},
        "store": {
            "kind": "redis",
            "url": f"redis://:{planted.new('a password', is_plain=True)}@127.0.0.1/",
            "key": planted.new("a key", is_plain=True) * 2,
        },
        "alerts": {"webhook": f"https://hooks.example/{planted.new('a webhook', is_plain=True)}"},
    }
    file = ConfigFile(tmp_path, environ={"SECRET": planted.new("a variable")})
    config = file.load(document)
    source = ConfigSource(file.path, Overrides(), file.state_dir)
    section = FileSection.model_validate(document)
    said = [repr(config), repr(source), repr(section), str(section), objects()]
    assert len(config.accounts) == 2
    assert planted.leaks("\n".join(said)) == set()
