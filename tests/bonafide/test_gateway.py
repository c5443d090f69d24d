"""Both clients and the command line against the real gateway, with peers whose answers are known."""

from __future__ import annotations

import asyncio
import doctest
import hashlib
import json
import sys
from pathlib import Path

import pytest

import bonafide.client
from bonafide import AsyncClient, Client, ClientError, Credentials, Uploaded, Uri, cli
from bonafide.errors import AccessDeniedError, BadInputError, NotFoundError
from services.common.evidence import Branch, Verdict
from services.gateway.api_keys import new_key
from services.gateway.quotas import Quota
from tests import media_factory as media
from tests.common.test_models import make_model
from tests.gateway.test_service import CLIP, LIMIT, Stack


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    make_model(tmp_path / "models")
    return Stack(tmp_path / "models", spool_directory=tmp_path / "spool")


async def test_the_example_of_the_docstring_runs(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clip.mp4").write_bytes(CLIP)
    monkeypatch.chdir(tmp_path)
    example = next(found for found in doctest.DocTestFinder().find(bonafide.client.Client) if found.name == "Client")
    assert sum(len(each.source.splitlines()) for each in example.examples) <= 10
    async with stack:
        assert await stack.is_serving()
        monkeypatch.setenv("BONAFIDE_SERVER", stack.address)
        results = await asyncio.to_thread(doctest.DocTestRunner().run, example)
    assert (results.attempted, results.failed) == (len(example.examples), 0)


async def test_both_clients_get_the_same_answer(stack: Stack) -> None:
    async with stack:
        assert await stack.is_serving()
        async with AsyncClient(stack.address) as client:
            one = await client.analyze(CLIP, request_id="one", timeout=30)
        with Client(stack.address) as connection:
            other = await asyncio.to_thread(connection.analyze, CLIP, request_id="two", timeout=30)
    assert one.verdict is other.verdict is Verdict.AUTHENTIC
    assert [line.branch for line in one.branches] == list(Branch)
    assert (one.request_id, other.request_id) == ("one", "two")
    assert one.media == other.media


async def test_a_refusal_in_the_middle_of_an_upload_is_heard_by_both(stack: Stack) -> None:
    too_much = CLIP + bytes(4 * LIMIT)
    async with stack:
        assert await stack.is_serving()
        async with AsyncClient(stack.address) as client:
            with pytest.raises(BadInputError) as one:
                await client.analyze(too_much, timeout=30)
        with Client(stack.address) as connection, pytest.raises(BadInputError) as other:
            await asyncio.to_thread(connection.analyze, too_much, timeout=30)
    assert one.value.reason == other.value.reason == "FILE_TOO_LARGE"


async def test_uploads_batches_and_uris(stack: Stack) -> None:
    async with stack:
        assert await stack.is_serving()
        async with AsyncClient(stack.address) as client:
            uploaded = await client.upload(CLIP, timeout=30)
            analysis = await client.analyze(uploaded, timeout=30)
            items = [uploaded, Uploaded("0" * 32), Uri("https://not.allowed.test/clip.mp4")]
            results = {result.index: result async for result in client.batch(items, timeout=30)}
            await client.delete_upload(uploaded)
            with pytest.raises(ClientError) as gone:
                await client.analyze(uploaded, timeout=30)
        with Client(stack.address) as connection:
            other = await asyncio.to_thread(connection.upload, CLIP, timeout=30)
            again = await asyncio.to_thread(connection.analyze, other, timeout=30)
    assert analysis.media.sha256 == again.media.sha256 == hashlib.sha256(CLIP).hexdigest()
    assert results[0].analysis is not None
    assert results[0].analysis.verdict is analysis.verdict
    assert isinstance(results[1].error, NotFoundError)
    assert isinstance(results[2].error, ClientError)
    assert isinstance(gone.value, NotFoundError)


async def test_a_key_of_the_gateway_opens_it_and_no_key_does_not(tmp_path: Path) -> None:
    text, key = new_key("me", Quota())
    keys = tmp_path / "keys"
    keys.write_text(key.line() + "\n")
    make_model(tmp_path / "models")
    async with Stack(tmp_path / "models", spool_directory=tmp_path / "spool", api_keys=keys) as stack:
        assert await stack.is_serving()
        async with AsyncClient(stack.address, credentials=Credentials(api_key=text)) as client:
            assert (await client.analyze(CLIP, timeout=30)).request_id
        for wrong in ("", "bf_wrong"):
            async with AsyncClient(stack.address, credentials=Credentials(api_key=wrong)) as client:
                with pytest.raises(AccessDeniedError) as denied:
                    await client.analyze(CLIP * 200, timeout=30)
                assert denied.value.code == "UNAUTHENTICATED"
                with pytest.raises(AccessDeniedError):
                    await client.models()


async def test_the_command_line_in_a_process_of_its_own(stack: Stack, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.mp4", tmp_path / "bad.mp4"
    good.write_bytes(CLIP)
    bad.write_bytes(media.text_file())

    async def run(*arguments: str) -> tuple[int | None, list[str], list[str]]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bonafide.cli", *arguments, "--server", stack.address),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode, out.decode().splitlines(), err.decode().splitlines()

    async with stack:
        assert await stack.is_serving()
        code, lines, _ = await run("analyze", str(good), str(bad), "--json")
        shown = await run("analyze", str(good))
        listed = await run("models", "--json")
    assert code == 2
    answer, refusal = map(json.loads, lines)
    assert answer["verdict"] == "AUTHENTIC"
    assert refusal["error"]["reason"] == "UNSUPPORTED_MEDIA"
    assert shown[0] == 0
    assert any("AUTHENTIC" in line for line in shown[1])
    assert listed[0] == 0
    assert json.loads(listed[1][0])[0]["sha256"]


async def test_the_command_line_sends_large_files_in_pieces_and_hands_uris_on(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clip.mp4").write_bytes(CLIP)
    monkeypatch.setattr(cli, "_IN_PIECES_FROM_BYTES", len(CLIP))
    async with stack:
        assert await stack.is_serving()
        arguments = ["analyze", "--json", "--priority", "batch", "--server", stack.address]
        large = await asyncio.to_thread(cli.main, [*arguments, str(tmp_path / "clip.mp4")])
        remote = await asyncio.to_thread(cli.main, [*arguments, "https://not.allowed.test/clip.mp4"])
    answer, refusal = map(json.loads, capsys.readouterr().out.splitlines())
    assert (large, answer["verdict"]) == (0, "AUTHENTIC")
    assert answer["media"]["sha256"] == hashlib.sha256(CLIP).hexdigest()
    assert remote != 0
    assert refusal["file"] == "https://not.allowed.test/clip.mp4"
    assert refusal["error"]["reason"].startswith("URI_")
    assert not list((tmp_path / "spool").rglob("*.whole"))  # let go of at once
