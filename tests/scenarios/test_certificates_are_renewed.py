"""A listener's certificate is renewed while it runs: what clients get, and what is said of it."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from typer.testing import CliRunner

from tests.support.relay import MAILBOX, PASSWORD
from tests.support.smtp_client import Client, message
from tests.support.waiting import until
from xoauth2_proxy.cli import cli

if TYPE_CHECKING:
    from pathlib import Path

    import trustme

    from tests.conftest import StartRelay
    from tests.scenarios.conftest import StartProcess
    from tests.support.relay import Relay
    from xoauth2_proxy.service.certificates import Certificates

ACCOUNTS = [{"email": MAILBOX, "provider": "mock", "password": PASSWORD}]
NAME = "localhost"
KEYS = {"name": "office", "tls_cert": "cert.pem", "tls_key": "key.pem", "tls": "implicit"}


class Renewal:
    """The files of a certificate, as certbot keeps them: links that move to new files."""

    def __init__(self, directory: Path, authority: trustme.CA) -> None:
        self._directory = directory
        self._authority = authority
        self._count = 0
        self.serial = 0

    def renew(self, *, days: int = 90) -> None:
        issued = self.issue(days)
        self.put("cert.pem", issued.cert_chain_pems[0].bytes())
        self.put("key.pem", issued.private_key_pem.bytes())
        self.note(issued)

    def issue(self, days: int = 90) -> trustme.LeafCert:
        return self._authority.issue_cert(
            NAME,
            not_before=datetime.now(UTC) - timedelta(days=200),
            not_after=datetime.now(UTC) + timedelta(days=days, hours=1),
        )

    def note(self, issued: trustme.LeafCert) -> None:
        self.serial = x509.load_pem_x509_certificate(
            issued.cert_chain_pems[0].bytes()
        ).serial_number

    def put(self, name: str, octets: bytes) -> None:
        self._count += 1
        target = self._directory / f"{self._count}-{name}"
        target.write_bytes(octets)
        target.chmod(0o600)
        link = self._directory / f"new-{name}"
        link.symlink_to(target)
        link.replace(self._directory / name)


@pytest.fixture
def renewal(tmp_path: Path, authority: trustme.CA) -> Renewal:
    made = Renewal(tmp_path, authority)
    made.renew()
    return made


@pytest.fixture
def trust(authority: trustme.CA) -> ssl.SSLContext:
    made = ssl.create_default_context()
    authority.configure_trust(made)
    return made


async def by_tls(host: str, port: int, trust: ssl.SSLContext) -> tuple[Client, int]:
    """Return a client that has read the greeting, and the serial number of the certificate."""
    client = await Client.connect_tls(host, port, trust, NAME)
    shown = client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return client, x509.load_der_x509_certificate(shown).serial_number


def certificates(relay: Relay) -> Certificates:
    return relay.app._certificates


@pytest.mark.both_loops
async def test_a_renewed_certificate_is_for_new_sessions_and_leaves_others_alone(
    start_relay: StartRelay, renewal: Renewal, trust: ssl.SSLContext
) -> None:
    relay = await start_relay({"accounts": ACCOUNTS, "listener": KEYS})
    before, serial = await by_tls(relay.host, relay.port, trust)
    assert serial == renewal.serial
    await before.ehlo()
    renewal.renew(days=30)
    await certificates(relay).look()
    after, serial = await by_tls(relay.host, relay.port, trust)
    assert serial == renewal.serial
    for client in (before, after):
        async with client:
            await client.ehlo()
            assert (await client.auth_plain(MAILBOX, PASSWORD)).code == 235
            assert (await client.send(message())).code == 250


async def test_starttls_has_the_renewed_certificate_too(
    start_relay: StartRelay, renewal: Renewal, trust: ssl.SSLContext
) -> None:
    relay = await start_relay({"accounts": ACCOUNTS, "listener": KEYS | {"tls": "starttls"}})
    renewal.renew()
    await certificates(relay).look()
    async with await relay.connect() as client:
        await client.start_tls(trust, NAME)
        shown = client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    assert x509.load_der_x509_certificate(shown).serial_number == renewal.serial


async def test_nobody_has_to_ask(
    start_relay: StartRelay,
    renewal: Renewal,
    trust: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("xoauth2_proxy.service.certificates._LOOK_SECONDS", 0.01)
    relay = await start_relay({"accounts": ACCOUNTS, "listener": KEYS})
    renewal.renew()

    async def is_new() -> bool:
        client, serial = await by_tls(relay.host, relay.port, trust)
        async with client:
            return serial == renewal.serial

    await until(is_new)


async def test_a_bad_certificate_keeps_the_old_one_and_is_told_once_after_a_minute(
    start_relay: StartRelay,
    renewal: Renewal,
    trust: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "xoauth2_proxy.certificates")
    relay = await start_relay({"accounts": ACCOUNTS, "listener": KEYS})
    now = 1000.0
    found = certificates(relay)
    found._clock = lambda: now
    serial = renewal.serial
    issued = renewal.issue()
    renewal.put("cert.pem", issued.cert_chain_pems[0].bytes())  # its key is yet to come
    await found.look()
    now += 59
    await found.look()
    assert not caplog.records
    for _ in range(5):
        now += 30
        await found.look()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "the previous one stays in use" in record.getMessage()
    assert record.fields["listener"] == "office"  # type: ignore[attr-defined]
    assert "cannot be used" in record.fields["fault"]  # type: ignore[attr-defined]
    client, shown = await by_tls(relay.host, relay.port, trust)
    async with client:
        assert shown == serial
    renewal.put("key.pem", issued.private_key_pem.bytes())
    renewal.note(issued)
    await found.look()
    client, shown = await by_tls(relay.host, relay.port, trust)
    async with client:
        assert shown == renewal.serial
    assert [one.getMessage() for one in caplog.records[1:]] == ["certificate read again"]


@pytest.mark.parametrize("content", [None, b"", b"rubbish"])
async def test_files_that_vanish_or_break_stop_nothing(
    start_relay: StartRelay,
    renewal: Renewal,
    trust: ssl.SSLContext,
    tmp_path: Path,
    content: bytes | None,
) -> None:
    relay = await start_relay({"accounts": ACCOUNTS, "listener": KEYS})
    (tmp_path / "cert.pem").unlink()
    if content is not None:
        (tmp_path / "cert.pem").write_bytes(content)
    await certificates(relay).look()
    client, serial = await by_tls(relay.host, relay.port, trust)
    async with client:
        assert serial == renewal.serial


@pytest.mark.asyncio(loop_factories=["uvloop"])
@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
async def test_sighup_reads_it_at_once_in_every_process(
    start_process: StartProcess,
    renewal: Renewal,
    trust: ssl.SSLContext,
    workers: tuple[str, ...],
) -> None:
    proxy = await start_process({"accounts": ACCOUNTS, "listener": KEYS}, "--sandbox", *workers)
    renewal.renew(days=12)
    proxy.signal(signal.SIGHUP)
    processes = 3 if workers else 1
    await until(lambda: proxy.stderr.count("configuration read again") == processes)
    for _ in range(8):
        client, serial = await by_tls("127.0.0.1", proxy.port, trust)
        async with client:
            assert serial == renewal.serial
    assert proxy.stderr.count("certificate read again") == 1
    health = json.loads((await proxy.get("/health"))[1])
    (listener,) = health["listeners"]
    assert listener["name"] == "office"
    assert listener["tls"] == "implicit"
    assert listener["addresses"] == [f"127.0.0.1:{proxy.port}"]
    assert listener["certificate_days_left"] == 12
    metrics = (await proxy.get("/metrics"))[1]
    (line,) = [
        one
        for one in metrics.splitlines()
        if one.startswith("xoauth2_proxy_certificate_expiry_timestamp_seconds{")
    ]
    assert 'listener="office"' in line
    expected = datetime.now(UTC) + timedelta(days=12, hours=1)
    assert abs(float(line.rpartition(" ")[2]) - expected.timestamp()) < 600
    words = ["status", "--url", proxy.admin_url, "--json"]
    shown = await asyncio.to_thread(CliRunner().invoke, cli, words)
    (row,) = json.loads(shown.stdout)["listeners"]
    assert (row["name"], row["certificate_days_left"]) == ("office", 12)


@pytest.mark.parametrize(
    ("days", "words"),
    [
        (40, "TLS implicit; its certificate lasts 40 more days"),
        (-3, "TLS implicit; <b>its certificate has expired</b>: renew it"),
    ],
)
async def test_the_admin_page_names_the_listener_and_its_days(
    start_relay: StartRelay, renewal: Renewal, days: int, words: str
) -> None:
    relay = await start_relay({"accounts": ACCOUNTS, "listener": KEYS})
    renewal.renew(days=days)
    await certificates(relay).look()
    _, page = await relay.get("/", Accept="text/html")
    assert f"<li>office <small>{relay.host}:{relay.port}; {words}</small></li>" in page


def test_status_names_the_days_left_and_a_certificate_that_has_expired(
    renewal: Renewal, tmp_path: Path
) -> None:
    file = tmp_path / "accounts.json"
    file.write_text(json.dumps({"accounts": ACCOUNTS, "listener": KEYS | {"host": "localhost"}}))
    words = ["--config", str(file), "--state-dir", str(tmp_path), "status"]
    for days, line, code in (
        (40, "its certificate lasts 40 more days", 0),
        (1, "its certificate lasts 1 more day", 0),
        (-3, "its certificate expired 3 days ago; renew it", 1),
    ):
        renewal.renew(days=days)
        result = CliRunner().invoke(cli, words)
        assert f"listener office (localhost:2525): TLS implicit; {line}\n" in result.stdout
        assert result.exit_code == code
    assert CliRunner().invoke(cli, [*words, MAILBOX]).exit_code == 0
