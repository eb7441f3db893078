from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.unit.training.judging import judged
from training.ablation import ablate, ablation_lines, kept_ablation
from training.checkpoint import Epoch
from training.config import Config
from training.evaluate import Evaluation
from training.ingredients import ingredients_of
from training.results import Ranking, Result
from training.runs import Progress, Runs
from training.splits import LeaveOneOut

SPLIT = LeaveOneOut()


class FakeRuns(Runs):
    """Trains nothing: the figures follow from the ingredients and the seed."""

    trained: dict = {}  # noqa: RUF012 - emptied by the fixture

    def finished(self, split, seed):
        return self.trained.get((self.fingerprint(split, seed)), (None,))[0]

    def judged_parts(self, split, seed):
        return self.trained[self.fingerprint(split, seed)][1]

    def train(self, split, counts, seed, progress):
        told = ingredients_of(self.config)
        hits = 20 + seed + 10 * told.text + 20 * told.time
        parts = [rows(hits)] + ([rows(hits + 5)] if self.config.ranker.train else [])
        alone, *both = (evaluation(part) for part in parts)
        ranking = Ranking(both[0], both[0], True, {}, seconds=7.0) if both else None
        curve = (Epoch(1, loss=2.0, validation_hr=0.2, validation_ndcg=0.1, seconds=30.0, cpu_seconds=4.0),)
        fingerprint = self.fingerprint(split, seed)
        assert fingerprint not in self.trained, "trained twice"
        self.trained[fingerprint] = (
            Result(seed, split.name, fingerprint, curve, 1, alone, alone, ranking), parts, self.folder
        )  # fmt: skip


def rows(hits):
    return judged([[1]] * hits + [[0]] * (100 - hits))


def evaluation(part):
    return Evaluation(
        "transformer", 100, {name: float(values.mean()) for name, values in part.values.items()}
    )


@pytest.fixture
def runs(cycles, tmp_path, monkeypatch):
    monkeypatch.setattr(FakeRuns, "trained", {})
    config = Config.model_validate({"data": {"name": "cycles"}, "model": {"text": "none"}})
    return FakeRuns(config, cycles, tmp_path / "runs" / "cycles", tmp_path / "cache")


def run(runs, seeds=(1, 2)):
    said = []
    return ablate(runs, SPLIT, seeds, lambda: None, Progress(), said.append), said


def row(lines, name):
    line = next(line for line in lines if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_each_row_is_compared_with_the_one_before_and_each_ingredient_with_the_default(runs):
    done, _ = run(runs)
    chain, alone = done.tables.values()
    assert [one.name for one in chain] == ["ids only", "+ categories", "+ time", "+ ranking"]
    assert [one.against for one in chain] == [None, "ids only", "+ categories", "+ time"]
    assert [one.against for one in alone] == [None, *["default, retrieval alone"] * 3]
    assert chain[0].test["hr@10"] == pytest.approx([0.21, 0.22])
    gains = [one.differences[0].difference for one in (*chain[1:], *alone[1:])]
    assert gains == pytest.approx([0.10, 0.20, 0.05, 0.10, -0.20, 0.05])
    assert chain[1].differences[1].metric == "ndcg@10"
    assert chain[2].differences[0].p < 0.01
    assert [one.seconds for one in chain] == [30, 30, 30, 37]


def test_a_configuration_is_trained_once_whatever_rows_it_is_in(runs):
    _, said = run(runs)
    folders = {}
    for result, _, folder in runs.trained.values():
        folders.setdefault(folder.relative_to(runs.folder.parent).as_posix(), []).append(result.seed)
    assert folders == {
        f"cycles-ablation/{name}": [1, 2] for name in ("ids", "ids-text", "ids-text-time")
    } | {"cycles": [1, 2]}  # fmt: skip
    assert len(said) == 8
    assert run(runs)[1] == []


def test_the_text_has_every_figure_with_its_spread_and_its_seeds(runs):
    done, _ = run(runs)
    lines = ablation_lines(done)
    assert "100 users, seeds 1, 2, mean ± sd" in lines[0]
    assert row(lines, "ids only")[:2] == ["on", "0.2150 ± 0.0071"]
    assert row(lines, "+ ranking")[5:7] == ["+0.0500", f"{done.tables['Each alone'][3].differences[0].p:.4f}"]
    assert row(lines, "with categories")[0] == "off"
    text = (runs.folder / "ablation.md").read_text()
    assert text == "\n".join(["# cycles: ingredients", "", *lines]) + "\n"


def test_the_report_takes_the_tables_of_its_own_configuration_only(runs):
    assert kept_ablation(runs, SPLIT) is None
    done, _ = run(runs)
    kept = kept_ablation(runs, SPLIT)
    assert ablation_lines(kept) == ablation_lines(done)
    wider = runs.config.model_copy(update={"model": runs.config.model.model_copy(update={"width": 32})})
    assert kept_ablation(dataclasses.replace(runs, config=wider), SPLIT) is None


def test_without_a_ranking_to_learn_its_rows_are_left_out(runs, monkeypatch):
    train = FakeRuns.train

    def learn_nothing(self, split, counts, seed, progress):
        train(self, split, counts, seed, progress)
        key = self.fingerprint(split, seed)
        result, parts, folder = self.trained[key]
        self.trained[key] = (dataclasses.replace(result, ranking=None), parts[:1], folder)

    monkeypatch.setattr(FakeRuns, "train", learn_nothing)
    done, _ = run(runs, seeds=[1])
    assert [rows[-1].name for rows in done.tables.values()] == ["+ time", "without time"]
    assert np.isfinite(done.tables["Each alone"][-1].differences[0].p)
