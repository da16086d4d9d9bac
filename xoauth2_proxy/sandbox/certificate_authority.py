"""The sandbox's certificate authority: TLS for loopback names and nothing else.

The key stays in the state directory, readable by its owner only. Name constraints (RFC 5280
§4.2.1.10) limit the certificates that it signs to the names of this machine.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from xoauth2_proxy.files import locked, written_beside
from xoauth2_proxy.sandbox.state_directory import sandbox_directory

_LIFETIME = dt.timedelta(days=365)
_RENEW_BEFORE = dt.timedelta(days=1)
_LEAF_LIFETIME = dt.timedelta(days=90)
_CLOCK_SLACK = dt.timedelta(hours=1)
_LOOPBACK_NETWORKS = ("127.0.0.0/8", "::1/128")
_LOOPBACK_ADDRESSES = ("127.0.0.1", "::1")


class CertificateAuthority:
    """Issues the sandbox's server certificates."""

    def __init__(
        self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, ca_file: Path
    ) -> None:
        self._certificate = certificate
        self._key = key
        self.ca_file = ca_file  # the certificate alone, in PEM, for clients to trust

    @classmethod
    def load_or_create(cls, state_dir: Path) -> CertificateAuthority:
        """Return the authority kept under `state_dir`; one that is missing or expires is replaced.

        Processes that race to create it get the same authority.
        """
        directory = sandbox_directory(state_dir)
        path, ca_file = directory / "authority.pem", directory / "ca.pem"
        with locked(directory / "authority.lock"):
            certificate, key = _load(path) or _make_authority()
            _replace(path, _private_pem(key) + _pem(certificate), 0o600)
            _replace(ca_file, _pem(certificate), 0o644)
        return cls(certificate, key, ca_file)

    def server_context(self) -> ssl.SSLContext:
        """Return a TLS server context with a fresh certificate for the loopback names."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._issue(key.public_key())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        with tempfile.TemporaryDirectory() as directory:  # ssl reads certificates from files only
            chain = Path(directory) / "server.pem"
            chain.touch(0o600)
            chain.write_bytes(_private_pem(key) + _pem(certificate) + _pem(self._certificate))
            context.load_cert_chain(chain)
        return context

    def _issue(self, public_key: ec.EllipticCurvePublicKey) -> x509.Certificate:
        names: list[x509.GeneralName] = [x509.DNSName("localhost")]
        names += [x509.IPAddress(ipaddress.ip_address(name)) for name in _LOOPBACK_ADDRESSES]
        end = min(_now() + _LEAF_LIFETIME, self._certificate.not_valid_after_utc)
        builder = _builder("localhost", self._certificate.subject, public_key, end)
        return (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )


def _make_authority() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    permitted: list[x509.GeneralName] = [x509.DNSName("localhost")]
    permitted += [x509.IPAddress(ipaddress.ip_network(net)) for net in _LOOPBACK_NETWORKS]
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "xoauth2-proxy sandbox")])
    builder = _builder("xoauth2-proxy sandbox", name, key.public_key(), _now() + _LIFETIME)
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _builder(
    common_name: str, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, end: dt.datetime
) -> x509.CertificateBuilder:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - _CLOCK_SLACK)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _load(path: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
    """Return the stored authority; None if it is missing, unreadable or about to expire."""
    try:
        pem = path.read_bytes()
        key = serialization.load_pem_private_key(pem, None)
        certificate = x509.load_pem_x509_certificate(pem)
    except (FileNotFoundError, ValueError):
        return None
    if certificate.not_valid_after_utc - _now() < _RENEW_BEFORE:
        return None
    return (certificate, key) if isinstance(key, ec.EllipticCurvePrivateKey) else None


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _replace(path: Path, octets: bytes, mode: int) -> None:
    if path.exists() and path.read_bytes() == octets:
        return
    with written_beside(path, octets, mode) as temporary:
        temporary.replace(path)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
