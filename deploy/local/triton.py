"""NVIDIA Triton on one machine without a GPU or Docker: the server inside the ``nvidia-pytriton`` package.

It lives in an environment of its own, because its Python backend needs numpy 1. The package holds no ONNX
Runtime backend, so one of ours (``onnxruntime_backend/model.py``) takes that name; the model repository is
the very one that NVIDIA's image serves.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.common.certificates import CertificateFiles
from services.common.errors import BonafideError
from services.common.models import ModelRepository

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory
_NEVER = 2**31 - 1
BACKEND = Path(__file__).parent / "onnxruntime_backend" / "model.py"

# Run by the interpreter of Triton's environment, which knows where its own packages and libpython are.
_DESCRIBE = """
import importlib.metadata as m, json, sys, sysconfig as s
print(json.dumps({
    "packages": s.get_path("purelib"),
    "library": f"{s.get_config_var('LIBDIR')}/{s.get_config_var('INSTSONAME')}",
    "version": f"{sys.version_info.major}.{sys.version_info.minor}",
    "numpy": m.version("numpy"),
}))
"""


class TritonUnavailableError(Exception):
    """Triton cannot run on this machine; the sentence says why."""


@dataclass(frozen=True, slots=True)
class TritonInstallation:
    """Where the server, its Python backend and the interpreter of its models are."""

    python: Path
    packages: Path
    libpython: Path
    python_version: str

    @property
    def server(self) -> Path:
        """The server's executable."""
        return self.packages / "pytriton" / "tritonserver" / "bin" / "tritonserver"


@dataclass(frozen=True, slots=True)
class TritonPlan:
    """One server to be: what it loads, where it listens, and the name its shared memory carries.

    Its spans go to ``otlp_url`` (OTLP over HTTP as JSON, the only form that it speaks), when there is one.
    """

    installation: TritonInstallation
    repository: Path
    models: Sequence[str]
    backends: Path
    grpc_port: int
    metrics_port: int
    shared_memory_prefix: str
    tls: CertificateFiles | None = None
    otlp_url: str = ""

    def command(self) -> list[str]:
        """The server's command line."""
        return [
            str(self.installation.server),
            f"--model-repository={self.repository}",
            f"--backend-directory={self.backends}",
            f"--backend-config=python,shm-region-prefix-name={self.shared_memory_prefix}",
            "--model-control-mode=explicit",
            *(f"--load-model={name}" for name in self.models),
            "--allow-http=false",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={self.grpc_port}",
            *self._tls(),
            "--metrics-address=127.0.0.1",
            f"--metrics-port={self.metrics_port}",
            "--allow-gpu-metrics=false",
            "--allow-cpu-metrics=false",
            "--exit-timeout-secs=5",
            *self._traces(),
        ]

    def _traces(self) -> list[str]:
        """Spans of calls that carry a traceparent, whose callers decide; of others practically none."""
        if not self.otlp_url:
            return []
        return [
            "--trace-config=mode=opentelemetry",
            "--trace-config=level=TIMESTAMPS",
            f"--trace-config=rate={_NEVER}",
            f"--trace-config=opentelemetry,url={self.otlp_url}",
            "--trace-config=opentelemetry,resource=service.name=triton",
            "--trace-config=opentelemetry,resource=service.namespace=bonafide",
            "--trace-config=opentelemetry,bsp_schedule_delay=1000",
        ]

    def _tls(self) -> list[str]:
        """Mutual TLS; the server reads the files when it starts and never again."""
        if self.tls is None:
            return []
        return [
            "--grpc-use-ssl=true",
            "--grpc-use-ssl-mutual=true",
            f"--grpc-server-cert={self.tls.chain}",
            f"--grpc-server-key={self.tls.key}",
            f"--grpc-root-cert={self.tls.authorities}",
        ]

    def environment(self) -> dict[str, str]:
        """Environment variables that the server adds to the caller's."""
        libraries = [self.installation.packages / "nvidia_pytriton.libs", self.installation.libpython.parent]
        return {
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
            # The backend's stub runs the first python3 on PATH.
            "PATH": os.pathsep.join([str(self.installation.python.parent), os.environ.get("PATH", "")]),
        }


