"""The settings of a provider: behaviour, faults, token endpoint."""

from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field
from pydantic.dataclasses import dataclass

from xoauth2_proxy.sandbox.behaviour import STRICT, Behaviour
from xoauth2_proxy.sandbox.faults import Fault, TokenFault

MAX_SEED = (1 << 63) - 1


class Rotation(StrEnum):
    """What happens to a refresh token that was used."""

    NONE = "none"  # it remains good, as at Google
    LENIENT = "lenient"  # a new one is issued, and old ones remain good, as at Microsoft
    ONCE = "once"  # a new one is issued, and the old one is refused
    STRICT = "strict"  # a new one is issued; using an old one ends the grant (RFC 9700 §4.14.2)


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class TokenEndpointSettings:
    """What the token endpoint issues, and to which clients."""

    ttl_seconds: float = Field(
        default=3600.0, gt=0, le=31_536_000, description="Lifetime of an access token."
    )
    rotation: Rotation = Field(
        default=Rotation.NONE, strict=False, description="What happens to a used refresh token."
    )
    clients: Mapping[str, str] = Field(
        default_factory=dict,
        max_length=1000,
        description='Secrets of known clients by id; public clients have "". None: any client.',
        repr=False,
    )

    def as_document(self) -> dict[str, object]:
        """Return the settings without the clients."""
        return {"ttl_seconds": self.ttl_seconds, "rotation": self.rotation.value}


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class ProviderSettings:
    """All settings of a provider except its addresses."""

    behaviour: Behaviour = Behaviour()
    faults: tuple[Fault | TokenFault, ...] = ()
    token_endpoint: TokenEndpointSettings = TokenEndpointSettings()
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
