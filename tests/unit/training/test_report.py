from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.unit.training.judging import judged
from training.calibration import CalibrationBin, calibrate
from training.checkpoint import Epoch
from training.config import Config
from training.evaluate import Evaluation
from training.plots import DiversityPoint, plot_calibration, plot_diversity
from training.protocol_report import ProtocolReport
from training.report import print_summary, write_report
from training.results import Ranking, Result
from training.run_pages import Choice, ReasonTrial
from training.sections import (
    Section,
    calibration_section,
    diversity_section,
    ranking_section,
    reasons_section,
)

CONFIG = Config.model_validate({"data": {"name": "shop"}})
PNG = b"\x89PNG"


def evaluation(rows, distance=0.4):
    metrics = {name: float(values.mean()) for name, values in rows.values.items()}
    for k in rows.cutoffs:
        metrics |= {f"{name}@{k}": 0.5 for name in ("coverage", "novelty", "popularity", "gini")}
        if distance is not None:
            metrics[f"intra_list_distance@{k}"] = distance
    return Evaluation(rows.ranker, len(rows.users), metrics)


def result(rows, seed):
    epoch = Epoch(1, loss=2.0, validation_hr=0.2, validation_ndcg=0.1, seconds=3.0, cpu_seconds=4.0)
    return Result(seed, "leave-one-out", "0" * 64, (epoch,), 1, evaluation(rows), evaluation(rows), None)


def ranked(seed, gain, served):
    """A seed whose ranking network moves HR@10 and NDCG@10 by `gain` percent."""
    alone, both = (evaluation(judged([[1]] * hits + [[0]] * (100 - hits))) for hits in (20, 20 + gain))
    return dataclasses.replace(
        result(judged([[1]]), seed),
        retrieval_validation=alone,
        retrieval_test=alone,
        ranking=Ranking(both, both, served, {}, seconds=1.0),
    )


def protocol(cutoffs=(5, 10), seeds=2, distance=0.4):
    """Two baselines: one best by HR, the other by NDCG; the model is better than both."""
    many = judged([[9]] * 50 + [[0]] * 50, ranker="many", cutoffs=cutoffs)
    first = judged([[1]] * 30 + [[0]] * 70, ranker="first", cutoffs=cutoffs)
    models = [judged([[1]] * (80 + 10 * i) + [[0]] * (20 - 10 * i), cutoffs=cutoffs) for i in range(seeds)]
    return ProtocolReport(
        protocol="leave-one-out",
        meaning="What it means.",
        baselines=[evaluation(many, distance), evaluation(first, distance)],
        results=[result(rows, seed) for seed, rows in enumerate(models, start=1)],
        judged_baselines=[many, first],
        judged=models,
    )


def write(folder: Path, prepared, protocols, sections=()):
    write_report(folder, CONFIG, prepared, protocols, sections)
    return (folder / "report.md").read_text(), json.loads((folder / "metrics.json").read_text())


