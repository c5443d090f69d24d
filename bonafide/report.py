"""The printed report: one screen that answers what, why, and how sure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from bonafide.analysis import Analysis, ServedModel
from bonafide.wording import REASONS, STAGES
from services.common.evidence import BranchReport, Contribution, FaceTrack, Outcome, ScorePoint, Verdict
from services.common.media import MediaInfo

_COLOURS = {Verdict.DEEPFAKE: "red", Verdict.AUTHENTIC: "green", Verdict.INCONCLUSIVE: "yellow"}
_OUTCOME_STYLES = {Outcome.SCORED: "", Outcome.TIMED_OUT: "red", Outcome.FAILED: "red"}
_BARS = "▁▂▃▄▅▆▇█"
_TIMELINE_CELLS = 24
_CONTRIBUTIONS_SHOWN = 6
_HASH_SHOWN = 12


def print_report(console: Console, title: str, analysis: Analysis) -> None:
    """Print the report of one clip."""
    console.print(render_report(title, analysis))


def render_report(title: str, analysis: Analysis) -> RenderableType:
    """The report of one clip, to be printed by rich."""
    parts: list[RenderableType] = [_headline(title, analysis), Text(), _ledger(analysis.branches)]
    if analysis.contributions:
        parts += [Text(), _contributions(analysis.contributions)]
    if analysis.tracks or analysis.tracks_skipped:
        parts += [Text(), _faces(analysis.tracks, analysis.tracks_skipped)]
    return Group(*parts, Text(), _footer(analysis))


def render_models(models: Sequence[ServedModel]) -> RenderableType:
    """The models in service."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for model in models:
        grid.add_row(Text(f"{model.name}/{model.version}", "bold"), f"sha-256 {model.sha256[:_HASH_SHOWN]}")
        grid.add_row("  trained on", model.trained_on)
        grid.add_row("  measured", model.headline)
        grid.add_row("  licence", model.licence)
    return grid


def sparkline(points: Sequence[ScorePoint], cells: int = _TIMELINE_CELLS) -> str:
    """Highest probability in each of ``cells`` equal stretches of the points' time, a blank where none is."""
    if not points:
        return ""
    start = min(point.time_us for point in points)
    end = max(point.time_us + point.duration_us for point in points)
    if end == start:
        return _bar(max(point.probability for point in points))
    highest: list[float | None] = [None] * cells
    for point in points:
        first = (point.time_us - start) * cells // (end - start)
        last = (point.time_us + max(point.duration_us, 1) - 1 - start) * cells // (end - start)
        for cell in range(min(first, cells - 1), min(last, cells - 1) + 1):
            highest[cell] = max(highest[cell] or 0.0, point.probability)
    return "".join(" " if value is None else _bar(value) for value in highest)


def _bar(probability: float) -> str:
    return _BARS[min(int(probability * len(_BARS)), len(_BARS) - 1)]


def _headline(title: str, analysis: Analysis) -> RenderableType:
    policy = analysis.policy
    verdict = Text.assemble((f" {analysis.verdict} ", f"bold reverse {_COLOURS[analysis.verdict]}"), "  ")
    if analysis.probability is not None:
        verdict.append(f"P(deepfake) = {analysis.probability:.3f}", "bold")
    lines = [Text(title, "bold"), verdict]
    lines += [Text(f"  {REASONS[reason]}") for reason in analysis.reasons]
    rule = (
        f"policy {policy.name}: deepfake from {policy.deepfake_threshold:.2f},"
        f" authentic up to {policy.authentic_threshold:.2f}"
    )
    if 0.0 < policy.false_positive_bound < 1.0:
        rule += f", at most {policy.false_positive_bound:.1%} false alarms"
    lines += [Text(f"  {rule}", "dim"), Text(f"  {_media(analysis.media)}", "dim")]
    return Group(*lines)


