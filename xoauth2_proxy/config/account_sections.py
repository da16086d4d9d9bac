"""The OAuth keys that accounts and providers have in common: types, bounds and descriptions."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from xoauth2_proxy.accounts.oauth_client import GrantType
from xoauth2_proxy.config.secret import Secret
from xoauth2_proxy.config.values import Authority, Date, FilePath, Issuer, Section, Url, Word

_SCOPE = re.compile(r"[!#-\[\]-~]+")  # RFC 6749 §3.3, scope-token
_MAX_SCOPES = 100

# What the relay itself writes into a request: another value would change whose tokens come back.
_RESERVED_PARAMETERS = frozenset(
    {
        *("assertion", "client_assertion", "client_assertion_type", "client_id", "client_secret"),
        *("code", "code_challenge", "code_challenge_method", "code_verifier", "device_code"),
        *("grant_type", "nonce", "redirect_uri", "refresh_token", "response_type", "scope"),
        *("state", "username", "password"),
    }
)


def _scopes(value: object) -> tuple[str, ...]:
    words = value.split(" ") if isinstance(value, str) else value
    if not isinstance(words, list) or not 0 < len(words) <= _MAX_SCOPES:
        raise PydanticCustomError(
            "scopes", "must be words with blanks between, or an array of words"
        )
    if not all(isinstance(word, str) and _SCOPE.fullmatch(word) for word in words):
        raise PydanticCustomError(
            "scopes", "must be words of printable ASCII, with one blank between two"
        )
    return tuple(words)


def _parameter(name: str) -> str:
    if name.lower() in _RESERVED_PARAMETERS:
        raise PydanticCustomError("parameter", "is set by the relay and cannot be given here")
    return name


Scopes = Annotated[
    tuple[str, ...],
    PlainValidator(_scopes),
    WithJsonSchema(
        {
            "oneOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
            ]
        }
    ),
]
Parameter = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_parameter)]


class OAuthSection(Section):
    """How the relay presents itself to the authorization server."""

    client_id: Secret | None = Field(default=None, description="OAuth client id (RFC 6749 §2.2).")
    client_secret: Secret | None = Field(
        default=None, description="OAuth client secret (RFC 6749 §2.3)."
    )
    grant: Annotated[GrantType, Field(strict=False)] | None = Field(
        default=None,
        description="With what right tokens are asked for. refresh_token, the default: a person "
        "signs in once; client_credentials: the application itself (outlook, oidc); "
        "service_account: Google's domain-wide delegation.",
    )
    scopes: Scopes | None = Field(
        default=None, description="OAuth scopes to ask for, instead of the provider's."
    )
    parameters: dict[Parameter, Annotated[str, Field(max_length=10_000)]] | None = Field(
        default=None,
        repr=False,  # somebody may not have heeded the last words
        description="More parameters for token requests, as audience or resource. No secrets.",
    )
    oauth_token_url: Url | None = Field(
        default=None, description="Token endpoint, instead of the built-in or discovered one."
    )
    authorization_url: Url | None = Field(
        default=None, description="Where people sign in, for providers without discovery."
    )
    issuer: Issuer | None = Field(
        default=None, description="OpenID Connect issuer; its metadata name the endpoints."
    )
    authority: Authority | None = Field(
        default=None,
        description="Microsoft Entra: the login host, as https://login.microsoftonline.us.",
    )
    tenant: Word | None = Field(
        default=None,
        description="Microsoft Entra tenant: an id, a domain, common, organizations or consumers.",
    )
    ca_file: FilePath | None = Field(
        default=None,
        description="PEM file of the certificate authorities to trust for OAuth instead of the "
        "system's; relative to the configuration file.",
    )
    certificate: FilePath | None = Field(
        default=None,
        description="Microsoft Entra: PEM file with the client's certificate and its private key, "
        "instead of client_secret; relative to the configuration file.",
    )
    service_account: FilePath | None = Field(
        default=None,
        description="Google: the service account's key file (JSON); relative to the "
        "configuration file.",
    )
    command: list[Annotated[str, Field(max_length=4096)]] | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="Program and arguments that print an access token, for the refresher command; "
        "{mailbox} in an argument stands for the address. Others can see arguments: no secrets.",
    )
    client_secret_expires: Date | None = Field(
        default=None,
        description="Last day of client_secret or certificate, to be warned in time; by default "
        "the certificate says it.",
    )
    refresh_token_days: Annotated[int, Field(ge=0, le=36_500)] | None = Field(
        default=None,
        description="Days from sign-in after which the provider ends a refresh token, to be warned "
        "in time, as 7 for a Google project in testing; 0: unlimited or unknown.",
    )
    # 50 minutes at most: most access tokens live for an hour.
    refresh_window_seconds: Annotated[float, Field(ge=60, le=3000)] | None = Field(
        default=None, description="How long before its end an access token is renewed."
    )
