"""What the accounts of a provider have in common, and how an entry of the file changes that."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.accounts import Limits, TlsMode, Upstream
from xoauth2_proxy.accounts.oauth_client import OAuthClient
from xoauth2_proxy.config.environment import is_loopback
from xoauth2_proxy.config.problems import Problems, join

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
    oauth: OAuthClient = field(default_factory=OAuthClient)  # built in, without `entry`
    application_scopes: tuple[str, ...] = ()  # instead of the scopes for client_credentials
    connections_allowed: int | None = None  # the provider's own cap per mailbox; None: unknown
    is_upstream_written: bool = False  # the file says where the upstream is
    entry: ProviderSection | None = None  # of the file; its secrets are not looked for yet


def changed_provider(base: Provider, section: ProviderSection, directory: Path) -> Provider:
    """Return `base` with what `section` writes, all but its OAuth keys."""
    return replace(
        base,
        refresher=section.refresher or base.refresher,
        upstream=changed_upstream(base.upstream, section.upstream, directory),
        limits=changed_limits(base.limits, section.limits),
        is_upstream_written=bool(section.upstream and section.upstream.model_fields_set),
        entry=section,
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
    if upstream.tls is TlsMode.NONE and upstream.host and not is_loopback(upstream.host):
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
