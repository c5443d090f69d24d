"""``bonafide models STEP``: the steps of a roll-out, one command each.

Each changes a directory or the rollout file and nothing else, and the services notice by themselves; the last two
only show.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

from services.common.errors import BonafideError, ModelRepositoryError
from services.common.models import HEADS, ModelRepository
from services.common.rollout_plan import Budgets, Mode, ModelPlan, RolloutPlan, dump_plan, parse_plan

ROOT = Path(__file__).resolve().parents[1]
FILE_VARIABLE = "BONAFIDE_ROLLOUT_FILE"
DEFAULT_FILE = ROOT / ".run" / "rollout.json"
STEPS = ("stage", "shadow", "canary", "promote", "rollback", "retire", "plan", "trials")

Step = Callable[[argparse.Namespace, ModelRepository, RolloutPlan], RolloutPlan | None]
"""Does a step; answers the plan to be written, if it changes."""


def main(arguments: Sequence[str]) -> int:
    """Run one step; 0 done, 2 it cannot be done."""
    options = _parser().parse_args(arguments)
    step: Step = options.step
    file: Path = options.file
    try:
        before = parse_plan(file.read_bytes()) if file.is_file() else RolloutPlan()
        after = step(options, ModelRepository(options.repository), before)
        if after is not None:
            _write(file, after)
    except (BonafideError, OSError) as error:
        print(f"bonafide: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--repository", type=Path, default=ROOT / "model_repository", metavar="DIRECTORY")
    common.add_argument(
        "--file",
        type=Path,
        default=Path(os.environ.get(FILE_VARIABLE, DEFAULT_FILE)),
        help=f"the rollout file (default: ${FILE_VARIABLE} or .run/rollout.json)",
    )
    parser = argparse.ArgumentParser(prog="bonafide models", description="Roll a model or fusion heads out.")
    steps = parser.add_subparsers(required=True, metavar="STEP")

    def add(name: str, step: Step, text: str, *, version: bool) -> argparse.ArgumentParser:
        made = steps.add_parser(name, parents=[common], help=text, description=text)
        made.add_argument("name", metavar="NAME", help="directory in the model repository, or fusion_heads")
        if version:
            made.add_argument("version", metavar="VERSION", help="a whole number")
        made.set_defaults(step=step)
        return made

    stage = add("stage", _stage, "put a version beside those that are served; it takes no part yet", version=True)
    stage.add_argument("--from", dest="source", type=Path, required=True, metavar="DIRECTORY")
    for mode, text in (
        (Mode.SHADOW, "compare a version on a share of the clips; it is never heard"),
        (Mode.CANARY, "let a version answer a share of the clips"),
    ):
        _add_trial(add(mode.value, _trial, text, version=True), mode)
    add("promote", _promote, "make the candidate the stable version", version=False)
    add("rollback", _rollback, "drop the candidate; without one, go back to the stable version before", version=False)
    add("retire", _retire, "remove a staged version that the plan does not name", version=True)
    plan = steps.add_parser("plan", parents=[common], help="show the plan", description="show the plan")
    plan.set_defaults(step=_show)
    text = "show how candidates do, by the metrics of the services that try them"
    trials = steps.add_parser("trials", parents=[common], help=text, description=text)
    trials.add_argument("addresses", nargs="+", metavar="HOST:PORT", help="where a service's metrics are scraped")
    trials.set_defaults(step=_trials)
    return parser


def _add_trial(parser: argparse.ArgumentParser, mode: Mode) -> None:
    known = Budgets()
    parser.add_argument("--share", type=float, required=mode is Mode.CANARY, default=1.0, help="0 to 1 of the clips")
    parser.add_argument("--errors", type=float, default=known.errors, help="share of clips on which it may fail")
    parser.add_argument("--disagreement", type=float, default=known.disagreement, help="share that may differ")
    parser.add_argument("--margin", type=float, default=known.margin, help="difference of probability that counts")
    parser.add_argument("--minimum", type=int, default=known.minimum, help="clips before anything is concluded")
    parser.add_argument("--seconds", type=float, default=known.seconds, help="time that a call to it may take")
    parser.set_defaults(mode=mode)


def _stage(options: argparse.Namespace, repository: ModelRepository, plan: RolloutPlan) -> None:  # noqa: ARG001
    from bonafide.models_staging import stage  # noqa: PLC0415 - needs more packages than a client has

    print(stage(repository, options.name, options.version, options.source))


def _trial(options: argparse.Namespace, repository: ModelRepository, plan: RolloutPlan) -> RolloutPlan:
    card = repository.at(plan.stable | {options.name: options.version}).verified(options.name)
    stable = plan.stable.get(HEADS, "1") if options.name == HEADS else _stable(repository, plan, options.name)
    if stable == card.version:
        raise ModelRepositoryError(f"{options.name}/{card.version} is the stable version")
    budgets = {field.name: getattr(options, field.name) for field in fields(Budgets)}
    facts = {"version": card.version, "mode": options.mode, "share": options.share, "budgets": budgets}
    asked = parse_plan(json.dumps({"models": {options.name: {"candidate": facts}}}))
    return _with(plan, options.name, replace(_known(plan, options.name), candidate=asked.candidates[options.name]))


def _promote(options: argparse.Namespace, repository: ModelRepository, plan: RolloutPlan) -> RolloutPlan:
    candidate = _known(plan, options.name).candidate
    if candidate is None:
        raise ModelRepositoryError(f"{options.name} has no candidate")
    repository.at(plan.stable | {options.name: candidate.version}).verified(options.name)
    before = _known(plan, options.name).stable
    return _with(plan, options.name, ModelPlan(stable=candidate.version, previous=before))


def _rollback(options: argparse.Namespace, repository: ModelRepository, plan: RolloutPlan) -> RolloutPlan:  # noqa: ARG001
    known = _known(plan, options.name)
    back = replace(known, candidate=None) if known.candidate is not None else ModelPlan(stable=known.previous)
    return _with(plan, options.name, back)


def _retire(options: argparse.Namespace, repository: ModelRepository, plan: RolloutPlan) -> None:
    from bonafide.models_staging import unstage  # noqa: PLC0415 - needs more packages than a client has

    known = _known(plan, options.name)
    tried = known.candidate.version if known.candidate is not None else None
    if options.version in {known.stable, known.previous, tried}:
        raise ModelRepositoryError(f"the plan names {options.name}/{options.version}: take it out first")
    unstage(repository, options.name, options.version)


def _show(options: argparse.Namespace, repository: ModelRepository, plan: RolloutPlan) -> None:  # noqa: ARG001
    print(dump_plan(plan), end="")


def _trials(options: argparse.Namespace, repository: ModelRepository, plan: RolloutPlan) -> None:  # noqa: ARG001
    from bonafide.models_trials import read_trials  # noqa: PLC0415 - needs more packages than a client has

    found = [str(trial) for address in options.addresses for trial in read_trials(address)]
    print("\n".join(found) or "nothing is on trial there")


def _stable(repository: ModelRepository, plan: RolloutPlan, name: str) -> str:
    return repository.at(plan.stable).card(name).version


def _known(plan: RolloutPlan, name: str) -> ModelPlan:
    return plan.models.get(name, ModelPlan())


def _with(plan: RolloutPlan, name: str, model: ModelPlan) -> RolloutPlan:
    models = {**plan.models, name: model}
    return RolloutPlan(models={each: found for each, found in models.items() if found != ModelPlan()})


def _write(file: Path, plan: RolloutPlan) -> None:
    """Replace the file in one step, and only by what reads as a plan."""
    text = dump_plan(plan)
    parse_plan(text)
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=".rollout-", delete=False, encoding="utf-8") as draft:
        draft.write(text)
    Path(draft.name).chmod(0o644)
    Path(draft.name).replace(file)
