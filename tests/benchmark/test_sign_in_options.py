from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import typer

from bench.options.request_builder import request_of
from bench.options.run_options import (
    CLIENT_SECRET_VARIABLE,
    USER_PASSWORD_VARIABLE,
    RunOptions,
)
from bench.sign_in.request import AT_ONCE, PAGES_AT_ONCE, SignInMethod, SignInRequest

if TYPE_CHECKING:
    from pathlib import Path


def sign_in(**options: Any) -> SignInRequest:
    given: dict[str, Any] = {"accounts": 2, "sign_in": SignInMethod.CODE} | options
    request = request_of(RunOptions(**given)).sign_in
    assert request is not None
    return request


def test_secrets_come_from_the_environment_or_a_file_and_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CLIENT_SECRET_VARIABLE, "from the environment")
    monkeypatch.setenv(USER_PASSWORD_VARIABLE, "what users type")
    request = sign_in(client_id="mine")
    assert (request.client_secret, request.user_password) == (
        "from the environment",
        "what users type",
    )
    file = tmp_path / "secret"
    file.write_text("from a file\n")
    request = sign_in(client_id="mine", client_secret_file=file)
    assert request.client_secret == "from a file"
    assert not {"from a file", "what users type"} & {*repr(request).split("'")}
    # A secret without its client_id belongs to no client.
    assert sign_in().client_secret == ""


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe", b"x" * 5000])
def test_a_file_that_is_no_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(typer.BadParameter) as refusal:
        sign_in(client_id="mine", client_secret_file=file)
    assert refusal.value.param_hint == "--client-secret-file"


def test_the_upstream_may_be_an_ipv6_address() -> None:
    request = sign_in(issuer="http://127.0.0.1:1", upstream="[::1]:2587")
    assert request.provider is not None
    assert (request.provider.upstream_host, request.provider.upstream_port) == ("::1", 2587)
    assert request.asked_scopes == ("openid", "email", "offline_access")
    assert sign_in(scopes="mail  offline").asked_scopes == ("mail", "offline")


@pytest.mark.parametrize("text", ["host", "host:", ":25", "host:0", "host:99999", "host:1/x", ""])
def test_what_is_no_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="HOST:PORT"):
        sign_in(issuer="http://127.0.0.1:1", upstream=text)


def test_a_browser_takes_fewer_users_at_once() -> None:
    assert sign_in().at_once == AT_ONCE
    assert sign_in(sign_in=SignInMethod.BROWSER).at_once == PAGES_AT_ONCE
    assert sign_in(sign_ins_at_once=7).at_once == 7
