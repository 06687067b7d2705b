"""Certificate authorities and certificates for the local stack, which uses TLS everywhere.

A server certificate is for servers alone and a client certificate for clients alone: no server's key calls a service.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALIDITY = datetime.timedelta(days=365)
_CLOCK_SKEW = datetime.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The files of one certificate, its key and the authority that signed it."""

    cert: Path
    key: Path
    ca: Path


class Authority:
    """A certificate authority with its certificates in one folder; an existing folder is reused."""

    def __init__(self, directory: Path) -> None:
        """Open or create the authority of ``directory``."""
        self.directory = directory
        self.ca = directory / "ca.crt"
        directory.mkdir(parents=True, exist_ok=True)
        if not self.ca.exists():
            self._make_ca()
        self._cert = x509.load_pem_x509_certificate(self.ca.read_bytes())
        key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{directory}/ca.key is not an elliptic curve key")
        self._key = key

    def server(self, name: str, *, hosts: Sequence[str] = ("localhost", "127.0.0.1")) -> KeyPair:
        """A certificate for a server that is reached under ``hosts`` (DNS names and IP addresses)."""
        names: list[x509.GeneralName] = [_host(host) for host in hosts]
        return self._issue(name, names=names, usage=ExtendedKeyUsageOID.SERVER_AUTH)

    def client(self, name: str, *, uri: str | None = None, organization: str | None = None) -> KeyPair:
        """A certificate for a client, known by its common name, and by ``uri`` if given."""
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)] if uri else []
        return self._issue(name, names=names, usage=ExtendedKeyUsageOID.CLIENT_AUTH, organization=organization)

    def _make_ca(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(f"leasegate local {self.directory.name}")
        cert = (
            _builder(subject, issuer=subject, key=key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        _write_key(self.directory / "ca.key", key)
        self.ca.write_bytes(cert.public_bytes(serialization.Encoding.PEM))

    def _issue(
        self, name: str, *, names: list[x509.GeneralName], usage: x509.ObjectIdentifier, organization: str | None = None
    ) -> KeyPair:
        pair = KeyPair(cert=self.directory / f"{name}.crt", key=self.directory / f"{name}.key", ca=self.ca)
        if pair.cert.exists():
            return pair
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(_subject(name, organization), issuer=self._cert.subject, key=key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        _write_key(pair.key, key)
        pair.cert.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return pair


def _builder(subject: x509.Name, *, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _VALIDITY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _subject(name: str, organization: str | None = None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if organization:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(parts)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