def find_installation(environment: Path) -> TritonInstallation:
    """Find a usable Triton in a virtual environment.

    Raises:
        TritonUnavailableError: this machine or this environment cannot run it.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise TritonUnavailableError("Triton needs Linux on x86_64")
    python = environment / "bin" / "python3"
    if not python.exists():
        raise TritonUnavailableError(f"there is no {environment.name} environment (make triton)")
    answer = subprocess.run(  # noqa: S603 - our own interpreter and text
        [python, "-I", "-c", _DESCRIBE], capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        raise TritonUnavailableError(f"{environment.name} is incomplete (make triton)")
    facts = json.loads(answer.stdout)
    if int(facts["numpy"].split(".")[0]) >= 2:  # noqa: PLR2004
        raise TritonUnavailableError(
            f"{environment.name} holds numpy {facts['numpy']}, with which Triton's models read zeros: it needs numpy 1"
        )
    installation = TritonInstallation(
        python=python.absolute(),
        packages=Path(facts["packages"]),
        libpython=Path(facts["library"]),
        python_version=facts["version"],
    )
    if not installation.server.is_file():
        raise TritonUnavailableError(f"{environment.name} holds no Triton server (make triton)")
    if installation.libpython.suffix == ".a" or not installation.libpython.is_file():
        raise TritonUnavailableError("this Python has no shared libpython, which Triton's Python backend needs")
    return installation


def assemble_backends(installation: TritonInstallation, parent: Path) -> Path:
    """Lay out a backend directory: Triton's Python backend, and ours under the name ``onnxruntime``.

    Copies rather than links: Triton refuses a library whose real path is outside the directory. The
    directory is named after its content and never changed, so servers that run may share it.
    """
    root = installation.packages / "pytriton" / "tritonserver"
    sources = {
        "python": [
            root / "backends" / "python" / "libtriton_python.so",
            root / "backends" / "python" / "triton_python_backend_utils.py",
            root / "python_backend_stubs" / installation.python_version / "triton_python_backend_stub",
        ],
        "onnxruntime": [BACKEND],
    }
    digest = hashlib.sha256()
    for file in itertools.chain.from_iterable(sources.values()):
        digest.update(file.read_bytes())
    directory = parent / f"backends-{digest.hexdigest()[:12]}"
    if not directory.is_dir():
        parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix="backends-draft-", dir=parent))
        for backend, files in sources.items():
            (draft / backend).mkdir()
            for file in files:
                shutil.copy2(file, draft / backend / file.name)
        draft.rename(directory)
    return directory


def loadable_models(repository: ModelRepository) -> tuple[list[str], dict[str, str]]:
    """Names of the models that may be served, and for each of the others the reason why not."""
    loadable: list[str] = []
    refused: dict[str, str] = {}
    for name in repository.names():
        if not (repository.root / name / "config.pbtxt").is_file():
            continue
        try:
            repository.verified(name)
        except BonafideError as error:
            refused[name] = error.message
        else:
            loadable.append(name)
    return loadable, refused


def shared_memory_prefix(pid: int) -> str:
    """Prefix of the shared-memory files of a server that the process ``pid`` starts."""
    return f"bonafide-{pid}-"


def remove_shared_memory(pid: int) -> None:
    """Remove what a killed server may have left: that of ``pid``, and of any starter that is no more."""
    for file in SHARED_MEMORY.glob("bonafide-*"):
        starter = file.name.split("-")[1]
        if starter == str(pid) or (starter.isdecimal() and not Path("/proc", starter).exists()):
            file.unlink(missing_ok=True)
