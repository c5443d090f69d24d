"""The whole stack under mutual TLS: who gets a verdict, who gets nothing, and certificates that change meanwhile."""

from __future__ import annotations

import datetime as dt
import io
import shlex
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from bonafide import cli
from bonafide.client import Client
from bonafide.connection import Credentials
from bonafide.errors import AccessDeniedError, ServerUnreachableError
from bonafide.v1 import visual_pb2, visual_pb2_grpc
from deploy.local.authority import Authority, server_name
from deploy.local.identities import CALLER, Identities
from deploy.local.stack import GATEWAY, MODEL_SERVICES, Stack, StackOptions
from services.common.certificates import CertificateFiles
from services.common.evidence import Branch, Outcome
from services.common.status import error_reason
from tests import media_factory as make


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(StackOptions(run_directory=tmp_path_factory.mktemp("run"), secure=True)) as running:
        yield running


@pytest.fixture(scope="module")
def identities(stack: Stack) -> Identities:
    assert stack.identities is not None
    return stack.identities


def clip(frames: int = 12) -> bytes:
    return make.Clip(frames=frames, width=640, height=512, picture=lambda *_: make.portrait()).bytes()


def shown(files: CertificateFiles, authority: Path | None) -> Credentials:
    return Credentials(
        root_certificates=authority,
        certificate=files.chain,
        private_key=files.key,
        server_name=server_name(GATEWAY),
    )


def served_certificate(stack: Stack, name: str, files: CertificateFiles) -> str:
    """The certificate that a running service shows, in PEM."""
    assert files.chain is not None
    assert files.key is not None
    context = ssl.create_default_context(cafile=str(files.authorities))
    context.load_cert_chain(files.chain, files.key)
    context.set_alpn_protocols(["h2"])
    host, _, port = stack.addresses[name].rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=server_name(name)) as secured,
    ):
        der = secured.getpeercert(binary_form=True)
        assert der is not None
        return ssl.DER_cert_to_PEM_cert(der)


def test_a_verdict_through_mutual_tls_on_every_hop(stack: Stack, identities: Identities) -> None:
    with Client(stack.gateway, credentials=identities.credentials()) as client:
        answer = client.analyze(io.BytesIO(clip()), timeout=60)
    outcomes = {report.branch: report.outcome for report in answer.branches}
    assert outcomes[Branch.FRAME] is Outcome.SCORED


def test_the_options_that_up_prints_let_the_command_in(stack: Stack, identities: Identities, tmp_path: Path) -> None:
    still = tmp_path / "still.png"
    still.write_bytes(make.still_picture("PNG"))
    assert cli.main(["analyze", *shlex.split(cli._shown(identities)), "--server", stack.gateway, str(still)]) == 0


def test_strangers_and_the_expired_do_not_get_in(stack: Stack, identities: Identities, tmp_path: Path) -> None:
    ours = identities.files(CALLER).authorities
    stranger = Authority().issue(CALLER, tmp_path / "stranger")
    expired = identities.authority.issue(CALLER, tmp_path / "expired", life=-dt.timedelta(hours=1))
    nobody = Credentials(root_certificates=ours, server_name=server_name(GATEWAY))
    for credentials in (shown(stranger, ours), shown(expired, ours), nobody, Credentials()):
        with Client(stack.gateway, credentials=credentials) as client, pytest.raises(ServerUnreachableError):
            client.models(timeout=5)


def test_a_certificate_of_ours_opens_only_the_doors_of_its_id(
    stack: Stack, identities: Identities, tmp_path: Path
) -> None:
    ours = identities.files(CALLER).authorities
    other = identities.authority.issue(CALLER, tmp_path, spiffe="spiffe://elsewhere/caller")
    for credentials in (shown(other, ours), identities.credentials("audio")):
        with Client(stack.gateway, credentials=credentials) as client, pytest.raises(AccessDeniedError) as denied:
            client.models(timeout=5)
        assert denied.value.reason == "PEER_NOT_ALLOWED"
    read = identities.files(CALLER).read()
    secret = grpc.ssl_channel_credentials(read.authorities, read.key, read.chain)
    override = [("grpc.ssl_target_name_override", server_name("visual"))]
    with grpc.secure_channel(stack.addresses["visual"], secret, options=override) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            visual_pb2_grpc.VisualServiceStub(channel).AnalyzeFaces(visual_pb2.AnalyzeFacesRequest(), timeout=5)
        assert error_reason(refused.value) == "PEER_NOT_ALLOWED"


def test_certificates_change_under_load_and_no_analysis_fails(stack: Stack, identities: Identities) -> None:
    over = threading.Event()
    answered: list[str] = []
    failed: list[BaseException] = []

    def load() -> None:
        while not over.is_set():
            new = clip(frames=4 + len(answered))  # one that no answer is kept of
            try:
                with Client(stack.gateway, credentials=identities.credentials()) as client:
                    answered.append(client.analyze(io.BytesIO(new), timeout=60).request_id)
            except Exception as error:  # noqa: BLE001 - whatever it is, the test is to show it
                failed.append(error)
                return

    thread = threading.Thread(target=load)
    thread.start()
    try:
        before = {
            name: served_certificate(stack, name, identities.files(CALLER)) for name in (*MODEL_SERVICES, GATEWAY)
        }
        for _ in range(2):
            identities.renew()
            count = len(answered)
            while len(answered) < count + 2 and not failed:
                over.wait(0.05)
        after = {name: served_certificate(stack, name, identities.files(CALLER)) for name in before}
    finally:
        over.set()
        thread.join(90)
    assert failed == []
    for name, certificate in after.items():
        assert certificate != before[name]
        chain = identities.files(name).chain
        assert chain is not None
        assert certificate.strip() == chain.read_text().strip()
