"""Unsafe settings: the process refuses to start and says why in one sentence."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.local.authority import Authority
from services.common.connections import is_loopback
from services.common.refusal import ConfigurationError
from services.common.server import EXIT_REFUSED
from services.common.settings import load_settings
from services.gateway.settings import GatewaySettings
from services.visual.settings import VisualSettings

ROOT = Path(__file__).resolve().parents[2]
FILES = {"tls_certificate": "a.pem", "tls_key": "a.key", "tls_authorities": "ca.pem"}
PEER = '["spiffe://bonafide/gateway"]'


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        (VisualSettings, {"listen": "0.0.0.0:1"}, "listen 0.0.0.0:1 is not loopback and would carry plain text"),
        (VisualSettings, {"listen": "[::]:1"}, "is not loopback"),
        (VisualSettings, {"triton_address": "triton:8001"}, "triton_address triton:8001 is not loopback"),
        (VisualSettings, {"tls_certificate": "a.pem"}, "tls_certificate and tls_key go together"),
        (VisualSettings, {"tls_authorities": "ca.pem"}, "tls_authorities needs tls_certificate"),
        (VisualSettings, {"allowed_peers": PEER}, "allowed_peers needs tls_authorities"),
        (VisualSettings, FILES, "needs tls_authorities and allowed_peers"),
        (VisualSettings, FILES | {"allowed_peers": '["gateway"]'}, "does not begin with spiffe://"),
        (VisualSettings, {"allowed_peers": "spiffe://bonafide/gateway"}, "allowed_peers"),
        (VisualSettings, {"drain_seconds": "-1"}, "BONAFIDE_VISUAL_DRAIN_SECONDS: .*greater than or equal to 0"),
        (VisualSettings, {"otlp_endpoint": "http://collector:4317"}, "otlp_endpoint collector:4317 is not loopback"),
        (VisualSettings, {"otlp_endpoint": "127.0.0.1:4317"}, "is not http://HOST:PORT"),
        (VisualSettings, {"otlp_endpoint": "https://collector"}, "is not http://HOST:PORT"),
        (VisualSettings, {"otlp_endpoint": "http://127.0.0.1:port"}, "is not http://HOST:PORT"),
        (
            VisualSettings,
            {"trace_sample_ratio": "1.5"},
            "TRACE_SAMPLE_RATIO: .*less than or equal to 1",
        ),
        (GatewaySettings, {"listen": "0.0.0.0:1"}, "plain text"),
        (GatewaySettings, {"listen": "0.0.0.0:1", "allow_plaintext": "1"}, "anyone there could call"),
        (GatewaySettings, {"listen": "0.0.0.0:1", "tls_certificate": "a", "tls_key": "b"}, "anyone there could call"),
        (GatewaySettings, {"visual_address": "visual:8501"}, "visual_address visual:8501 is not loopback"),
        (GatewaySettings, {"peer_certificate": "a.pem"}, "peer_key go together"),
        (GatewaySettings, {"token_keys": "jwks.json"}, "needs token_issuer and token_audience"),
        (GatewaySettings, {"token_keys": "http://issuer.example/keys"}, "neither a path nor an https URL"),
    ],
)
def test_unsafe_settings_are_refused_in_one_sentence(
    kind: type[Any], settings: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = kind.model_config["env_prefix"]
    for name, value in settings.items():
        monkeypatch.setenv(prefix + name.upper(), value)
    with pytest.raises(ConfigurationError, match=sentence) as refused:
        load_settings(kind)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith((prefix.rstrip("_"), kind.__name__))


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("127.0.0.1:1", True),
        ("127.8.8.8:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("dns:///localhost:1", True),
        ("ipv4:127.0.0.1:1,127.0.0.1:2", True),
        ("unix:/tmp/socket", True),
        ("ipv4:127.0.0.1:1,10.0.0.1:2", False),
        ("127.0.0.1.example:1", False),
        ("localhost.example:1", False),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("visual:1", False),
        (":1", False),
    ],
)
def test_loopback_is_what_cannot_leave_the_machine(address: str, here: bool) -> None:
    assert is_loopback(address) is here


def start(**settings: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {f"BONAFIDE_FUSION_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "services.fusion"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)


def test_a_process_that_must_not_run_ends_with_one_line(tmp_path: Path) -> None:
    other = Authority().issue("other", tmp_path / "other")
    mixed = Authority().issue("fusion", tmp_path / "fusion")
    assert mixed.key is not None
    assert other.key is not None
    mixed.key.write_bytes(other.key.read_bytes())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        attempts = [
            (start(listen="0.0.0.0:0"), "plain text"),
            (
                start(metrics_listen=f"127.0.0.1:{taken.getsockname()[1]}", engine="embedded"),
                "cannot listen on 127.0.0.1",
            ),
            (start(listen=f"127.0.0.1:{taken.getsockname()[1]}", engine="embedded"), "cannot listen on 127.0.0.1"),
            (
                start(
                    tls_certificate=str(mixed.chain),
                    tls_key=str(mixed.key),
                    tls_authorities=str(mixed.authorities),
                    allowed_peers=PEER,
                    engine="embedded",
                ),
                "is not the key of",
            ),
        ]
    for done, sentence in attempts:
        assert done.returncode == EXIT_REFUSED
        (line,) = [line for line in done.stderr.splitlines() if "refuses" in line]
        assert sentence in line
        assert "Traceback" not in done.stderr
