"""Where a client may send what: addresses, credentials, and nothing secret in the clear."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import sys
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bonafide import AsyncClient, Client, Credentials
from bonafide.connection import Target
from bonafide.errors import ServerUnreachableError
from tests.bonafide.scripted import ScriptedGateway, serving


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:1", "localhost:1", "[::1]:1", "dns:///localhost:1", "ipv4:127.0.0.1:1,127.0.0.2:1", "unix:///tmp/x"],
)
def test_this_machine_needs_no_tls(address: str) -> None:
    assert Target.of(address, Credentials()).address == address


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1:1", "gateway:1", "dns:///gateway:1", "localhost.example:1", "ipv4:127.0.0.1:1,10.0.0.1:1", "xds:///a"],
)
def test_another_machine_needs_tls_or_leave(address: str) -> None:
    with pytest.raises(ValueError, match="another machine"):
        Target.of(address, Credentials(api_key="secret"))
    for credentials in (Credentials(tls=True), Credentials(allow_plain_text=True)):
        assert Target.of(address, credentials).address == address


def test_several_addresses_are_one_target() -> None:
    assert Target.of(["127.0.0.1:1", "127.0.0.2:2"], Credentials()).address == "ipv4:127.0.0.1:1,127.0.0.2:2"
    assert Target.of(["[::1]:1"], Credentials()).address == "ipv6:[::1]:1"
    for mixed in (["127.0.0.1:1", "[::1]:1"], ["127.0.0.1:1", "localhost:1"]):
        with pytest.raises(ValueError, match="dns:///"):
            Target.of(mixed, Credentials())


def test_the_address_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONAFIDE_SERVER", "127.0.0.1:77")
    assert Target.of(None, Credentials()).address == "127.0.0.1:77"
    assert Target.of("127.0.0.1:88", Credentials()).address == "127.0.0.1:88"


@pytest.mark.parametrize("shown", [{"api_key": "hidden"}, {"token": "hidden"}])
def test_secrets_are_not_shown(shown: dict[str, str]) -> None:
    credentials = Credentials(**shown)
    assert "hidden" not in repr(credentials)
    assert "hidden" not in repr(Target.of("127.0.0.1:1", credentials))


def certificate(directory: Path, name: str, issuer: str = "") -> tuple[Path, Path]:
    """A certificate for localhost and its key, signed by ``issuer`` or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, signed_by = key, subject
    if issuer:
        loaded = serialization.load_pem_private_key((directory / f"{issuer}.key").read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signer = loaded
        signed_by = x509.load_pem_x509_certificate((directory / f"{issuer}.pem").read_bytes()).subject
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signed_by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("gateway.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=not issuer, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
    pem, secret = directory / f"{name}.pem", directory / f"{name}.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem, secret


async def test_mutual_tls(tmp_path: Path) -> None:
    authority, _ = certificate(tmp_path, "authority")
    server, server_key = certificate(tmp_path, "server", "authority")
    own, own_key = certificate(tmp_path, "own", "authority")
    accepted = grpc.ssl_server_credentials(
        [(server_key.read_bytes(), server.read_bytes())], authority.read_bytes(), require_client_auth=True
    )
    gateway = ScriptedGateway()
    known = Credentials(
        root_certificates=authority, certificate=own, private_key=own_key, server_name="gateway.test", api_key="k"
    )
    async with serving(gateway, credentials=accepted) as address:
        async with AsyncClient(address, credentials=known) as client:
            assert (await client.analyze(b"clip", timeout=20)).request_id
        assert gateway.calls[0].metadata["x-api-key"] == "k"
        for stranger in (
            Credentials(root_certificates=authority, server_name="gateway.test"),
            Credentials(root_certificates=own, certificate=own, private_key=own_key, server_name="gateway.test"),
            Credentials(root_certificates=authority, certificate=own, private_key=own_key, server_name="other.test"),
        ):
            async with AsyncClient(address, credentials=stranger) as client:
                with pytest.raises(ServerUnreachableError):
                    await client.analyze(b"clip", timeout=20)
    assert len(gateway.calls) == 1


async def test_the_command_line_shows_certificate_and_key(tmp_path: Path) -> None:
    authority, _ = certificate(tmp_path, "authority")
    server, server_key = certificate(tmp_path, "server", "authority")
    accepted = grpc.ssl_server_credentials([(server_key.read_bytes(), server.read_bytes())])
    gateway = ScriptedGateway()
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"clip")

    async def run(address: str, *more: str) -> int | None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bonafide.cli", "analyze", str(clip), "--json", "--server", address, *more),
            env={**os.environ, "BONAFIDE_API_KEY": "the-key"},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await asyncio.wait_for(process.wait(), 60)

    async with serving(gateway, credentials=accepted) as address:
        assert await run(address, "--ca", str(authority), "--server-name", "gateway.test") == 0
        assert await run(address, "--ca", str(tmp_path / "nowhere.pem")) == 2
        assert await run("10.0.0.1:1") == 2
    assert [call.metadata["x-api-key"] for call in gateway.calls] == ["the-key"]


def test_a_client_that_cannot_read_its_certificates_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Client("127.0.0.1:1", credentials=Credentials(root_certificates=tmp_path / "nowhere.pem"))
