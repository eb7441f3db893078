"""Training runs on disk: one folder per protocol and seed, reused or resumed if it is of the same data and
settings.

    <state>/runs/<name>/
        seed-1/              trained for leave-one-out
            run.json         what the run is of; written first
            checkpoint.npz   after every epoch, until the run is finished
            weights.npz      of the best epoch
            result.json      `Result`; written last, so a folder with it is finished
        time-seed-1/         trained for the global time split, likewise
        baselines-<split>.json  figures of the baselines under each protocol
        metrics.json  report.md  *.png

A weight file is of the epoch with the best validation NDCG@10 of a model that saw the training part of its
split only: under leave-one-out, all events but the two newest of each user. That very model is evaluated and
exported.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from training.baselines import Counts, fit_baselines
from training.checkpoint import Epoch
from training.config import Config
from training.data_folder import exclusive
from training.dataset import Prepared
from training.evaluate import Evaluation, evaluate
from training.splits import LeaveOneOut, Split
from training.tensorflow_import import import_tensorflow

_METHOD = 1
"""Raise it when the same data and settings train to another model, so that old runs are not reused."""
_BASELINES = 2
"""Likewise for the baselines."""


@dataclass(frozen=True, slots=True)
class Result:
    """A finished training run."""

    seed: int
    split: str
    fingerprint: str
    curve: tuple[Epoch, ...]
    best_epoch: int
    validation: Evaluation
    test: Evaluation

    @property
    def seconds(self) -> float:
        """Wall time of all epochs."""
        return sum(epoch.seconds for epoch in self.curve)

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all epochs, all threads."""
        return sum(epoch.cpu_seconds for epoch in self.curve)


class Progress:
    """Told what training does. This one says nothing; the command line has one that draws a bar."""

    def started(self, seed: int, split: str, epochs: int) -> None:
        """A run begins, or goes on, that takes at most this many epochs."""

    def batch(self, number: int, loss: float) -> None:
        """A batch of the current epoch is done; batches count from 1."""

    def epoch(self, epoch: Epoch, best: Epoch) -> None:
        """An epoch is done."""

    def finished(self) -> None:
        """The run is over."""


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of one data set and configuration."""

    config: Config
    prepared: Prepared
    folder: Path

    def run_folder(self, split: Split, seed: int) -> Path:
        """Where the run with this seed lives."""
        return self.folder / (f"seed-{seed}" if isinstance(split, LeaveOneOut) else f"time-seed-{seed}")

    def fingerprint(self, split: Split, seed: int) -> str:
        """sha256 of everything that decides the weights."""
        decides = {
            "method": _METHOD,
            "data": self.prepared.fingerprint,
            "split": repr(split),
            "model": self.config.model.model_dump(mode="json", exclude={"page_size"}),
            "training": self.config.training.model_dump(mode="json", exclude={"seed"}),
            "cutoffs": self.config.evaluation.cutoffs,
            "seed": seed,
        }
        return sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def finished(self, split: Split, seed: int) -> Result | None:
        """The result of a finished run of this very data and configuration, else None."""
        try:
            saved = json.loads((self.run_folder(split, seed) / "result.json").read_text(encoding="utf-8"))
            result = _result(saved)
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return result if result.fingerprint == self.fingerprint(split, seed) else None

    def all_finished(self, split: Split) -> list[Result]:
        """Every finished run of this data and configuration, in order of seed."""
        prefix = self.run_folder(split, 0).name.removesuffix("0")
        seeds = sorted(int(path.name[len(prefix) :]) for path in self.folder.glob(f"{prefix}[0-9]*"))
        return [result for seed in seeds if (result := self.finished(split, seed)) is not None]

    def train(self, split: Split, counts: Counts, seed: int, progress: Progress) -> Result:
        """Trains and judges a model, going on where an interrupted run of the same kind was.

        If another process is training this very run, waits for it and takes its result.
        """
        with exclusive(self.run_folder(split, seed)):
            return self.finished(split, seed) or self._train(split, counts, seed, progress)

    def _train(self, split: Split, counts: Counts, seed: int, progress: Progress) -> Result:
        import_tensorflow()
        from training.checkpoint import save_weights
        from training.train import ModelRanker, Trainer

        folder, fingerprint = self.run_folder(split, seed), self.fingerprint(split, seed)
        self._claim(folder, fingerprint)
        trainer = Trainer(self.config, self.prepared, split, counts, seed)
        progress.started(seed, split.name, self.config.training.epochs)
        try:
            state = trainer.run(folder / "checkpoint.npz", progress.epoch, progress.batch)
        finally:
            progress.finished()
        save_weights(folder / "weights.npz", trainer.model)
        ranker = ModelRanker(trainer.model)
        judge = judge_with(self, split, counts)
        result = Result(
            seed=seed,
            split=split.name,
            fingerprint=fingerprint,
            curve=tuple(state.curve),
            best_epoch=state.best_epoch.epoch,
            validation=judge(ranker, "validation"),
            test=judge(ranker, "test"),
        )
        _write(folder / "result.json", asdict(result))
        (folder / "checkpoint.npz").unlink()
        return result

    def baselines(self, split: Split, counts: Callable[[], Counts]) -> list[Evaluation]:
        """The baselines on the test part of a split, reused if they are of this data."""
        with exclusive(self.folder):
            return self._baselines(split, counts)

    def _baselines(self, split: Split, counts: Callable[[], Counts]) -> list[Evaluation]:
        path = self.folder / f"baselines-{split.name.replace(' ', '-')}.json"
        decides = [_BASELINES, self.prepared.fingerprint, repr(split), self.config.evaluation.cutoffs]
        fingerprint = sha256(json.dumps(decides).encode()).hexdigest()
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            if saved["fingerprint"] == fingerprint:
                return [Evaluation(**evaluation) for evaluation in saved["evaluations"]]
        except (OSError, ValueError, TypeError, KeyError):
            pass
        counted = counts()
        judge = judge_with(self, split, counted)
        evaluations = [judge(baseline, "test") for baseline in fit_baselines(counted)]
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(path, {"fingerprint": fingerprint, "evaluations": [asdict(e) for e in evaluations]})
        return evaluations

    def _claim(self, folder: Path, fingerprint: str) -> None:
        """Makes the folder a run of this fingerprint: what it holds of another one goes."""
        try:
            claimed = (
                json.loads((folder / "run.json").read_text(encoding="utf-8"))["fingerprint"] == fingerprint
            )
        except (OSError, ValueError, TypeError, KeyError):
            claimed = False
        if not claimed:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            config = self.config.model_dump(mode="json")
            _write(folder / "run.json", {"fingerprint": fingerprint, "config": config})


def judge_with(runs: Runs, split: Split, counts: Counts) -> Callable[..., Evaluation]:
    """`evaluate` with everything given but the ranker and the stage."""
    largest = len(runs.prepared.items)

    def judge(ranker: Any, stage: Any) -> Evaluation:
        return evaluate(
            ranker,
            runs.prepared,
            split,
            stage,
            cutoffs=[k for k in runs.config.evaluation.cutoffs if k <= largest] or [largest],
            item_users=counts.item_users,
            users=counts.users,
        )

    return judge


def _result(saved: dict[str, Any]) -> Result:
    return Result(
        **{
            **saved,
            "curve": tuple(Epoch(**epoch) for epoch in saved["curve"]),
            "validation": Evaluation(**saved["validation"]),
            "test": Evaluation(**saved["test"]),
        }
    )


def _write(path: Path, document: dict[str, Any]) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)
