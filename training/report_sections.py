"""The sections of a report that are of the trained models of its run root, after those of the protocols."""

from __future__ import annotations

from collections.abc import Callable

from training.ablation import ablation_section, kept_ablation
from training.baselines import Counts
from training.calibration import Calibration
from training.protocol_report import ProtocolReport
from training.run_pages import run_pages
from training.runs import Runs
from training.sections import (
    Section,
    calibration_section,
    diversity_section,
    ranking_section,
    reasons_section,
)
from training.splits import Split
from training.text_encoder import NoTextEncoder


def report_sections(
    runs: Runs, split: Split, protocol: ProtocolReport, counts: Callable[[], Counts]
) -> list[Section]:
    """Of leave-one-out, for a report with at least one finished seed; none without.

    Args:
        protocol: what the report has of the same split.
        counts: of its training part, asked for only where something is measured for the first time.

    Raises:
        TrainingError: a model cannot be loaded again.
    """
    results = protocol.results
    if not results:
        return []
    sections = [ranking_section(results, protocol.cutoff)]
    if (ablation := kept_ablation(runs, split)) is not None:
        sections.append(ablation_section(ablation))
    calibrations = {
        result.seed: Calibration.from_json(result.ranking.calibration)
        for result in results
        if result.ranking is not None and result.ranking.calibration is not None
    }
    if calibrations:
        sections.append(calibration_section(calibrations))
    try:
        pages = run_pages(runs, split, results[0], counts)
    except NoTextEncoder as error:
        why = f"Not measured, as the model cannot be loaded again: {error}"
        return [*sections, Section("pages", "Diversity and reasons", [why], {"error": str(error)})]
    sections.append(diversity_section(results[0].seed, pages.pool, pages.diversity))
    if pages.reasons is not None:
        sections.append(reasons_section(results[0].seed, pages.reasons))
    return sections