def row(report: str, name: str) -> list[str]:
    """The cells of the first line of the report that is a row of this name."""
    line = next(line for line in report.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_table_of_rankers_has_diversity_and_popularity_bias(tmp_path, cycles):
    report, _ = write(tmp_path, cycles, [protocol()])
    assert row(report, "@10") == [
        "HR", "NDCG", "MRR", "recall", "precision", "coverage", "novelty", "distance", "popularity", "Gini",
    ]  # fmt: skip
    ten = report[report.index("| @10") :]
    assert row(ten, "many")[0] == "0.5000"
    assert row(ten, "many")[7:] == ["0.4000", "0.5000", "0.5000"]
    assert row(ten, "**transformer, mean ± sd**")[0] == "0.8500 ± 0.0707"


def test_a_figure_that_could_not_be_measured_is_a_dash(tmp_path, cycles):
    report, metrics = write(tmp_path, cycles, [protocol(distance=None)])
    assert row(report, "many")[7] == "–"
    assert "intra_list_distance@10" not in metrics["protocols"]["leave-one-out"]["baselines"]["many"]


def test_the_model_is_tested_against_the_best_baseline_by_each_metric(tmp_path, cycles):
    report, metrics = write(tmp_path, cycles, [protocol()])
    by_hr, by_ndcg = metrics["protocols"]["leave-one-out"]["significance"]
    assert (by_hr["metric"], by_hr["baseline"], by_hr["second"]) == ("hr@10", "many", 0.5)
    assert (by_ndcg["metric"], by_ndcg["baseline"], by_ndcg["second"]) == ("ndcg@10", "first", 0.3)
    assert by_hr["first"] == pytest.approx(0.85)
    assert by_hr["p"] < 0.01
    below = report[report.index("### Significance") :]
    assert "mean over 2 seeds" in below
    assert row(below, "HR@10")[:4] == ["0.8500", "many", "0.5000", "+0.3500"]
    assert row(below, "NDCG@10")[1] == "first"


def test_the_slices_are_of_all_rankers(tmp_path, cycles):
    report, metrics = write(tmp_path, cycles, [protocol()])
    below = report[report.index("### Slices") :]
    assert row(below, "HR@10") == ["users", "many", "first", "transformer"]
    assert row(below, "history ≤ 20") == ["100", "0.5000", "0.3000", "0.8500"]
    slices = metrics["protocols"]["leave-one-out"]["slices"]
    assert {name: found[0]["metrics"]["hr@10"] for name, found in slices.items()} == pytest.approx(
        {"many": 0.5, "first": 0.3, "transformer": 0.85}
    )


def test_a_protocol_without_a_model_has_slices_of_the_baselines_and_no_significance(tmp_path, cycles):
    report, metrics = write(tmp_path, cycles, [protocol(seeds=0)])
    assert "No transformer was trained for this protocol" in report
    assert "### Significance" not in report
    assert row(report[report.index("### Slices") :], "HR@10") == ["users", "many", "first"]
    assert metrics["protocols"]["leave-one-out"]["transformer"] is None
    assert metrics["protocols"]["leave-one-out"]["significance"] == []
    assert not (tmp_path / "loss.png").exists()


def test_without_a_cutoff_of_ten_the_largest_is_what_most_is_said_about(tmp_path, cycles):
    small = protocol(cutoffs=(3, 5))
    report, metrics = write(tmp_path, cycles, [small])
    assert [one["metric"] for one in metrics["protocols"]["leave-one-out"]["significance"]] == [
        "hr@5", "ndcg@5",
    ]  # fmt: skip
    assert row(report, "seed")[:2] == ["HR@5", "NDCG@5"]
    page = io.StringIO()
    print_summary(Console(file=page, width=120), tmp_path, [small])
    assert "HR@5" in page.getvalue()


def test_a_section_brings_its_text_its_figures_and_its_plots(tmp_path, cycles):
    points = [DiversityPoint(0.0, 0.12, 0.6, 0.5), DiversityPoint(0.3, 0.11, 0.7, 0.6)]
    report, metrics = write(tmp_path, cycles, [protocol()], [diversity_section(3, 24, points)])
    below = report[report.index("## Diversity") :]
    assert "Seed 3, test: the first ten of 24 candidates" in below
    assert row(below, "0.3") == ["0.1100", "0.7000", "0.6000"]
    assert "![Diversity](diversity.png)" in below
    assert metrics["sections"]["diversity"]["points"][1]["coverage"] == 0.6
    assert (tmp_path / "diversity.png").read_bytes().startswith(PNG)
    assert not list(tmp_path.glob("*draft*"))


def test_a_calibration_is_a_section_with_its_plot(tmp_path, cycles):
    calibration = calibrate(np.linspace(0.05, 0.95, 40), np.arange(40) % 4 > 1)
    other = dataclasses.replace(calibration, auc=calibration.auc - 0.1)
    section = calibration_section({4: calibration, 7: other})
    report, metrics = write(tmp_path, cycles, [protocol()], [section])
    below = report[report.index("## Calibration") :]
    assert row(below, "4")[:3] == ["40", "20", f"{calibration.auc:.4f}"]
    assert row(below, "**mean ± sd**")[2] == f"{calibration.auc - 0.05:.4f} ± 0.0707"
    assert "Seed 4, in 10 bins" in below
    assert row(below, f"{calibration.bins[9].predicted:.4f}")[-1] == "4"
    assert metrics["sections"]["calibration"]["7"]["auc"] == other.auc
    assert (tmp_path / "calibration.png").read_bytes().startswith(PNG)


def test_the_retrieval_stands_beside_the_ranking_with_what_is_served_and_why(tmp_path, cycles):
    results = [ranked(1, 5, served=True), ranked(2, -3, served=False), result(judged([[1]]), 3)]
    report, metrics = write(tmp_path, cycles, [protocol()], [ranking_section(results, 10)])
    below = report[report.index("## Retrieval and ranking") :]
    assert row(below, "seed 1, retrieval") == ["0.2000"] * 4 + [""]
    assert row(below, "seed 1, with ranking") == ["0.2500"] * 4 + ["yes: validation NDCG@10 +0.0500"]
    assert row(below, "seed 2, with ranking")[-1] == "no: validation NDCG@10 -0.0300"
    assert row(below, "seed 3, retrieval")[-1] == "yes, trained alone"
    assert row(below, "**mean ± sd, seeds 1, 2: with ranking**")[0] == "0.2100 ± 0.0566"
    assert metrics["sections"]["ranking"]["2"]["served"] is False
    assert metrics["sections"]["ranking"]["3"]["ranking"] is None


def test_the_choices_of_a_reason_stand_beside_the_served_one(tmp_path, cycles):
    choices = (Choice("this", 0.81, 0.8, 0.82, 0.35), Choice("that", 0.7, 0.68, 0.72, 0.5))
    report, metrics = write(
        tmp_path, cycles, [protocol()], [reasons_section(2, ReasonTrial(90, 5, 4, choices))]
    )
    below = report[report.index("## Reasons") :]
    assert "Seed 2, test: the best 5 items of 90 users with 4 events or more" in below
    assert row(below, "this (served)") == ["81.0%", "80.0% to 82.0%", "35.0%"]
    assert row(below, "that")[0] == "70.0%"
    assert metrics["sections"]["reasons"]["choices"][1]["name"] == "that"


def test_a_report_that_is_there_already_is_not_drawn_again(tmp_path, cycles):
    drawn = []
    section = Section("k", "T", ["text"], {"figure": 1}, {"t.png": lambda path: drawn.append(path.name)})
    for _ in range(2):
        write(tmp_path, cycles, [protocol()], [section])
    assert drawn == ["t.png"]
    write(tmp_path, cycles, [protocol()], [dataclasses.replace(section, figures={"figure": 2})])
    assert drawn == ["t.png", "t.png"]


def test_plots_of_nothing_but_zeros_can_be_drawn(tmp_path):
    plot_calibration(tmp_path / "c.png", [CalibrationBin(0.0, 0.0, 5)])
    plot_diversity(tmp_path / "d.png", [DiversityPoint(0.0, 0.0, 0.0, 0.0)])
    plot_diversity(tmp_path / "e.png", [DiversityPoint(0.0, 0.0, None, 0.0)])
    assert all((tmp_path / name).read_bytes().startswith(PNG) for name in ("c.png", "d.png", "e.png"))


def test_a_report_says_which_epoch_is_kept_and_nothing_of_privacy_that_is_off(tmp_path, cycles):
    report, metrics = write(tmp_path, cycles, [protocol()])
    assert "at most 30 epochs, stopped after 8 without a better validation NDCG@10." in report
    assert "The weights are those of the epoch with the best validation NDCG@10;" in report
    assert "epsilon" not in report
    assert metrics["privacy"] is None


def test_the_report_of_a_private_run_says_what_it_spent_and_that_the_last_epoch_is_kept(tmp_path, cycles):
    private = Config.model_validate(
        {"data": {"name": "shop"}, "ranker": {"train": False}, "privacy": {"noise": 1.5, "delta": 2e-6}}
    )
    known = protocol()
    spent = [
        dataclasses.replace(one, epsilon=epsilon)
        for one, epsilon in zip(known.results, (3.14159, 0.0421), strict=True)
    ]
    write_report(tmp_path, private, cycles, [dataclasses.replace(known, results=spent)])
    report, metrics = (
        (tmp_path / "report.md").read_text(),
        json.loads((tmp_path / "metrics.json").read_text()),
    )
    for words in (
        "all of 30 epochs.",
        "The weights are those of the last epoch",
        "noise 1.5, clip 1",
        "at delta 2e-06: leave-one-out, seed 1: epsilon 3.14; leave-one-out, seed 2: epsilon 0.0421.",
        "decision 17, docs/decisions/0017-private-training.md",
    ):
        assert words in report
    for words in ("stopped after", "with the best validation", "at most 30"):
        assert words not in report
    assert metrics["privacy"] == {"noise": 1.5, "clip": 1.0, "delta": 2e-6}
    seeds = metrics["protocols"]["leave-one-out"]["transformer"]["seeds"]
    assert [seeds[seed]["epsilon"] for seed in ("1", "2")] == [3.14159, 0.0421]
