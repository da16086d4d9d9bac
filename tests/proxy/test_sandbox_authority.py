from __future__ import annotations

import datetime as dt
import ssl
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from xoauth2_proxy.sandbox import certificate_authority as module
from xoauth2_proxy.sandbox.certificate_authority import CertificateAuthority

if TYPE_CHECKING:
    from pathlib import Path


def handshake(server: ssl.SSLContext, ca_file: Path, host: str) -> str | None:
    """Return the TLS version two peers agree on, without any socket."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    trust = ssl.create_default_context(cafile=str(ca_file))
    trust.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    client = trust.wrap_bio(to_client, to_server, server_hostname=host)
    peer = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, peer]
    while waiting:
        for side in tuple(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
    return client.version()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_clients_that_trust_the_ca_file_accept_the_loopback_names(
    tmp_path: Path, host: str
) -> None:
    authority = CertificateAuthority.load_or_create(tmp_path)
    assert handshake(authority.server_context(), authority.ca_file, host) == "TLSv1.3"


def test_another_name_is_refused(tmp_path: Path) -> None:
    authority = CertificateAuthority.load_or_create(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(authority.server_context(), authority.ca_file, "smtp.gmail.com")


def test_the_authority_is_good_for_nothing_but_loopback(tmp_path: Path) -> None:
    authority = CertificateAuthority.load_or_create(tmp_path)
    certificate = x509.load_pem_x509_certificate(authority.ca_file.read_bytes())
    constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert [str(name.value) for name in constraints.value.permitted_subtrees or ()] == [
        "localhost",
        "127.0.0.0/8",
        "::1/128",
    ]


def test_old_tls_is_refused(tmp_path: Path) -> None:
    context = CertificateAuthority.load_or_create(tmp_path).server_context()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_it_is_made_once_and_only_the_certificate_is_for_everyone(tmp_path: Path) -> None:
    first = CertificateAuthority.load_or_create(tmp_path).ca_file.read_bytes()
    second = CertificateAuthority.load_or_create(tmp_path).ca_file.read_bytes()
    private = tmp_path / "sandbox" / "authority.pem"
    public = tmp_path / "sandbox" / "ca.pem"
    assert first == second == public.read_bytes()
    assert b"PRIVATE KEY" in private.read_bytes()
    assert b"PRIVATE KEY" not in public.read_bytes()
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(public.stat().st_mode) == 0o644


def test_an_old_context_still_works_with_the_ca_file_of_a_later_start(tmp_path: Path) -> None:
    context = CertificateAuthority.load_or_create(tmp_path).server_context()
    assert handshake(context, CertificateAuthority.load_or_create(tmp_path).ca_file, "localhost")


@pytest.mark.parametrize("days", [364.5, 366.0])
def test_an_ending_one_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: float
) -> None:
    first = CertificateAuthority.load_or_create(tmp_path).ca_file.read_bytes()
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    monkeypatch.setattr(module, "_now", lambda: later)
    authority = CertificateAuthority.load_or_create(tmp_path)
    assert authority.ca_file.read_bytes() != first
    assert CertificateAuthority.load_or_create(tmp_path).ca_file.read_bytes() != first


def test_a_broken_file_is_replaced(tmp_path: Path) -> None:
    first = CertificateAuthority.load_or_create(tmp_path).ca_file.read_bytes()
    (tmp_path / "sandbox" / "authority.pem").write_bytes(b"broken")
    assert CertificateAuthority.load_or_create(tmp_path).ca_file.read_bytes() != first


def test_a_lost_ca_file_is_written_again(tmp_path: Path) -> None:
    authority = CertificateAuthority.load_or_create(tmp_path)
    octets = authority.ca_file.read_bytes()
    authority.ca_file.unlink()
    assert CertificateAuthority.load_or_create(tmp_path).ca_file.read_bytes() == octets


def test_racing_creators_end_with_the_same_authority(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(CertificateAuthority.load_or_create, [tmp_path] * 16))
    contexts = [authority.server_context() for authority in made]
    assert all(handshake(each, made[0].ca_file, "localhost") for each in contexts)
    names = {path.name for path in (tmp_path / "sandbox").iterdir()}
    assert names == {"authority.pem", "authority.lock", "ca.pem"}
