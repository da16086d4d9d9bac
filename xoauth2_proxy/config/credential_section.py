"""The credentials of an account: each key with its bounds, description and rules."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, Field

from xoauth2_proxy.accounts.credential import Credential
from xoauth2_proxy.config.from_section import FromSection
from xoauth2_proxy.config.problems import Fault
from xoauth2_proxy.config.secret import Password
from xoauth2_proxy.config.section import Section, optional, required, setting
from xoauth2_proxy.config.values import IpNetwork, Moment, Senders, Word
from xoauth2_proxy.network import is_local_network

_MAX_LOGIN_CHARACTERS = 255
_MAX_ITEMS = 100


def _login(login: str) -> str:
    if not login.isprintable() or login != login.strip():
        raise ValueError("must be printable characters, without blanks around them")
    return login


class CredentialSection(Section):
    """What one device or program logs in with, beside the account's own password."""

    name: Word = required("What you call the device or program; unique in its account.")
    login: (
        Annotated[
            str, Field(min_length=1, max_length=_MAX_LOGIN_CHARACTERS), AfterValidator(_login)
        ]
        | None
    ) = optional(
        "What the client types as its user name; letter case does not matter. Unique over all "
        "accounts. By default the credential's name."
    )
    password: Password | None = optional(
        "What the client must present, as an account's password, or the digest of a generated "
        "key. Without one, its address must be in networks.",
        repr=False,
    )
    networks: Annotated[tuple[IpNetwork, ...], Field(strict=False, max_length=_MAX_ITEMS)] = (
        setting(
            (),
            "Networks and addresses that the client may come from; by default any. Without a "
            "password they are the proof.",
        )
    )
    allow_public_networks: bool = setting(
        False, "Let clients of networks that are not local send without a password."
    )
    senders: Senders = setting(
        (),
        "Senders that the client may use, in MAIL and in the header's From: addresses, *@domain, "
        "or *. By default those of the account.",
    )
    from_: FromSection | None = optional(
        "What becomes of other senders, and the name in From; by default as in the account.",
        alias="from",
    )
    messages_per_minute: float = setting(
        0.0, "Messages a minute, smoothed; 0: no limit.", ge=0, le=100_000
    )
    messages_per_day: int = setting(0, "Messages in 24 hours; 0: no limit.", ge=0, le=100_000_000)
    max_connections: int = setting(
        0, "Clients logged in with it at one time; 0: no limit.", ge=0, le=100_000
    )
    expires: Moment | None = optional(
        "When it ends: a date, at whose end in UTC it does, or a date and time with an offset."
    )
    enabled: bool = setting(True, "false: it cannot be used.")

    def faults(self) -> Iterator[Fault]:
        """Yield a credential that proves nothing, or that the whole Internet could use."""
        if self.password is not None:
            if self.allow_public_networks:
                yield "allow_public_networks", "is for credentials without a password; remove it"
            return
        if not self.networks:
            yield (
                "password",
                "is required, or networks: something must tell this client from others",
            )
        if self.login is not None:
            yield "login", "is of no use without a password; remove it, or add a password"
        public = [str(one) for one in self.networks if not is_local_network(one)]
        if public and not self.allow_public_networks:
            yield (
                "networks",
                f"{', '.join(public)} is not local: who reaches the proxy from there could send "
                "without a password; add a password, or allow_public_networks",
            )

    def credential(self) -> Credential:
        """Return the credential that is described."""
        return Credential(
            name=self.name,
            login="" if self.password is None else self.login or self.name,
            password=self.password,
            networks=self.networks,
            senders=self.senders,
            from_rule=None if self.from_ is None else self.from_.rule(),
            messages_per_minute=self.messages_per_minute,
            messages_per_day=self.messages_per_day,
            max_connections=self.max_connections,
            expires=self.expires,
            enabled=self.enabled,
        )
