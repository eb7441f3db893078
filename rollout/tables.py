"""What operators see in a terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from features.figures import VersionFigures
from rollout.heartbeat import Heartbeat
from rollout.report import Arm, difference
from rollout.repository import PublishedVersion
from rollout.state import Entry, Phase, Rollout

_LATEST = 8


def versions_table(versions: Sequence[PublishedVersion], rollout: Rollout | None) -> Table:
    """The published versions, and what each is at the moment."""
    table = Table(
        "version", "role", "published", "code", "data", "seed", "NDCG@10", "MB", box=None, pad_edge=False
    )
    for each in versions:
        manifest = each.manifest
        size = f"{each.size_bytes / 1e6:.1f}"
        if manifest is None:
            table.add_row(str(each.version), role(each.version, rollout), "no manifest", "", "", "", "", size)
            continue
        quality = manifest.metrics.get("test", {}).get("ndcg@10")
        table.add_row(
            str(each.version),
            role(each.version, rollout),
            manifest.created[:16].replace("T", " "),
            manifest.code_revision[:8],
            manifest.data_fingerprint[:8],
            str(manifest.seed),
            f"{quality:.4f}" if isinstance(quality, float) else "",
            size,
        )
    return table


def role(version: int, rollout: Rollout | None) -> str:
    """What a version is at the moment; empty if it is just there."""
    if rollout is None:
        return ""
    if version == rollout.stable:
        return "stable"
    if version == rollout.previous:
        return "before"
    if version == rollout.candidate:
        return "rolled back" if rollout.phase is Phase.ROLLED_BACK else "candidate"
    return ""


def status_lines(rollout: Rollout, beat: Heartbeat | None) -> RenderableType:
    """Where the rollout stands, and how it came there."""
    lines = [Text(headline(rollout), "bold")]
    if rollout.reason:
        lines.append(Text(f"because: {rollout.reason}"))
    if beat is None or not beat.alive(time.time()):
        lines.append(Text("no driver runs: nothing goes on until one does (python -m rollout drive)", "red"))
    elif beat.note:
        lines.append(Text(beat.note))
    return Group(*lines, *(Text(entry_line(entry), "dim") for entry in rollout.history[-_LATEST:]))


def headline(rollout: Rollout) -> str:
    """One line: versions, shares, phase."""
    text = f"stable version {rollout.stable}"
    if rollout.candidate is not None:
        text += f", candidate {rollout.candidate}"
        if rollout.experiment is not None:
            text += f" with {rollout.experiment.percent:g} % (experiment {rollout.experiment.name})"
        else:
            text += f" with {rollout.percent:g} %"
        if rollout.shadow_percent:
            text += f" and {rollout.shadow_percent:g} % unseen"
    return f"{text}; phase {rollout.phase}{', held by an operator' if rollout.held else ''}"


def entry_line(entry: Entry) -> str:
    """Time of day and text."""
    return f"{time.strftime('%H:%M:%S', time.localtime(entry.time))} {entry.text}"


def figures_table(
    figures: Mapping[int, VersionFigures],
    totals: Mapping[int, VersionFigures],
    rollout: Rollout,
    span_s: float,
) -> Table:
    """Per version: `figures` of the last `span_s` seconds, `totals` since watching began."""
    table = Table(
        "version",
        "role",
        "calls/s",
        "calls",
        "errors",
        "degraded",
        "p50 ms",
        "p99 ms",
        "unseen",
        "overlap",
        "drift",
        box=None,
        pad_edge=False,
    )
    for version in sorted(totals):
        total, now = totals[version], figures.get(version, VersionFigures())
        if not (total.calls or total.shadow_calls or role(version, rollout)):
            continue
        table.add_row(
            str(version),
            role(version, rollout),
            f"{now.calls / span_s:.0f}",
            str(total.calls),
            str(total.errors),
            str(total.degraded),
            _number(now.latency.quantile(0.5), 1),
            _number(now.latency.quantile(0.99), 1),
            f"{total.shadow_calls} ({total.shadow_errors} failed)" if total.shadow_calls else "",
            _number(total.overlap, 2),
            _number(total.drift, 2),
        )
    return table


def report_table(arms: Sequence[Arm]) -> RenderableType:
    """The arms of an experiment, and how they differ."""
    table = Table(
        "arm", "users", "clicked", "95 % interval", "converted", "95 % interval", box=None, pad_edge=False
    )
    for arm in arms:
        table.add_row(
            arm.name.rpartition("/")[2],
            str(arm.clicked.total),
            _percent(arm.clicked.value),
            _interval(*arm.clicked.interval),
            _percent(arm.converted.value),
            _interval(*arm.converted.interval),
        )
    by_name = {arm.name.rpartition("/")[2]: arm for arm in arms}
    if by_name.keys() != {"control", "treatment"}:
        return table
    treatment, control = by_name["treatment"], by_name["control"]
    lines = []
    for what, one, other in (
        ("clicked", treatment.clicked, control.clicked),
        ("converted", treatment.converted, control.converted),
    ):
        by, low, high = difference(one, other)
        clear = "excludes" if low > 0 or high < 0 else "includes"
        interval = f"the 95 % interval {_interval(low, high)} {clear} 0"
        lines.append(Text(f"{what}: treatment − control {by * 100:+.2f} points; {interval}"))
    return Group(table, *lines)


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{value * 100:.2f} %"


def _interval(low: float, high: float) -> str:
    return f"{low * 100:.2f} to {high * 100:.2f} %"
