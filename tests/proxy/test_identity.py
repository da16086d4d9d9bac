"""ID tokens: only one of this issuer, for this client and this attempt, says who signed in."""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from xoauth2_proxy.errors import SignInRefused, TokenEndpointUnavailable
from xoauth2_proxy.oauth import endpoint
from xoauth2_proxy.oauth.authorization.identity import (
    Identity,
    userinfo_identity,
    verified_identity,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests

ISSUER = "https://issuer.example"
CLIENT = "the client"
NONCE = "the nonce"
TENANT = "11111111-2222-3333-4444-555555555555"
KEY = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
OTHER = ECKey.generate_key("P-256", {"kid": "two", "use": "sig"})


class Publisher:
    """Serves documents by path."""

    def __init__(self) -> None:
        self.documents: dict[str, object] = {"/keys": KeySet([KEY, OTHER]).as_dict()}
        documents = self.documents

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                document = documents.get(self.path)
                self.send_response(401 if document is None else 200)
                self.end_headers()
                self.wfile.write(json.dumps(document).encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def metadata(self) -> dict[str, str]:
        url = f"http://127.0.0.1:{self._server.server_port}"
        return {"issuer": ISSUER, "jwks_uri": f"{url}/keys", "userinfo_endpoint": f"{url}/me"}

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    one = Publisher()
    yield one
    one.close()


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with endpoint.open_session() as one:
        yield one


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    usual = {
        "iss": ISSUER,
        "aud": CLIENT,
        "sub": "s1",
        "nonce": NONCE,
        "iat": now,
        "exp": now + 600,
        "email": "alice@example.com",
    }
    return {name: value for name, value in (usual | changes).items() if value is not None}


def token(key: Any = KEY, algorithm: str = "RS256", **changes: Any) -> str:
    header = {"alg": algorithm} | ({"kid": key.kid} if key.kid else {})
    return jwt.encode(header, claims(**changes), key, algorithms=[algorithm])


def test_a_token_of_the_issuer_names_the_person(
    publisher: Publisher, session: requests.Session
) -> None:
    alice = Identity("alice@example.com", "s1")
    for good in (token(), token(OTHER, "ES256"), token(aud=[CLIENT]), token(azp=CLIENT)):
        assert verified_identity(session, publisher.metadata, good, CLIENT, NONCE) == alice
    assert verified_identity(session, publisher.metadata, token(nonce=None), CLIENT) == alice


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"iss": "https://elsewhere.example"}, "iss"),
        ({"iss": None}, "iss"),
        ({"aud": "another client"}, "aud"),
        ({"aud": [CLIENT, "another"]}, "azp"),
        ({"aud": [CLIENT, "another"], "azp": "another"}, "azp"),
        ({"azp": "another"}, "azp"),
        ({"exp": 1_000_000_000}, "expired"),
        ({"exp": None}, "exp"),
        ({"nonce": "of another attempt"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"sub": None}, "sub"),
    ],
)
def test_claims_that_are_not_ours_are_refused(
    publisher: Publisher, session: requests.Session, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(SignInRefused, match=words):
        verified_identity(session, publisher.metadata, token(**changes), CLIENT, NONCE)


def test_a_token_that_the_issuer_did_not_sign_is_refused(
    publisher: Publisher, session: requests.Session
) -> None:
    stranger = RSAKey.generate_key(2048, {"kid": "one"})
    unknown = RSAKey.generate_key(2048, {"kid": "three"})
    # Signed with what everybody knows, or not at all.
    secret = OctKey.import_key(str(KEY.as_dict()["n"]))
    parts = token().split(".")
    unsigned = f"eyJhbGciOiJub25lIn0.{parts[1]}."
    for bad in (token(stranger), token(unknown), token(secret, "HS256"), unsigned, "x.y.z", ""):
        with pytest.raises(SignInRefused, match="not valid") as caught:
            verified_identity(session, publisher.metadata, bad, CLIENT, NONCE)
        assert parts[1] not in str(caught.value)


def test_microsofts_common_issuer_holds_for_the_tenant_of_the_token(
    publisher: Publisher, session: requests.Session
) -> None:
    metadata = publisher.metadata | {"issuer": "https://login.example/{tenantid}/v2.0"}
    good = token(iss=f"https://login.example/{TENANT}/v2.0", tid=TENANT)
    assert verified_identity(session, metadata, good, CLIENT, NONCE).name
    for issuer, tenant in (
        (f"https://login.example/{TENANT}/v2.0", None),
        (f"https://login.example/{TENANT}/v2.0", TENANT.replace("1", "9")),
        ("https://login.example/x/v2.0", "x"),
    ):
        with pytest.raises(SignInRefused, match="iss"):
            verified_identity(session, metadata, token(iss=issuer, tid=tenant), CLIENT, NONCE)


def test_keys_that_cannot_be_had_are_trouble_that_passes(
    publisher: Publisher, session: requests.Session
) -> None:
    publisher.documents["/keys"] = None
    with pytest.raises(TokenEndpointUnavailable):
        verified_identity(session, publisher.metadata, token(), CLIENT, NONCE)


def test_keys_of_other_kinds_are_left_aside(
    publisher: Publisher, session: requests.Session
) -> None:
    odd: list[object] = [{"kty": "AKP", "kid": "x"}, "no key", {"kty": "RSA", "use": "enc"}]
    publisher.documents["/keys"] = {"keys": [*odd, *KeySet([KEY]).as_dict()["keys"]]}
    assert verified_identity(session, publisher.metadata, token(), CLIENT, NONCE).name


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"email_verified": True}, "alice@example.com"),
        ({"email_verified": False}, ""),
        ({"email_verified": "false"}, ""),
        ({"email": None, "preferred_username": "a.smith"}, "a.smith"),
        ({"email": None, "upn": "alice@corp.example"}, "alice@corp.example"),
        ({"email": None}, ""),
        ({"email": ["alice@example.com"]}, ""),
        ({"email": "alice\r\n@example.com"}, ""),
        ({"email": "a" * 400}, ""),
    ],
)
def test_the_name_is_the_first_that_the_provider_vouches_for(
    publisher: Publisher, session: requests.Session, changes: dict[str, Any], name: str
) -> None:
    assert (
        verified_identity(session, publisher.metadata, token(**changes), CLIENT, NONCE).name == name
    )


def test_userinfo_is_believed_of_the_same_person_only(
    publisher: Publisher, session: requests.Session
) -> None:
    publisher.documents["/me"] = {"sub": "s1", "email": "alice@example.com"}
    alice = Identity("alice@example.com", "s1")
    assert userinfo_identity(session, publisher.metadata, "access", "s1") == alice
    assert userinfo_identity(session, publisher.metadata, "access") == alice
    assert userinfo_identity(session, publisher.metadata, "access", "s2") == Identity("", "s2")


def test_userinfo_that_does_not_answer_tells_nobody(
    publisher: Publisher, session: requests.Session
) -> None:
    assert userinfo_identity(session, publisher.metadata, "access", "s1") == Identity("", "s1")
    assert userinfo_identity(session, {"issuer": ISSUER}, "access", "s1") == Identity("", "s1")
