"""Triton under mutual TLS: our certificates open it, also after they have changed, and nobody else's do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deploy.local import triton
from deploy.local.authority import Authority
from deploy.local.processes import free_ports, stop_together
from services.common.certificates import CertificateFiles, CertificateStore
from services.common.errors import UnavailableError
from services.common.inference import TritonEngine, TritonLimits
from tests.local.conftest import start_triton

INPUTS = {"pixels": np.zeros((1, 2, 4), np.uint8)}
IMPATIENT = TritonLimits(patience_seconds=0.5)


async def test_ours_get_in_with_old_and_new_certificates_and_strangers_do_not(
    installation: triton.TritonInstallation, tiny_repository: Path, tmp_path: Path
) -> None:
    authority = Authority()
    server = authority.issue("triton", tmp_path / "triton", loopback=True)
    visual = authority.issue("visual", tmp_path / "visual")
    stranger = Authority().issue("visual", tmp_path / "stranger")
    trusting = CertificateFiles(stranger.chain, stranger.key, server.authorities)
    ports = tuple(free_ports(2))
    process, address, _ = start_triton(installation, tiny_repository, ["tiny"], tmp_path, ports, server)
    engines = [
        TritonEngine(address, certificates=CertificateStore(visual)),
        TritonEngine(address, certificates=CertificateStore(trusting), limits=IMPATIENT),
        TritonEngine(address, limits=IMPATIENT),
    ]
    try:
        ours, *others = engines
        assert (await ours.infer("tiny", INPUTS, timeout=20))["scores"].shape == (1, 2, 3)
        for other in others:
            with pytest.raises(UnavailableError):
                await other.infer("tiny", INPUTS, timeout=5)
        # Started again, it knows another authority only; the engine has to find the new files by itself.
        later = Authority()
        server = later.issue("triton", tmp_path / "triton", loopback=True)
        later.issue("visual", tmp_path / "visual")
        stop_together([process], 10)
        process, _, _ = start_triton(installation, tiny_repository, ["tiny"], tmp_path, ports, server)
        assert (await ours.infer("tiny", INPUTS, timeout=20))["scores"].shape == (1, 2, 3)
    finally:
        for engine in engines:
            await engine.close()
        stop_together([process], 10)
