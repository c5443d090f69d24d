"""Fetches go where the operator allows and nowhere else: real TLS to a host on loopback, real redirects."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from deploy.local.authority import Authority
from services.common.errors import BonafideError, PermissionDeniedError
from services.gateway.addresses import AddressGuard, GuardedBackend
from services.gateway.fetching import Fetcher, FetchLimits, S3Storage
from services.gateway.s3_signing import S3Credentials, signed_headers
from services.gateway.uris import AllowList, Target
from tests.gateway.https_host import Host, failing, ok, redirect

BODY = bytes(range(256)) * 1000
LIMITS = FetchLimits(max_file_bytes=1 << 20, redirects=2, connect_seconds=5, silence_seconds=0.5)
HERE = "127.0.0.2"
INSIDE = "127.0.0.1"


class Names:
    """A name server that gives one answer after another, the last for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:  # noqa: ARG002
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def host(authority: Authority, tmp_path: Path) -> AsyncIterator[Host]:
    """Listens at the one address that the guard of these tests permits."""
    found = Host(authority.issue("clips", tmp_path))
    async with found.listening(HERE):
        yield found


class Fetching:
    """A fetcher that may reach HERE and no other address of this machine."""

    def __init__(self, authority: Authority, host: Host, names: Names | None = None, **changes: Any) -> None:
        trust = ssl.create_default_context(cadata=authority.pem.decode())
        self.names = names or Names([HERE])
        self.base = f"https://clips.bonafide:{host.port}"
        backend = GuardedBackend(AddressGuard([ip_network(f"{HERE}/32")]), self.names)
        parts: dict[str, Any] = {
            "allowed": AllowList([f"clips.bonafide:{host.port}"], ["clips"]),
            "limits": LIMITS,
            "backend": backend,
            "trust": trust,
            **changes,
        }
        self.fetcher = Fetcher(**parts)

    async def get(self, uri: str) -> bytes:
        return b"".join([chunk async for chunk in self.fetcher.fetch(uri if "://" in uri else self.base + uri)])

    async def reason(self, uri: str) -> str:
        with pytest.raises(BonafideError) as refused:
            await self.get(uri)
        assert "127." not in refused.value.message
        return refused.value.reason


async def test_a_file_comes_whole_with_the_names_it_was_asked_by(authority: Authority, host: Host) -> None:
    host.answers["/a/b.mp4?key=1"] = ok(BODY)
    assert await Fetching(authority, host).get("/a/b.mp4?key=1") == BODY
    assert host.names == ["clips.bonafide"]
    assert f"host: clips.bonafide:{host.port}\r\n" in host.asked[0].lower()
    assert "accept-encoding: identity\r\n" in host.asked[0].lower()


