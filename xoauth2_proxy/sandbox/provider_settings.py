"""The settings of a provider: behaviour, faults, token endpoint."""

from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from xoauth2_proxy.sandbox.behaviour import STRICT, Behaviour, Count
from xoauth2_proxy.sandbox.faults import Fault, TokenFault
from xoauth2_proxy.sandbox.state_directory import KEY_BYTES

MAX_SEED = (1 << 63) - 1


class Rotation(StrEnum):
    """What happens to a refresh token that was used."""

    NONE = "none"  # it remains good, as at Google
    LENIENT = "lenient"  # a new one is issued, and old ones remain good, as at Microsoft
    ONCE = "once"  # a new one is issued, and the old one is refused
    STRICT = "strict"  # a new one is issued; using an old one ends the grant (RFC 9700 §4.14.2)


class SigningAlgorithm(StrEnum):
    """How tokens are signed (RFC 7518 §3.1)."""

    HS256 = "HS256"
    RS256 = "RS256"
    ES256 = "ES256"


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class TokenEndpointSettings:
    """What the authorization server issues, and to which clients."""

    ttl_seconds: float = Field(
        default=3600.0, gt=0, le=31_536_000, description="Lifetime of an access token."
    )
    rotation: Rotation = Field(
        default=Rotation.NONE, strict=False, description="What happens to a used refresh token."
    )
    algorithm: SigningAlgorithm | None = Field(
        default=None,
        strict=False,
        description="Signature of access tokens, which are then plain JWTs. Without it they look "
        "like a provider's.",
    )
    secret: str = Field(
        default="", max_length=1000, description="Secret of HS256, 32 or more octets.", repr=False
    )
    id_token_algorithm: SigningAlgorithm = Field(
        default=SigningAlgorithm.RS256,
        strict=False,
        description="Signature of ID tokens; with HS256, the client's secret is the key.",
    )
    leeway_seconds: float = Field(
        default=0.0, ge=0, le=86_400, description="How long an expired access token is accepted."
    )
    clock_skew_seconds: float = Field(
        default=0.0,
        ge=-31_536_000,
        le=31_536_000,
        description="How far the clock of the authorization server is ahead; negative: behind.",
    )
    requires_pkce: bool = Field(
        default=False, description="Refuse sign-ins without PKCE (RFC 7636)."
    )
    requests_per_minute: Count = Field(
        default=0, description="Token requests of all clients in a minute."
    )
    code_seconds: float = Field(
        default=60.0, gt=0, le=600, description="Lifetime of an authorization code."
    )
    device_code_seconds: float = Field(
        default=600.0, gt=0, le=3600, description="Lifetime of a device code."
    )
    device_interval_seconds: float = Field(
        default=5.0, gt=0, le=60, description="How often a device may ask whether it may sign in."
    )
    clients: Mapping[str, str] = Field(
        default_factory=dict,
        max_length=1000,
        description='Secrets of known clients by id; public clients have "". None: any client.',
        repr=False,
    )

    def __post_init__(self) -> None:
        if self.secret and self.algorithm is not SigningAlgorithm.HS256:
            raise ValueError('secret is for the algorithm "HS256"')
        if self.secret and len(self.secret.encode()) < KEY_BYTES:
            raise ValueError(f"secret is shorter than {KEY_BYTES} octets (RFC 7518 §3.2)")

    def as_document(self) -> dict[str, object]:
        """Return the settings without secrets and clients."""
        document: dict[str, object] = TypeAdapter(TokenEndpointSettings).dump_python(
            self, mode="json", exclude={"clients", "secret"}
        )
        return document


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class ProviderSettings:
    """All settings of a provider except its addresses."""

    behaviour: Behaviour = Behaviour()
    faults: tuple[Fault | TokenFault, ...] = ()
    token_endpoint: TokenEndpointSettings = TokenEndpointSettings()
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