def _media(media: MediaInfo) -> str:
    parts = [media.container.partition(",")[0]]
    if media.video_codec:
        rate = f" {media.frame_rate:.3g}/s" if media.frame_rate else ""
        turned = f", turned {media.rotation_degrees}°" if media.rotation_degrees else ""
        parts.append(f"{media.video_codec} {media.width}×{media.height}{rate}{turned}")
    if media.audio_codec:
        parts.append(media.audio_codec)
    parts.append("a picture" if media.still else f"{media.duration_us / 1e6:.1f} s")
    parts.append(f"{media.size_bytes / 1e6:.2f} MB")
    parts.append(f"{media.frames_sampled} frames looked at")
    if media.partial:
        parts.append("damaged or cut")
    return " · ".join(part for part in parts if part)


def _ledger(reports: Sequence[BranchReport]) -> Table:
    table = _table("branch", "outcome", "score", "along the clip", "ms", "model")
    table.columns[2].justify = table.columns[4].justify = "right"
    for report in reports:
        outcome = report.outcome.replace("_", " ")
        if report.reason is not None:
            outcome += f": {REASONS[report.reason]}"
        table.add_row(
            report.branch,
            Text(outcome, _OUTCOME_STYLES.get(report.outcome, "dim")),
            "–" if report.score is None else f"{report.score:.3f}",
            sparkline(report.timeline),
            f"{report.milliseconds:.0f}",
            report.model.replace("+", "\n+"),
        )
    return table


def _contributions(contributions: Sequence[Contribution]) -> Table:
    table = _table("what moved the verdict", "value", "log-odds", "")
    table.columns[1].justify = table.columns[2].justify = "right"
    ranked = sorted(contributions, key=lambda part: -abs(part.log_odds))
    widest = max(abs(ranked[0].log_odds), 1e-9)
    for part in ranked[:_CONTRIBUTIONS_SHOWN]:
        length = round(12 * abs(part.log_odds) / widest)
        colour = "red" if part.log_odds > 0 else "green"
        table.add_row(part.feature, f"{part.value:.3g}", f"{part.log_odds:+.2f}", Text("█" * length, colour))
    rest = sum(part.log_odds for part in ranked[_CONTRIBUTIONS_SHOWN:])
    if len(ranked) > _CONTRIBUTIONS_SHOWN:
        table.add_row(f"{len(ranked) - _CONTRIBUTIONS_SHOWN} others", "", f"{rest:+.2f}", "")
    return table


def _faces(tracks: Sequence[FaceTrack], skipped: int) -> RenderableType:
    table = _table("face", "seen", "size", "behaviour")
    for track in tracks:
        seen = f"{track.start_us / 1e6:.1f}–{track.end_us / 1e6:.1f} s, {track.detections} times"
        table.add_row(str(track.track_id), seen, f"{track.face_size:.0f} px", _behaviour(track))
    return Group(table, Text(f"{skipped} more faces were not analysed")) if skipped else table


def _behaviour(track: FaceTrack) -> str:
    found = track.behaviour
    parts = []
    if found.blinks is not None:
        rate = "" if found.blinks_per_minute is None else f" ({found.blinks_per_minute:.0f} a minute)"
        parts.append(f"{found.blinks} blinks{rate}")
    if found.eye_aspect_mean is not None:
        parts.append(f"eye aspect {found.eye_aspect_mean:.2f} ± {found.eye_aspect_deviation or 0.0:.2f}")
    if found.landmark_jitter is not None:
        parts.append(f"jitter {found.landmark_jitter:.1f} ‰")
    return ", ".join([*parts, f"over {found.observed_seconds:.1f} s"]) if parts else "not measured"


def _footer(analysis: Analysis) -> Text:
    lines = []
    if analysis.speech_fraction is not None:
        lines.append(f"speech: {analysis.speech_fraction:.0%} of the sound, {len(analysis.windows)} windows")
    timings = (f"{STAGES[stage]} {milliseconds:.0f} ms" for stage, milliseconds in analysis.timings.items())
    lines.append(f"time: {_joined(timings)}, all {sum(analysis.timings.values()):.0f} ms")
    models = (
        f"{model.name}/{model.version} {model.sha256[:8]} ({model.engine}{', on trial' if model.candidate else ''})"
        for model in analysis.models
    )
    lines.append(f"models: {_joined(models)}")
    lines.append(f"request: {analysis.request_id}")
    return Text("\n".join(lines), "dim")


def _joined(parts: Iterable[str]) -> str:
    return ", ".join(parts)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
