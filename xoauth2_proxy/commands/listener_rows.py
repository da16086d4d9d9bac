"""What `status` shows of the listeners: where they are, and how long their certificates last."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from xoauth2_proxy.credential_files import certificate_expiry, days_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xoauth2_proxy.commands.console import Console
    from xoauth2_proxy.config.listener_section import ListenerSection


@dataclass(frozen=True, slots=True)
class ListenerRow:
    """One listener."""

    name: str
    addresses: tuple[str, ...]
    tls: str
    certificate_days_left: int | None = None  # None: it has no certificate, or none is readable

    @classmethod
    def configured(cls, listener: ListenerSection) -> ListenerRow:
        """Return a row of the configuration, whether it runs or not; blocks."""
        days_left = None
        if listener.tls_cert is not None:
            with suppress(ValueError):
                days_left = days_until(certificate_expiry(listener.tls_cert))
        addresses = (
            f"[{host}]:{listener.port}" if ":" in host else f"{host}:{listener.port}"
            for host in listener.host
        )
        return cls(listener.name, tuple(addresses), listener.tls_mode, days_left)

    @classmethod
    def running(cls, report: Mapping[str, object]) -> ListenerRow:
        """Return a row of `GET /health`."""
        addresses, days_left = report.get("addresses"), report.get("certificate_days_left")
        return cls(
            str(report.get("name")),
            tuple(map(str, addresses)) if isinstance(addresses, list) else (),
            str(report.get("tls")),
            days_left if isinstance(days_left, int) else None,
        )

    @property
    def has_expired(self) -> bool:
        """Whether clients refuse the certificate."""
        return self.certificate_days_left is not None and self.certificate_days_left < 0

    def to_json(self) -> dict[str, object]:
        """Return the row for programs."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def show(rows: Sequence[ListenerRow], console: Console) -> None:
    """Print a line for each listener, unless there is but one, which has no certificate."""
    for row in rows:
        if row.certificate_days_left is None and len(rows) == 1:
            continue
        where = ", ".join(row.addresses)
        style = "red" if row.has_expired else ""
        console.say(f"listener {row.name} ({where}): TLS {row.tls}{_lasts(row)}", style)


def _lasts(row: ListenerRow) -> str:
    days = row.certificate_days_left
    if days is None:
        return ""
    if row.has_expired:
        return f"; its certificate expired {-days} day{'s'[: days != -1]} ago; renew it"
    return f"; its certificate lasts {days} more day{'s'[: days != 1]}"
