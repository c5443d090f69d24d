"""The ``bonafide`` command: run the stack, analyse clips, list the models."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bonafide import analysis as answers
from bonafide import keys, models_import, models_rollout
from bonafide.analysis import Event, ServedModel
from bonafide.client import DEFAULT_TIMEOUT_SECONDS, Client
from bonafide.connection import ADDRESS_VARIABLE, DEFAULT_ADDRESS, Credentials
from bonafide.errors import BadInputError, ClientError, ServerUnreachableError
from bonafide.messages import Priority
from bonafide.report import print_report, render_models
from bonafide.uploads import Uploaded, Uri
from bonafide.wording import STAGES
from services.common.errors import BonafideError
from services.common.evidence import Branch
from services.common.models import ModelRepository
from services.common.settings import EngineChoice

if TYPE_CHECKING:  # a client needs none of it
    from deploy.local.identities import Identities

_IN_PIECES_FROM_BYTES = 64 << 20
EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_UNREACHABLE = 3
_MODEL_STEPS = ("import", *models_rollout.STEPS)
_SERVER_VARIABLE = ADDRESS_VARIABLE
_KEY_VARIABLE, _TOKEN_VARIABLE = "BONAFIDE_API_KEY", "BONAFIDE_TOKEN"
"""Secrets come from the environment, because a command line is seen by everybody on the machine."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0 done, 1 the server failed, 2 bad input, 3 server unreachable."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:2] == ["models", "import"]:  # its options are those of the training environment
        return models_import.main(given[2:])
    if given[:1] == ["models"] and given[1:2] and given[1] in models_rollout.STEPS:
        return models_rollout.main(given[1:])
    if given[:1] == ["keys"]:
        return keys.main(given[1:])
    options = _parser().parse_args(given)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bonafide", description="Is a clip bona fide or a deepfake?")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    server = argparse.ArgumentParser(add_help=False)
    server.add_argument(
        "--server",
        metavar="HOST:PORT",
        default=os.environ.get(_SERVER_VARIABLE, DEFAULT_ADDRESS),
        help=f"gateway to ask (default: ${_SERVER_VARIABLE} or {DEFAULT_ADDRESS})",
    )
    _add_credentials(server)

    up = commands.add_parser("up", help="run the whole stack in the foreground until Ctrl-C")
    up.add_argument("--port", type=int, default=int(DEFAULT_ADDRESS.rpartition(":")[2]), help="the gateway's port")
    up.add_argument("--engine", type=EngineChoice, choices=list(EngineChoice), default=EngineChoice.AUTO)
    up.add_argument("--mtls", action="store_true", help="mutual TLS on every hop, with certificates made for this run")
    up.set_defaults(command=_up)

    analyze = commands.add_parser("analyze", parents=[server], help="analyse clips")
    analyze.add_argument("files", nargs="+", type=_clip, metavar="FILE", help="a path, or an https:// or s3:// URI")
    analyze.add_argument("--json", action="store_true", help="print one JSON object a file and nothing else")
    analyze.add_argument(
        "--branches",
        type=_branches,
        default=[],
        metavar="NAME,NAME",
        help=f"run only these of {', '.join(Branch)}",
    )
    lanes = [lane.name.lower() for lane in Priority if lane is not Priority.UNSPECIFIED]
    analyze.add_argument("--priority", choices=lanes, default="interactive", help="lane in which it waits")
    analyze.add_argument("--policy", default="", metavar="NAME", help="decision policy (default: the server's)")
    analyze.add_argument("--timeout", type=float, default=DEFAULT_TIMEOUT_SECONDS, metavar="SECONDS")
    analyze.set_defaults(command=_analyze)

    models = commands.add_parser(
        "models",
        parents=[server],
        help="list the models; import one, or roll one out, by models STEP --help: " + ", ".join(_MODEL_STEPS),
    )
    models.add_argument("--json", action="store_true", help="print one JSON array")
    models.set_defaults(command=_models)
    commands.add_parser("keys", help="make API keys for callers of a gateway (keys new --help)", add_help=False)
    return parser


def _add_credentials(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "security", f"An API key is read from ${_KEY_VARIABLE}, a token from ${_TOKEN_VARIABLE}."
    )
    group.add_argument("--tls", action="store_true", help="speak TLS; implied by the next four")
    group.add_argument("--ca", type=Path, metavar="FILE", help="authorities to trust (default: the system's)")
    group.add_argument("--cert", type=Path, metavar="FILE", help="certificate to show")
    group.add_argument("--key", type=Path, metavar="FILE", help="its private key")
    group.add_argument("--server-name", default="", metavar="NAME", help="name in the server's certificate")
    group.add_argument("--plain-text", action="store_true", help="go without TLS to another machine")


def _client(options: argparse.Namespace) -> Client:
    """The client that the options describe; a set-up that cannot work ends the command."""
    credentials = Credentials(
        api_key=os.environ.get(_KEY_VARIABLE, ""),
        token=os.environ.get(_TOKEN_VARIABLE, ""),
        tls=options.tls,
        root_certificates=options.ca,
        certificate=options.cert,
        private_key=options.key,
        server_name=options.server_name,
        allow_plain_text=options.plain_text,
    )
    try:
        return Client(options.server, credentials=credentials)
    except (OSError, ValueError) as error:
        _complain(str(error))
        raise SystemExit(EXIT_BAD_INPUT) from error


