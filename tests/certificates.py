"""A certificate authority for tests that need certificates of any kind, also ones that nobody should accept."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.common.config import ClientTls, ServerTls

DAY = datetime.timedelta(days=1)
LOCALHOST = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


@dataclass(frozen=True, slots=True)
class Pair:
    """The files of one certificate and of its authority."""

    cert: Path
    key: Path
    ca: Path

    def client(self, *, ca: Path | None = None) -> ClientTls:
        """As a client uses them; ``ca`` if the server has another authority."""
        return ClientTls(cert=self.cert, key=self.key, ca=ca or self.ca)

    def server(self) -> ServerTls:
        """As a server uses them."""
        return ServerTls(cert=self.cert, key=self.key, client_ca=self.ca)


class Authority:
    """An authority whose files are in one folder."""

    def __init__(self, folder: Path, *, name: str = "tests") -> None:
        """Make a new one, also where there was one: then under the same file names."""
        self.folder, self.ca = folder, folder / "ca.crt"
        folder.mkdir(parents=True, exist_ok=True)
        self._name, self._key = _subject(name), ec.generate_private_key(ec.SECP256R1())
        self.ca.write_bytes(self._sign(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0)))

    def issue(
        self,
        name: str,
        *sans: x509.GeneralName,
        days: tuple[int, int] = (-1, 1),
        usage: x509.ObjectIdentifier | None = None,
    ) -> Pair:
        """Issue a certificate.

        Args:
            name: Its common name and the name of its files; an earlier one of the name is replaced.
            sans: Its subject alternative names.
            days: Beginning and end of its validity, relative to now.
            usage: What it is for; servers and clients alike if None.
        """
        base = self.folder / name.replace("/", "_")
        pair = Pair(base.with_name(f"{base.name}.crt"), base.with_name(f"{base.name}.key"), self.ca)
        key = ec.generate_private_key(ec.SECP256R1())
        more: list[x509.ExtensionType] = [x509.SubjectAlternativeName(sans)] if sans else []
        more += [x509.ExtendedKeyUsage([usage])] if usage else []
        pair.cert.write_bytes(
            self._sign(_subject(name), key, x509.BasicConstraints(ca=False, path_length=None), *more, days=days)
        )
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        pair.key.write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
        return pair

    def server(self, name: str = "server") -> Pair:
        """A certificate for localhost."""
        return self.issue(name, *LOCALHOST)

    def client(self, uri: str = "spiffe://leasegate/watcher", name: str = "client") -> Pair:
        """A certificate with one URI."""
        return self.issue(name, x509.UniformResourceIdentifier(uri))

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        basic: x509.BasicConstraints,
        *more: x509.ExtensionType,
        days: tuple[int, int] = (-1, 1),
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder(issuer_name=self._name, subject_name=subject, public_key=key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + days[0] * DAY)
            .not_valid_after(now + days[1] * DAY)
            .add_extension(basic, critical=True)
        )
        for extension in more:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
