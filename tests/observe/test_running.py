"""The parts of ``make observe``: the tools it needs, how Prometheus is told, what is printed."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import av
import pytest
from rich.console import Console

from deploy.local.stack import ROOT
from deploy.observe import tools
from deploy.observe.__main__ import slowest
from deploy.observe.clips import kinds
from deploy.observe.prometheus import configuration
from deploy.observe.receiver import Span
from deploy.observe.report import seconds, trace_tree


def span(
    name: str, own: str, parent: str = "", *, trace: str = "t", start: int = 0, end: int = 1, error: bool = False
) -> Span:
    return Span(
        service="gateway", name=name, kind="internal", trace_id=trace, span_id=own, parent_id=parent,
        start=start, end=end, error=error, attributes={}, events=[],
    )  # fmt: skip


def printed(renderable: object) -> list[str]:
    console = Console(file=io.StringIO(), width=120, no_color=True)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_tools_on_the_path_are_taken_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("prometheus", "promtool"):
        (tmp_path / name).write_text("#!/bin/sh\necho it, version 9\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "CACHE", tmp_path / "nothing")
    found = tools.fetch()
    assert found.promtool == tmp_path / "promtool"
    monkeypatch.undo()
    assert found.version().startswith("it, version 9\nprometheus ")


def test_a_machine_without_them_says_so_in_one_sentence(tmp_path: Path) -> None:
    text = (
        "import pathlib; from deploy.observe import tools;"
        f"tools.CACHE = pathlib.Path({str(tmp_path / 'nothing')!r}); raise SystemExit(tools.main())"
    )
    command = [sys.executable, "-c", text]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "Prometheus is not to be had here: no prometheus on PATH, and no apt-get to fetch it with;"
        " the tests that need it are skipped\n"
    )


def test_a_package_that_is_not_the_tested_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = tools.TESTED_SHA256
    for command, body in (("apt-get", f"echo other > '{name}'"), ("dpkg", "exit 1")):
        (tmp_path / command).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / command).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "CACHE", tmp_path / "cache")
    with pytest.raises(tools.ToolsUnavailableError, match="is not the file that was tested"):
        tools.fetch()


def test_every_target_says_which_component_it_is(tmp_path: Path) -> None:
    text = configuration({"gateway": "127.0.0.1:1", "gateway-2": "127.0.0.1:2", "triton": "127.0.0.1:3"}, 0.5)
    static = json.loads(text)["scrape_configs"][0]["static_configs"]
    assert [each["labels"]["component"] for each in static] == ["gateway", "gateway", "triton"]
    found = tools.find()
    if found is None:
        pytest.skip("no promtool: make prometheus fetches it where there is apt")
    file = tmp_path / "prometheus.yml"
    file.write_text(text)
    done = subprocess.run(
        [found.promtool, "check", "config", file], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_two_copies_of_a_clip_are_the_same_and_all_can_be_read() -> None:
    for kind in kinds(ROOT / ".cache" / "demo"):  # drawing them takes seconds
        first, second = kind.copy(), kind.copy()
        assert first != second
        with av.open(io.BytesIO(first)) as container:
            assert next(container.decode(video=0)).width == 640, kind.name


def test_a_trace_is_a_tree_in_order_of_time() -> None:
    spans = [
        span("late", "c", "a", start=5_000_000, end=6_000_000, error=True),
        span("Analyze", "a", "not here", end=2_000_000_000),
        span("early", "b", "a", start=1_000_000, end=2_000_000),
        span("inner", "d", "b", start=1_000_000, end=1_500_000),
    ]
    lines = printed(trace_tree(spans))
    assert lines[0] == "trace t: 4 spans"
    assert [line.split("gateway ")[1].split()[0] for line in lines[1:]] == ["Analyze", "early", "inner", "late"]
    assert lines[1].endswith("Analyze  2.00 s  at 0.0 ms")
    assert lines[4].endswith("late  1.0 ms  at 5.0 ms  failed")


def test_many_children_of_one_name_are_counted() -> None:
    calls = (span("call", f"c{number}", "r", start=number, end=number * 1_000_000) for number in range(20))
    lines = printed(trace_tree([span("root", "r", end=9), *calls]))
    assert [line.split("call  ")[1].split(" ms")[0] for line in lines if "gateway call" in line] == [
        "17.0",
        "18.0",
        "19.0",
    ]
    assert lines[-1].endswith("17 more of call")
    assert printed(trace_tree([])) == ["no trace arrived"]


def test_the_slowest_trace_is_taken_whole() -> None:
    spans = [span("a", "1", trace="x", end=5), span("b", "2", trace="y", end=9), span("c", "3", "2", trace="y", end=1)]
    assert [each.name for each in slowest(spans)] == ["b", "c"]
    assert slowest([]) == []


def test_times_for_people() -> None:
    assert [seconds(value) for value in (0.0012, 0.5, 2.0, float("nan"))] == ["1.2 ms", "500.0 ms", "2.00 s", "–"]
