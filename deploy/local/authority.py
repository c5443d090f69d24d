"""A certificate authority for one machine: short-lived, its key never leaves the memory of who made it.

For the one-machine stack and for tests. A fleet gets its certificates from SPIRE, cert-manager or the like;
the services only read files.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.common.certificates import CertificateFiles

TRUST_DOMAIN = "bonafide"
LIFE = dt.timedelta(hours=24)
_BACKDATED = dt.timedelta(minutes=5)


def spiffe_id(name: str) -> str:
    """The SPIFFE id of a part of the one-machine stack."""
    return f"spiffe://{TRUST_DOMAIN}/{name}"


def server_name(name: str) -> str:
    """The DNS name in its certificate."""
    return f"{name}.{TRUST_DOMAIN}"


class Authority:
    """Signs certificates that say who a process is, by SPIFFE id and by DNS name."""

    def __init__(self, life: dt.timedelta = LIFE) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bonafide, one machine")])
        now = dt.datetime.now(dt.UTC)
        self._certificate = (
            self._builder(self._name, self._key.public_key(), now - _BACKDATED, now + life)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        """The authority's own certificate."""
        return self._certificate.public_bytes(Encoding.PEM)

    def issue(
        self, name: str, directory: Path, *, life: dt.timedelta = LIFE, spiffe: str = "", loopback: bool = False
    ) -> CertificateFiles:
        """Write NAME.pem, NAME.key and authorities.pem for one process; what is there is replaced at once.

        A negative ``life`` gives a certificate that has expired. ``spiffe`` replaces the id that the name has;
        ``loopback`` adds 127.0.0.1, for servers whose clients look for an address.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        begin = min(now, now + life) - _BACKDATED
        names: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(spiffe or spiffe_id(name)),
            x509.DNSName(server_name(name)),
        ]
        if loopback:
            names.append(x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")))
        certificate = (
            self._builder(x509.Name([]), key.public_key(), begin, now + life)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            # Tells authorities of the same name apart, as while one takes over from another.
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        files = CertificateFiles(directory / f"{name}.pem", directory / f"{name}.key", directory / "authorities.pem")
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write(directory / f"{name}.key", private)
        _write(directory / f"{name}.pem", certificate.public_bytes(Encoding.PEM))
        _write(directory / "authorities.pem", self.pem)
        return files

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, begin: dt.datetime, end: dt.datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
        )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(path: Path, content: bytes) -> None:
    """Replace a file in one step, readable by its owner only."""
    draft = path.with_name(f".{path.name}.draft")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(content)
    draft.replace(path)
