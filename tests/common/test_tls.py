"""Real handshakes on loopback: who is let in, who is not, and certificates that change under load."""

import asyncio
import datetime as dt
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bonafide.v1 import fusion_pb2, fusion_pb2_grpc
from deploy.local.authority import Authority, server_name, spiffe_id
from services.common.certificates import CertificateError, CertificateFiles, CertificateStore
from services.common.channels import ServiceChannel, open_channel
from services.common.status import error_reason
from tests.common.serving import NAME, serving


def door(files: CertificateFiles, *allowed: str) -> dict[str, Any]:
    peers = tuple(map(spiffe_id, allowed))
    return {
        "tls_certificate": files.chain,
        "tls_key": files.key,
        "tls_authorities": files.authorities,
        "allowed_peers": peers,
    }


def channel_as(files: CertificateFiles | None, address: str, name: str = "fusion") -> ServiceChannel:
    certificates = CertificateStore(files) if files else None
    return open_channel(address, max_message_bytes=1 << 20, certificates=certificates, server_name=server_name(name))


async def refusal(channel: grpc.aio.Channel) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await fusion_pb2_grpc.FusionServiceStub(channel).Fuse(fusion_pb2.FuseRequest(), timeout=5)
    return refused.value


async def test_only_listed_ids_are_served_and_health_answers_any_certificate_of_ours(tmp_path: Path) -> None:
    authority = Authority()
    fusion = authority.issue("fusion", tmp_path / "fusion")
    async with serving(**door(fusion, "gateway")) as running:
        async with channel_as(authority.issue("gateway", tmp_path / "gateway"), running.address) as channel:
            await fusion_pb2_grpc.FusionServiceStub(channel).Fuse(fusion_pb2.FuseRequest(), timeout=5)
        async with channel_as(authority.issue("audio", tmp_path / "audio"), running.address) as channel:
            refused = await refusal(channel)
            assert refused.code() is grpc.StatusCode.PERMISSION_DENIED
            assert error_reason(refused) == "PEER_NOT_ALLOWED"
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=NAME), timeout=5)
        assert running.servicer.calls == 1


async def test_strangers_plain_text_and_expired_certificates_do_not_get_through_the_handshake(tmp_path: Path) -> None:
    authority, other = Authority(), Authority()
    fusion = authority.issue("fusion", tmp_path / "fusion")
    stranger = other.issue("gateway", tmp_path / "stranger")
    trusting_stranger = CertificateFiles(stranger.chain, stranger.key, fusion.authorities)
    nameless = CertificateFiles(authorities=fusion.authorities)
    expired = authority.issue("gateway", tmp_path / "expired", life=-dt.timedelta(seconds=1))
    assert expired.chain is not None
    assert expired.key is not None
    with pytest.raises(CertificateError, match=r"expired at"):
        expired.read()
    stale = grpc.ssl_channel_credentials(authority.pem, expired.key.read_bytes(), expired.chain.read_bytes())
    override = [("grpc.ssl_target_name_override", server_name("fusion"))]
    async with serving(**door(fusion, "gateway")) as running:
        channels = [
            channel_as(trusting_stranger, running.address),
            channel_as(nameless, running.address),
            channel_as(None, running.address),
            grpc.aio.secure_channel(running.address, stale, options=override),
        ]
        for channel in channels:
            async with channel:
                assert (await refusal(channel)).code() is grpc.StatusCode.UNAVAILABLE
        assert running.servicer.calls == 0


async def test_a_caller_trusts_only_the_service_it_means(tmp_path: Path) -> None:
    authority = Authority()
    gateway = authority.issue("gateway", tmp_path / "gateway")
    async with serving(**door(authority.issue("audio", tmp_path / "audio"), "gateway")) as running:
        async with channel_as(gateway, running.address, name="fusion") as channel:
            assert (await refusal(channel)).code() is grpc.StatusCode.UNAVAILABLE
        async with channel_as(gateway, running.address, name="audio") as channel:
            await fusion_pb2_grpc.FusionServiceStub(channel).Fuse(fusion_pb2.FuseRequest(), timeout=5)


