"""A real Prometheus on loopback: scrapes the stack, evaluates the rules, answers questions."""

from __future__ import annotations

import json
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deploy.local.processes import ManagedProcess, free_ports
from deploy.observe.files import COMPONENT_LABEL, RULES
from deploy.observe.tools import Tools

_PAUSE_SECONDS = 0.1
_INTERVAL = re.compile(r"^( +interval: )\S+$", re.MULTILINE)
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback, whatever proxy the machine has


class PrometheusError(Exception):
    """Prometheus did not start, or did not answer; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of an answer."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One observation that was made within a trace."""

    labels: Mapping[str, str]
    trace_id: str
    value: float


def configuration(targets: Mapping[str, str], scrape_seconds: float, rules: Path = RULES) -> str:
    """Prometheus's own configuration, as JSON, which is YAML: whom to scrape, what to record and alert on.

    Args:
        targets: HOST:PORT by component; those named gateway-2 and so on count as ``gateway``.
        scrape_seconds: pause between scrapes and between evaluations.
        rules: what to record and alert on.
    """
    interval = _duration(scrape_seconds)
    static = [
        {"targets": [address], "labels": {COMPONENT_LABEL: name.partition("-")[0]}} for name, address in targets.items()
    ]
    return json.dumps(
        {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "storage": {"exemplars": {"max_exemplars": 100_000}},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": "bonafide", "static_configs": static}],
        },
        indent=2,
    )


class Prometheus:
    """One server process with storage of its own; a context manager.

    Args:
        tools: the executable.
        targets: HOST:PORT by component.
        directory: where configuration, log and storage go; storage of a run before is removed.
        scrape_seconds: pause between scrapes, and between evaluations of every rule, whatever its own is.
    """

    def __init__(self, tools: Tools, targets: Mapping[str, str], directory: Path, scrape_seconds: float = 1.0) -> None:
        self._tools = tools
        self._directory = directory
        self._targets = targets
        self._scrape_seconds = scrape_seconds
        self._process: ManagedProcess | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        file, rules, storage = (self._directory / name for name in ("prometheus.yml", "rules.yml", "storage"))
        file.write_text(configuration(self._targets, self._scrape_seconds, rules), encoding="utf-8")
        pace = rf"\g<1>{_duration(self._scrape_seconds)}"
        rules.write_text(_INTERVAL.sub(pace, RULES.read_text(encoding="utf-8")), encoding="utf-8")
        shutil.rmtree(storage, ignore_errors=True)
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        command = [
            str(self._tools.prometheus),
            f"--config.file={file}",
            f"--storage.tsdb.path={storage}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
            "--log.level=warn",
        ]
        self._process = ManagedProcess("prometheus", command, {}, self._directory / "prometheus.log")
        try:
            self._await_ready(20.0)
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.ask_to_stop()
            self._process.wait(5)
            self._process.kill()
        shutil.rmtree(self._directory / "storage", ignore_errors=True)

    def query(self, expression: str) -> list[Sample]:
        """The series that an expression has now."""
        found = self._ask("query", query=expression)["result"]
        return [Sample(each["metric"], float(each["value"][1])) for each in found]

    def names(self) -> list[str]:
        """Names of all metrics that it holds."""
        return [str(name) for name in self._ask("label/__name__/values")]

    def exemplars(self, expression: str, seconds: float) -> list[Exemplar]:
        """Exemplars of the last seconds of the series that an expression asks for."""
        now = time.time()
        found = self._ask("query_exemplars", query=expression, start=f"{now - seconds:.3f}", end=f"{now + 1:.3f}")
        return [
            Exemplar(series["seriesLabels"], each["labels"].get("trace_id", ""), float(each["value"]))
            for series in found
            for each in series["exemplars"]
        ]

    def down(self) -> dict[str, str]:
        """Targets that could not be scraped when last tried: address to error; those not tried yet too."""
        found = self._ask("targets", state="active")["activeTargets"]
        return {each["scrapeUrl"]: each["lastError"] or each["health"] for each in found if each["health"] != "up"}

    def await_rules(self, seconds: float) -> None:
        """Wait until every rule has been evaluated.

        Raises:
            PrometheusError: one was not, in time.
        """
        ends = time.monotonic() + seconds
        while waiting := [rule["name"] for rule in self._rules() if rule["health"] == "unknown"]:
            if time.monotonic() > ends:
                raise PrometheusError(f"not evaluated: {waiting}")
            time.sleep(_PAUSE_SECONDS)

    def broken_rules(self) -> dict[str, str]:
        """Rules whose last evaluation failed: name to error."""
        return {rule["name"]: rule["lastError"] for rule in self._rules() if rule.get("lastError")}

    def await_scrapes(self, seconds: float) -> None:
        """Wait until every target has been scraped.

        Raises:
            PrometheusError: one was not, in time.
        """
        ends = time.monotonic() + seconds
        while self.down() or len(self.query('up{job="bonafide"} == 1')) < len(self._targets):
            if time.monotonic() > ends:
                raise PrometheusError(f"not scraped: {self.down()}")
            time.sleep(_PAUSE_SECONDS)

    def _rules(self) -> list[Any]:
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def _await_ready(self, seconds: float) -> None:
        assert self._process is not None
        ends = time.monotonic() + seconds
        while True:
            if self._process.exit_code is not None:
                raise PrometheusError(f"Prometheus ended: {self._process.last_line()}")
            try:
                with _OPENER.open(f"{self.url}/-/ready", timeout=5):
                    return
            except OSError as error:
                if time.monotonic() > ends:
                    raise PrometheusError("Prometheus was not ready in time") from error
            time.sleep(_PAUSE_SECONDS)

    def _ask(self, what: str, **arguments: str) -> Any:  # noqa: ANN401 - as JSON has it
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(arguments)}"
        try:
            with _OPENER.open(url, timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise PrometheusError(f"{what} {arguments}: {error.read().decode(errors='replace')}") from error


def _duration(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
