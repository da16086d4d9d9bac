"""Builds the request for users who sign in from the command line's options."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

import typer

from bench.options.run_options import CLIENT_SECRET_VARIABLE, USER_PASSWORD_VARIABLE
from bench.sign_in.request import (
    AT_ONCE,
    PAGES_AT_ONCE,
    STAGGER_SECONDS,
    BrowserName,
    Provider,
    SignInMethod,
    SignInRequest,
    UpstreamTls,
)

if TYPE_CHECKING:
    from pathlib import Path

    from bench.client.login import Mechanism
    from bench.options.run_options import RunOptions

_MAX_SECRET_BYTES = 4096
# Options that need --sign-in, and those that need a certain one.
_OF_SIGN_IN = (
    *("browser", "headed", "stagger", "sign_ins_at_once", "issuer", "upstream", "upstream_tls"),
    *("client_id", "client_secret_file", "scopes", "callback_port"),
)
_OF_BROWSER = ("browser", "headed")
_OF_ISSUER = ("upstream", "upstream_tls")


def sign_in_of(options: RunOptions, mechanism: Mechanism, state_dir: Path) -> SignInRequest | None:
    """Return how the users of the run sign in; None if they do not.

    Raises:
        typer.BadParameter: an option is invalid or conflicts with another.
    """
    method = options.sign_in
    if method is None:
        _refuse_given(options, _OF_SIGN_IN, "requires --sign-in.")
        return None
    if options.accounts is None:
        _refuse("--sign-in", "requires --accounts: the number of users.")
    if options.use_mock_tokens or mechanism.takes_token:
        _refuse("--sign-in", "sends on the users' own grants: omit tokens of the clients.")
    if method is SignInMethod.MINT:
        _refuse_given(options, _OF_SIGN_IN, "does not go with --sign-in mint.")
    if method is not SignInMethod.BROWSER:
        _refuse_given(options, _OF_BROWSER, "requires --sign-in browser.")
    pages = PAGES_AT_ONCE if method is SignInMethod.BROWSER else AT_ONCE
    return SignInRequest(
        method=method,
        provider=_provider(options),
        client_id=options.client_id or "",
        client_secret=_client_secret(options),
        scopes=tuple((options.scopes or "").split()),
        user_password=os.environ.get(USER_PASSWORD_VARIABLE, ""),
        stagger_seconds=STAGGER_SECONDS if options.stagger is None else options.stagger,
        at_once=options.sign_ins_at_once or pages,
        callback_port=options.callback_port or 0,
        browser=options.browser or BrowserName.CHROMIUM,
        is_headed=options.headed,
        allow_remote=options.allow_remote,
        state_dir=state_dir,
    )


def _provider(options: RunOptions) -> Provider | None:
    if options.issuer is None:
        _refuse_given(options, _OF_ISSUER, "requires --issuer.")
        return None
    if options.upstream is None:
        _refuse("--upstream", "is required: the mail server that accepts the tokens of --issuer.")
    host, port = _address(options.upstream)
    return Provider(
        issuer=options.issuer,
        upstream_host=host,
        upstream_port=port,
        upstream_tls=options.upstream_tls or UpstreamTls.STARTTLS,
    )


def _address(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or set(text) & set("/?#@"):
        _refuse("--upstream", f"{text!r} is not HOST:PORT.")
    return host, port


def _client_secret(options: RunOptions) -> str:
    if options.client_id is None:
        _refuse_given(options, ("client_secret_file",), "requires --client-id.")
        return ""
    if options.client_secret_file is None:
        return os.environ.get(CLIENT_SECRET_VARIABLE, "")
    try:
        octets = options.client_secret_file.read_bytes()
        secret = octets.decode().strip()
    except (OSError, ValueError) as error:
        _refuse("--client-secret-file", f"cannot be read: {error}")
    if not secret or len(octets) > _MAX_SECRET_BYTES:
        _refuse("--client-secret-file", "is empty, or too long to be a secret.")
    return secret


def _refuse_given(options: RunOptions, names: tuple[str, ...], reason: str) -> None:
    for name in names:
        if getattr(options, name) not in (None, False):
            _refuse(f"--{name.replace('_', '-')}", reason)


def _refuse(option: str, reason: str) -> NoReturn:
    raise typer.BadParameter(reason, param_hint=option)