async def test_a_certificate_that_ends_while_its_connection_lasts_is_refused(tmp_path: Path) -> None:
    authority = Authority()
    fusion = authority.issue("fusion", tmp_path / "fusion")
    brief = authority.issue("gateway", tmp_path / "gateway", life=dt.timedelta(seconds=3))
    async with (
        serving(**door(fusion, "gateway"), connection_age_seconds=60) as running,
        channel_as(brief, running.address) as channel,
    ):
        stub = fusion_pb2_grpc.FusionServiceStub(channel)
        await stub.Fuse(fusion_pb2.FuseRequest(), timeout=5)
        await asyncio.sleep(3.1)
        refused = await refusal(channel)
        assert refused.code() is grpc.StatusCode.UNAUTHENTICATED
        assert error_reason(refused) == "CERTIFICATE_EXPIRED"


async def test_authorities_and_certificates_change_on_both_sides_under_load_and_no_call_fails(tmp_path: Path) -> None:
    former, later = Authority(), Authority()
    ours, theirs = tmp_path / "gateway", tmp_path / "fusion"
    fusion, gateway = former.issue("fusion", theirs), former.issue("gateway", ours)
    bundles = (theirs / "authorities.pem", ours / "authorities.pem")
    async with serving(**door(fusion, "gateway"), connection_age_seconds=0.5) as running:
        channel = channel_as(gateway, running.address)
        stub = fusion_pb2_grpc.FusionServiceStub(channel)
        done = asyncio.Event()

        async def load() -> int:
            calls = 0
            while not done.is_set():
                await stub.Fuse(fusion_pb2.FuseRequest(policy="slow" if calls % 5 == 0 else ""), timeout=5)
                calls += 1
            return calls

        workers = [asyncio.create_task(load()) for _ in range(4)]

        async def served_by(trusted: Authority) -> bool:
            """Whether a fresh caller that trusts only one authority, and shows a certificate of it, gets in."""
            path = tmp_path / "fresh"
            async with channel_as(trusted.issue("gateway", path), running.address) as fresh:
                try:
                    await fusion_pb2_grpc.FusionServiceStub(fresh).Fuse(fusion_pb2.FuseRequest(), timeout=5)
                except grpc.aio.AioRpcError:
                    return False
                return True

        assert await served_by(former)
        assert not await served_by(later)
        for bundle in bundles:
            bundle.write_bytes(former.pem + later.pem)
        await asyncio.sleep(0.7)
        for name, directory in (("gateway", ours), ("fusion", theirs)):
            renewed = later.issue(name, tmp_path / f"renewed-{name}")
            for file in (renewed.chain, renewed.key):
                assert file is not None
                (directory / file.name).write_bytes(file.read_bytes())
        await asyncio.sleep(0.7)
        for bundle in bundles:
            bundle.write_bytes(later.pem)
        await asyncio.sleep(0.7)
        assert await served_by(later)
        assert not await served_by(former)
        done.set()
        assert all(calls > 5 for calls in await asyncio.gather(*workers))
        await channel.close()


async def test_a_pair_that_does_not_match_is_not_taken_over(tmp_path: Path) -> None:
    authority = Authority()
    files = authority.issue("fusion", tmp_path)
    store = CertificateStore(files)
    before = store.current()
    other = Authority().issue("fusion", tmp_path / "other")
    assert files.key is not None
    assert other.key is not None
    files.key.write_bytes(other.key.read_bytes())
    assert store.current() is before
    assert files.chain is not None
    assert other.chain is not None
    files.chain.write_bytes(other.chain.read_bytes())
    assert store.current() is not before
    files.chain.write_bytes(b"half")
    assert store.current().chain == other.chain.read_bytes()
