"""What a refresher declares about itself, and the declarations of the built-in ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import BaseModel

MOCK = "mock"  # the refresher whose tokens only the sandbox accepts


@dataclass(frozen=True, slots=True, kw_only=True)
class RefresherInfo:
    """What a refresher declares. A plug-in has one as its attribute `info`, or none.

    The last fields are not the plug-in's to set: the registry does.
    """

    display_name: str = ""  # for people; "": its name
    description: str = ""  # one sentence
    scopes: tuple[str, ...] = ()  # to request where neither account nor provider names any
    uses_pkce: bool = True  # RFC 7636; for a sign-in of its own
    # The keys that it needs under `options` of an account or provider; None: it has none.
    options: type[BaseModel] | None = None
    # Where it keeps its credentials itself, as "the keychain of this machine"; "": the proxy's
    # store keeps them.
    kept_in: str = ""

    name: str = ""
    origin: str = ""  # the distribution that it comes from; "": this one
    flows: tuple[str, ...] = ()  # its own ways to sign people in: "browser", "device"
    fault: str = ""  # why it cannot be used; "": it can
    needs_client: bool = False  # it acts as an OAuth client that the operator has registered

    def __post_init__(self) -> None:
        """Raise `TypeError` for a value of the wrong type: plug-ins are not type-checked."""
        texts: tuple[object, ...] = (self.display_name, self.description, self.kept_in)
        if not all(isinstance(one, str) for one in texts):
            raise TypeError("display_name, description and kept_in must be text")
        scopes: object = self.scopes
        if not isinstance(scopes, tuple) or not all(isinstance(one, str) for one in scopes):
            raise TypeError("scopes must be a tuple of texts")
        if not isinstance(self.uses_pkce, bool):
            raise TypeError("uses_pkce must be True or False")
        is_model = isinstance(self.options, type) and hasattr(self.options, "former_keys")
        if self.options is not None and not is_model:
            raise TypeError("options must be a class derived from Options")

    @property
    def label(self) -> str:
        """The name shown to people."""
        return self.display_name or self.name

    def to_json(self) -> dict[str, object]:
        """Return what is declared, as interfaces show it."""
        return {
            "name": self.name,
            "display_name": self.label,
            "description": self.description,
            "scopes": self.scopes,
            "flows": self.flows,
            "uses_pkce": self.uses_pkce,
            "kept_in": self.kept_in,
            "package": self.origin,
            "is_available": not self.fault,
            "reason": self.fault,
        }


BUILT_IN_REFRESHERS = {
    info.name: info
    for info in (
        RefresherInfo(
            name="gmail",
            display_name="Google",
            description="Gmail and Google Workspace, by sign-in or service account.",
            flows=("browser",),  # the device flow grants no scope for mail
            needs_client=True,
        ),
        RefresherInfo(
            name="outlook",
            display_name="Microsoft",
            description="Microsoft 365 and Outlook.com, by sign-in or as an application.",
            flows=("browser", "device"),
            needs_client=True,
        ),
        RefresherInfo(
            name="oidc",
            display_name="OpenID Connect",
            description="Any OAuth 2.0 provider, with discovery where it has that.",
            flows=("browser", "device"),
            needs_client=True,
        ),
        RefresherInfo(
            name="command",
            display_name="Command",
            description="A program of the operator's that prints an access token.",
            uses_pkce=False,
            kept_in="a place of its program's",
        ),
        RefresherInfo(
            name=MOCK,
            display_name="Sandbox",
            description="Signed tokens that only the sandbox accepts.",
            uses_pkce=False,
        ),
    )
}