async def test_the_surroundings_proxy_is_not_used(
    authority: Authority, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    host.answers["/"] = ok(BODY)
    assert await Fetching(authority, host).get("/") == BODY


async def test_a_name_that_changes_its_address_never_leads_inside(authority: Authority, host: Host) -> None:
    """DNS re-binding: the second answer is an address inside, where a host with a secret waits."""
    host.answers["/"] = ok(BODY)
    secret = Host(host.files, {"/": ok(b"secret")})
    async with secret.listening(INSIDE, host.port):
        fetching = Fetching(authority, host, Names([HERE], [INSIDE]))
        assert await fetching.get("/") == BODY
        assert len(fetching.names.asked) == 1  # the address that was checked is the one connected to
        assert await fetching.reason("/") == "URI_NOT_ALLOWED"
        both = Fetching(authority, host, Names([HERE, INSIDE]))
        assert await both.reason("/") == "URI_NOT_ALLOWED"
    assert secret.connections == 0
    assert host.connections == 1


async def test_a_redirect_is_checked_like_a_uri(authority: Authority, host: Host) -> None:
    host.answers |= {
        "/once": redirect("/file"),
        "/file": ok(BODY),
        "/loop": redirect("/loop"),
        "/out": redirect("https://elsewhere.example/file"),
        "/plain": redirect(f"http://clips.bonafide:{host.port}/file"),
        "/login": redirect(f"https://user:word@clips.bonafide:{host.port}/file"),
        "/number": redirect(f"https://{HERE}:{host.port}/file"),
        "/nowhere": failing(302),
        "/local": redirect("file:///etc/passwd"),
    }
    fetching = Fetching(authority, host)
    assert await fetching.get("/once") == BODY
    assert await fetching.reason("/loop") == "TOO_MANY_REDIRECTS"
    assert await fetching.reason("/out") == "URI_NOT_ALLOWED"
    assert [await fetching.reason(path) for path in ("/plain", "/login", "/number", "/local")] == ["INVALID_URI"] * 4
    assert await fetching.reason("/nowhere") == "TOO_MANY_REDIRECTS"
    assert "elsewhere.example" not in fetching.names.asked


async def test_a_redirect_to_a_listed_name_that_lives_inside_is_refused(authority: Authority, host: Host) -> None:
    host.answers["/"] = redirect("/again")
    host.answers["/again"] = ok(b"secret")
    fetching = Fetching(authority, host, Names([HERE], [INSIDE]))
    assert await fetching.reason("/") == "URI_NOT_ALLOWED"


async def test_only_listed_hosts_and_ports_are_asked(authority: Authority, host: Host) -> None:
    fetching = Fetching(authority, host)
    for uri in ("https://clips.bonafide/a", "https://other.bonafide/a", "s3://other/a", "s3://clips/a"):
        assert await fetching.reason(uri) == "URI_NOT_ALLOWED"
    assert fetching.names.asked == []


async def test_a_host_that_cannot_prove_its_name_is_not_read(authority: Authority, host: Host, tmp_path: Path) -> None:
    host.answers["/"] = ok(BODY)
    stranger = Fetching(authority, host, trust=ssl.create_default_context(cadata=Authority().pem.decode()))
    assert await stranger.reason("/") == "URI_UNREACHABLE"
    other = Host(authority.issue("other", tmp_path / "other"), {"/": ok(BODY)})
    async with other.listening(HERE):
        assert await Fetching(authority, other).reason("/") == "URI_UNREACHABLE"
    assert host.asked == other.asked == []


async def test_what_a_host_answers_is_typed(authority: Authority, host: Host) -> None:
    host.answers |= {
        "/gone": failing(410),
        "/forbidden": failing(403),
        "/busy": failing(503, "retry-after: 7"),
        "/empty": failing(204),
        "/large": ok(b"", length=(1 << 20) + 1),
        "/cut": ok(b"abc", length=10),
        "/packed": ok(b"abc", "content-encoding: gzip"),
        "/silent": b"",
        "/nonsense": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "/headers": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000 + b"\r\n",
    }
    fetching = Fetching(authority, host)
    expected = {
        "/missing": "URI_NOT_FOUND",
        "/gone": "URI_NOT_FOUND",
        "/forbidden": "URI_REFUSED",
        "/busy": "URI_UNREACHABLE",
        "/empty": "URI_REFUSED",
        "/large": "FILE_TOO_LARGE",
        "/cut": "URI_UNREACHABLE",
        "/packed": "URI_REFUSED",
        "/silent": "URI_UNREACHABLE",
        "/nonsense": "URI_UNREACHABLE",
        "/headers": "URI_UNREACHABLE",
    }
    assert {path: await fetching.reason(path) for path in expected} == expected
    with pytest.raises(BonafideError) as busy:
        await fetching.get("/busy")
    assert busy.value.retry_after_seconds == 7


async def test_a_fetch_that_is_left_early_closes_its_connection(authority: Authority, host: Host) -> None:
    host.answers["/"] = ok(b"x" * 1000, length=100_000)
    async with host.holding():
        chunks = Fetching(authority, host).fetcher.fetch(f"https://clips.bonafide:{host.port}/")
        assert await anext(chunks) == b"x" * 1000
        await chunks.aclose()
        await asyncio.wait_for(host.left.wait(), 5)


async def test_a_name_that_does_not_resolve_is_unreachable(authority: Authority, host: Host) -> None:
    async def failing_names(host: str, port: int) -> Sequence[str]:
        raise OSError(f"{host}:{port} is not known")

    backend = GuardedBackend(AddressGuard(), failing_names)
    assert await Fetching(authority, host, backend=backend).reason("/") == "URI_UNREACHABLE"


async def test_an_object_is_asked_for_at_the_storage_with_a_signature(authority: Authority, host: Host) -> None:
    host.answers["/clips/a%20b/c.mp4"] = ok(BODY)
    storage = S3Storage(Target("clips.bonafide", host.port, "/"), S3Credentials("KEY", "SECRET", "eu-central-1"))
    fetching = Fetching(authority, host, storage=storage, now=lambda: datetime(2030, 1, 2, tzinfo=UTC))
    assert await fetching.get("s3://clips/a%20b/c.mp4") == BODY
    head = host.asked[0].lower()
    assert "credential=key/20300102/eu-central-1/s3/aws4_request" in head
    assert "secret" not in head
    host.answers["/clips/moved"] = redirect("/clips/a%20b/c.mp4")
    assert await fetching.reason("s3://clips/moved") == "TOO_MANY_REDIRECTS"
    assert "SECRET" not in repr(storage)


async def test_an_object_is_asked_for_anonymously_without_keys(authority: Authority, host: Host) -> None:
    host.answers["/clips/a"] = ok(BODY)
    fetching = Fetching(authority, host, storage=S3Storage(Target("clips.bonafide", host.port, "/")))
    assert await fetching.get("s3://clips/a") == BODY
    assert "authorization" not in host.asked[0].lower()


def test_the_signature_is_that_of_amazons_own_example() -> None:
    """The GET of the S3 API Reference, "Examples of the Complete Signature Version 4 Calculation"."""
    headers = signed_headers(
        Target("examplebucket.s3.amazonaws.com", 443, "/test.txt"),
        S3Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1"),
        datetime(2013, 5, 24, tzinfo=UTC),
        {"range": "bytes=0-9"},
    )
    assert headers["x-amz-content-sha256"] == hashlib.sha256(b"").hexdigest()
    assert headers["authorization"].endswith(
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )


async def test_nothing_of_this_machine_is_reached_by_a_socket_file() -> None:
    backend = GuardedBackend(AddressGuard(), Names([HERE]))
    with pytest.raises(PermissionDeniedError):
        await backend.connect_unix_socket("/run/secret.sock")
