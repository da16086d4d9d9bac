"""The providers this version knows by name, and how an entry of the file changes or adds one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts import Limits, TlsMode, Upstream
from xoauth2_proxy.config.problems import Problems, join
from xoauth2_proxy.config.surroundings import is_loopback

if TYPE_CHECKING:
    from pathlib import Path

    from xoauth2_proxy.config.model import LimitsSection, ProviderSection, UpstreamSection

MOCK = "mock"  # the refresher whose tokens only the sandbox accepts


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """What the accounts of one provider have in common."""

    name: str
    refresher: str
    upstream: Upstream
    limits: Limits
    connections_allowed: int | None = None  # the provider's own cap per mailbox; None: unknown
    is_upstream_written: bool = False  # the file says where the upstream is


# How long a message waits for a connection: half of the minute for which Outlook, unless told
# otherwise, waits for a server, so that a client hears a 4yz instead of nothing.
_WAIT_SECONDS = 30.0

# For a provider of the file that sets no limits: modest enough for any server.
CAUTIOUS_LIMITS = Limits(
    max_connections=5,  # Postfix's initial_destination_concurrency
    max_messages_per_connection=100,  # as for Gmail
    max_connection_age_seconds=600.0,
    idle_seconds=60.0,  # a fifth of what RFC 5321 §4.5.3.2.7 makes a server wait
    wait_seconds=_WAIT_SECONDS,
)


def built_in_providers(state_dir: Path) -> dict[str, Provider]:
    """Return the built-in providers by name; the mock one trusts the sandbox's authority."""
    gmail = Provider(
        name="gmail",
        refresher="gmail",
        upstream=Upstream("smtp.gmail.com", 587, TlsMode.STARTTLS),
        limits=Limits(
            max_connections=10,  # no published limit; ten are known to work
            max_messages_per_connection=100,  # no published limit
            max_connection_age_seconds=600.0,  # sessions of ten minutes are known to work
            idle_seconds=240.0,  # within the 5 minutes of RFC 5321 §4.5.3.2.7
            wait_seconds=_WAIT_SECONDS,
        ),
    )
    outlook = Provider(
        name="outlook",
        refresher="outlook",
        upstream=Upstream("smtp.office365.com", 587, TlsMode.STARTTLS),
        limits=Limits(
            max_connections=2,  # one below the cap, for a person's own mail client
            max_messages_per_connection=100,  # no published limit
            max_connection_age_seconds=900.0,  # closed by the server after some 20 minutes
            idle_seconds=60.0,  # an idle session holds one of three
            wait_seconds=_WAIT_SECONDS,
            messages_per_minute=30.0,  # Exchange Online; what is more is delayed or refused
        ),
        connections_allowed=3,  # Exchange Online: a fourth is answered 432 4.3.2
    )
    mock = Provider(
        name="mock",
        refresher=MOCK,
        upstream=Upstream(
            "localhost", 2600, TlsMode.STARTTLS, state_dir.absolute() / "sandbox" / "ca.pem"
        ),
        limits=Limits(  # nobody else's server: wide enough never to be what a benchmark measures
            max_connections=50,
            max_messages_per_connection=1000,
            max_connection_age_seconds=3600.0,
            idle_seconds=240.0,
            wait_seconds=_WAIT_SECONDS,
        ),
    )
    return {provider.name: provider for provider in (gmail, outlook, mock)}


def changed_provider(
    base: Provider | None, name: str, section: ProviderSection, directory: Path
) -> Provider:
    """Return `base` with what `section` writes, or a provider of its own where there is no base."""
    base = base or Provider(
        name=name, refresher="", upstream=Upstream("", 0, TlsMode.STARTTLS), limits=CAUTIOUS_LIMITS
    )
    return replace(
        base,
        refresher=section.refresher or base.refresher,
        upstream=changed_upstream(base.upstream, section.upstream, directory),
        limits=changed_limits(base.limits, section.limits),
        is_upstream_written=bool(section.upstream and section.upstream.model_fields_set),
    )


def check_new_provider(section: ProviderSection, path: str, problems: Problems) -> None:
    """Note what a provider that is not built in must say and does not."""
    if section.refresher is None:
        problems.add(join(path, "refresher"), "is required for a provider of your own")
    for key in ("host", "port"):
        if getattr(section.upstream, key, None) is None:
            problems.add(join(path, "upstream", key), "is required for a provider of your own")


def changed_upstream(base: Upstream, section: UpstreamSection | None, directory: Path) -> Upstream:
    """Return `base` with what `section` writes; a relative `ca_file` lies in `directory`."""
    if section is None:
        return base
    written = section.model_dump(exclude_unset=True)
    if section.ca_file is not None:
        written["ca_file"] = directory / section.ca_file
    return replace(base, **written)


def changed_limits(base: Limits, section: LimitsSection | None) -> Limits:
    """Return `base` with what `section` writes."""
    return replace(base, **section.model_dump(exclude_unset=True)) if section else base


def check_use(
    provider: Provider, upstream: Upstream, limits: Limits, path: str, problems: Problems
) -> None:
    """Note what may not be done with the provider: TLS left out, or its own cap exceeded."""
    if upstream.tls is TlsMode.NONE and not is_loopback(upstream.host):
        problems.add(
            join(path, "upstream", "tls"),
            f"none is for loopback only, and {upstream.host} is not; write starttls or implicit",
        )
    allowed = provider.connections_allowed
    if allowed is not None and limits.max_connections > allowed:
        problems.add(
            join(path, "limits", "max_connections"),
            f"{provider.name} allows {allowed} connections per mailbox at one time",
        )