def _branches(text: str) -> list[Branch]:
    try:
        return [Branch(name.strip()) for name in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of {', '.join(Branch)}") from None


def _analyze(options: argparse.Namespace) -> int:
    with _client(options) as client:
        return max(_analyze_one(client, file, options) for file in options.files)


def _clip(text: str) -> Path | Uri:
    return Uri(text) if text.startswith(("https://", "s3://")) else Path(text)


def _analyze_one(client: Client, clip: Path | Uri, options: argparse.Namespace) -> int:
    file = clip.uri if isinstance(clip, Uri) else str(clip)
    try:
        with _Progress(Path(file).name) as progress, _at_server(client, clip, options, progress) as found:
            analysis = client.analyze(
                found,
                name=Path(file).name,
                branches=options.branches,
                policy=options.policy,
                priority=Priority[options.priority.upper()],
                timeout=options.timeout,
                on_event=progress.show,
            )
    except ClientError as error:
        _complain(f"{file}: {error.message} [{error.reason}]")
        if options.json:
            problem = {"code": error.code, "reason": error.reason, "message": error.message}
            print(json.dumps({"file": file, "error": problem}), flush=True)
        return _exit_code(error)
    if options.json:
        print(json.dumps({"file": file, **analysis.to_dict()}), flush=True)
    else:
        print_report(Console(), file, analysis)
    return EXIT_DONE


@contextmanager
def _at_server(
    client: Client, clip: Path | Uri, options: argparse.Namespace, progress: _Progress
) -> Iterator[Path | Uploaded | Uri]:
    """The clip as it is best sent: a large file in pieces, so that a dropped connection does not cost all of it."""
    if isinstance(clip, Uri) or not clip.is_file() or clip.stat().st_size < _IN_PIECES_FROM_BYTES:
        yield clip
        return
    uploaded = client.upload(clip, on_sent=progress.sent, timeout=options.timeout)
    try:
        yield uploaded
    finally:
        with suppress(ClientError):  # it expires by itself
            client.delete_upload(uploaded)


def _exit_code(error: ClientError) -> int:
    if isinstance(error, BadInputError):
        return EXIT_BAD_INPUT
    return EXIT_UNREACHABLE if isinstance(error, ServerUnreachableError) else EXIT_FAILED


class _Progress:
    """A live bar on stderr, when stderr is a terminal."""

    def __init__(self, title: str) -> None:
        console = Console(stderr=True)
        columns = (TextColumn(title), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("sending", total=100)
        self._landed: list[str] = []

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def sent(self, count: int, whole: int) -> None:
        """Move the bar while a file is sent in pieces."""
        self._bar.update(self._task, completed=100 * count / max(whole, 1), description="sending")

    def show(self, event: Event) -> None:
        """Move the bar, or note a branch that has ended."""
        if isinstance(event, answers.Progress):
            stage = STAGES[event.stage]
            self._bar.update(self._task, completed=event.percent, description=" ".join([stage, *self._landed]))
        else:
            self._landed.append(event.branch)


def _models(options: argparse.Namespace) -> int:
    try:
        with _client(options) as client:
            models = client.models()
    except ServerUnreachableError:
        from deploy.local.stack import ROOT  # noqa: PLC0415 - needs more packages than a client has

        _complain(f"no server answers at {options.server}: listing the model repository on disk")
        models = _models_on_disk(ModelRepository(ROOT / "model_repository"))
    except ClientError as error:
        _complain(error.message)
        return _exit_code(error)
    if options.json:
        print(json.dumps([_model_fields(model) for model in models]))
    else:
        Console().print(render_models(models))
    return EXIT_DONE


def _model_fields(model: ServedModel) -> dict[str, str]:
    return {name: getattr(model, name) for name in ServedModel.__slots__}


def _models_on_disk(repository: ModelRepository) -> list[ServedModel]:
    models = []
    for name in repository.names():
        try:
            card = repository.verified(name)
        except BonafideError as error:
            _complain(error.message)
            continue
        models.append(ServedModel(name, card.version, card.sha256, card.trained_on, card.headline, card.licence))
    return models


def _up(options: argparse.Namespace) -> int:
    # Only here: a client needs none of it.
    from deploy.local.stack import Stack, StackError, StackOptions, stop_signals_raise  # noqa: PLC0415

    def say(line: str) -> None:
        print(line, flush=True)

    with stop_signals_raise():
        try:
            plan = StackOptions(gateway_port=options.port, engine=options.engine, secure=options.mtls)
            with Stack(plan, say) as stack:
                say(f"up: bonafide analyze {_shown(stack.identities)}FILE (Ctrl-C stops, engine {stack.engine})")
                while True:
                    for line in stack.tend():
                        say(line)
                    time.sleep(0.2)
        except StackError as error:
            _complain(str(error))
            return EXIT_FAILED
        except KeyboardInterrupt:
            say("stopped")
            return EXIT_DONE


def _shown(identities: Identities | None) -> str:
    """The options with which a client finds its way into a stack under mutual TLS."""
    if identities is None:
        return ""
    own = identities.credentials()
    return (
        f"--ca {own.root_certificates} --cert {own.certificate} --key {own.private_key}"
        f" --server-name {own.server_name} "
    )


def _complain(text: str) -> None:
    print(f"bonafide: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
