"""Training runs on disk: one folder per protocol and seed, reused or resumed if it is of the same data and
settings.

    <state>/runs/<name>/
        seed-1/              trained for leave-one-out
            run.json         what the run is of; written first
            checkpoint.npz   after every epoch, until the run is finished
            *.npz            the model of the epoch that is kept (`training.trained`)
            judged.npz       how each user of the test fared (`training.judged`)
            judged-parts.npz  likewise with the retrieval alone, and with the ranking network if there is one
            pages.json       what the report has of its pages (`training.run_pages`), once it is written
            result.json      `Result`; written last, so a folder with it is finished
        time-seed-1/         trained for the global time split, likewise
        baselines-<split>.json  figures of the baselines under each protocol, and of each user
        judged-baselines-<split>.npz
        metrics.json  report.md  *.png

A weight file is of the epoch with the best validation NDCG@10, or of the last one if training was private, of
a model that saw the training part of its split only: under leave-one-out, all events but the two newest of
each user. That very model is evaluated and exported.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.baselines import Counts, fit_baselines
from training.checkpoint import Epoch
from training.config import Config
from training.data_folder import exclusive
from training.dataset import Prepared
from training.errors import TrainingError
from training.evaluate import Evaluation, Ranker, evaluate
from training.exposure import category_vectors
from training.judged import Judged, judging_key, load_judged, save_judged
from training.results import Ranking, Result, result_from_json
from training.splits import Case, GlobalTime, Split, Stage
from training.tensorflow_import import import_tensorflow
from training.workers import ALONE, Workers

if TYPE_CHECKING:  # a run that reuses everything must not wait for TensorFlow
    from training.distribution import Distribution

JUDGED = "judged.npz"
_JUDGED_PARTS = "judged-parts.npz"
_METHOD = 4
"""Raise it when the same data and settings train to another model, so that old runs are not reused."""
_BASELINES = 4
"""Likewise for the baselines."""


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

    def private(self, epsilon: float, delta: float) -> None:
        """The run was private, and this is what it has spent."""


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of one data set and configuration."""

    config: Config
    prepared: Prepared
    folder: Path
    cache: Path
    """Where text encoders and the vectors of texts are kept."""
    workers: Workers = ALONE
    """Who trains together. The chief alone reads and writes `folder`."""

    def run_folder(self, split: Split, seed: int) -> Path:
        """Where the run with this seed lives."""
        return self.folder / (f"time-seed-{seed}" if isinstance(split, GlobalTime) else f"seed-{seed}")

    def fingerprint(self, split: Split, seed: int) -> str:
        """sha256 of everything that decides the weights."""
        decides = {
            "method": _METHOD,
            "data": self.prepared.fingerprint,
            "split": repr(split),
            "model": self.config.model.model_dump(mode="json", exclude={"page_size"}),
            "ranker": self.config.ranker.model_dump(mode="json"),
            "behaviour": self.config.behaviour.model_dump(mode="json", exclude={"freshness"}),
            "privacy": self.config.privacy.model_dump(mode="json"),
            "training": self.config.training.model_dump(mode="json", exclude={"seed"}),
            "cutoffs": self.config.evaluation.cutoffs,
            "seed": seed,
        }
        return sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def finished(self, split: Split, seed: int) -> Result | None:
        """The result of a finished run of this very data and configuration, else None."""
        try:
            saved = json.loads((self.run_folder(split, seed) / "result.json").read_text(encoding="utf-8"))
            result = result_from_json(saved)
        except (OSError, ValueError, TypeError, KeyError):
            return None
        if not all((self.run_folder(split, seed) / name).exists() for name in (JUDGED, _JUDGED_PARTS)):
            return None
        return result if result.fingerprint == self.fingerprint(split, seed) else None

    def all_finished(self, split: Split) -> list[Result]:
        """Every finished run of this data and configuration, in order of seed."""
        prefix = self.run_folder(split, 0).name.removesuffix("0")
        seeds = sorted(int(path.name[len(prefix) :]) for path in self.folder.glob(f"{prefix}[0-9]*"))
        return [result for seed in seeds if (result := self.finished(split, seed)) is not None]

    def judged(self, split: Split, seed: int) -> Judged:
        """How each user of the test fared with a finished run.

        Raises:
            TrainingError: there is none, or its file cannot be read.
        """
        return load_judged(self.run_folder(split, seed) / JUDGED)[0]

    def judged_parts(self, split: Split, seed: int) -> list[Judged]:
        """How each user of the test fared with the retrieval of a finished run alone and, if one was trained,
        with the ranking network behind it, served or not.

        Raises:
            TrainingError: there is none, or its file cannot be read.
        """
        return load_judged(self.run_folder(split, seed) / _JUDGED_PARTS)

    def judged_baselines(self, split: Split) -> list[Judged]:
        """How each user of the test fared with each baseline, once `baselines` has been asked for.

        Raises:
            TrainingError: it has not, or the file cannot be read.
        """
        return load_judged(self._baselines_path(split, "judged-baselines", ".npz"))

    def train(self, split: Split, counts: Counts, seed: int, progress: Progress) -> Result:
        """Trains and judges a model, going on where an interrupted run of the same kind was.

        If another process is training this very run, waits for it and takes its result. With several workers,
        this is for the chief, and waits for the others to `assist`.
        """
        with exclusive(self.run_folder(split, seed)):
            result = self.finished(split, seed)
            if self.workers.count > 1:
                said = {"fingerprint": self.fingerprint(split, seed), "finished": result is not None}
                self._distribution().from_chief(json.dumps(said).encode())
            return result or self._train(split, counts, seed, progress)

    def assist(self, split: Split, counts: Counts, seed: int) -> None:
        """What the other workers do while the chief's `train` trains: their part of every step, and nothing
        to `folder`, which may be one that they share.

        Raises:
            TrainingError: the chief trains another run than this, or is gone.
        """
        distribution = self._distribution()
        from training.facts import gather_facts
        from training.train import Trainer

        chief = json.loads(distribution.from_chief(b""))
        if chief["fingerprint"] != self.fingerprint(split, seed):
            raise TrainingError(
                f"worker {self.workers.index + 1} of {self.workers.count}: its data, configuration or seed "
                "is not the chief's; give all workers the same"
            )
        if not chief["finished"]:
            facts = gather_facts(self.config, self.prepared, counts, self.cache)
            trainer = Trainer(facts, self.prepared, split, counts, seed, distribution)
            trainer.run(None, lambda *_: None, lambda *_: None)

    def meet(self) -> None:
        """Waits until all workers are here: one that ends early looks to the others like one that fell."""
        if self.workers.count > 1:
            self._distribution().from_chief(b"")

    def _distribution(self) -> Distribution:
        import_tensorflow()
        from training.distribution import distribute

        return distribute(self.workers)

    def _train(self, split: Split, counts: Counts, seed: int, progress: Progress) -> Result:
        distribution = self._distribution()
        from training.facts import gather_facts
        from training.rank_training import RankedRetrieval, calibration_of, train_ranker
        from training.train import Trainer
        from training.trained import with_cold_items

        folder, fingerprint = self.run_folder(split, seed), self.fingerprint(split, seed)
        self._claim(folder, fingerprint)
        facts = gather_facts(self.config, self.prepared, counts, self.cache)
        trainer = Trainer(facts, self.prepared, split, counts, seed, distribution)
        progress.started(seed, split.name, self.config.training.epochs)
        try:
            state = trainer.run(folder / "checkpoint.npz", progress.epoch, progress.batch)
        finally:
            progress.finished()
        if (spent := trainer.epsilon) is not None:
            progress.private(spent, self.config.privacy.delta)
        judge = judge_with(self, split, counts)
        trained = with_cold_items(facts, trainer.model, cases_of(self.prepared, split, "validation"))
        retrieval = trained.retrieval
        validation, _ = judge(retrieval, "validation")
        test, judged = judge(retrieval, "test")
        parts, ranking = [judged], None
        if self.config.ranker.train:
            started = time.perf_counter()
            ranker = train_ranker(facts, self.prepared, split, trained.model, trained.items, seed=seed)
            if ranker is not None:
                both = RankedRetrieval(retrieval, ranker, facts)
                ranked_validation, _ = judge(both, "validation")
                ranked_test, ranked_judged = judge(both, "test")
                calibration = calibration_of(both, cases_of(self.prepared, split, "test"))
                parts.append(ranked_judged)
                served = _main(ranked_validation) > _main(validation)
                ranking = Ranking(
                    validation=ranked_validation,
                    test=ranked_test,
                    served=served,
                    calibration=None if calibration is None else asdict(calibration),
                    seconds=time.perf_counter() - started,
                )
                if served:
                    trained, judged = replace(trained, ranker=ranker), ranked_judged
        trained.save(folder)
        save_judged(folder / JUDGED, [judged])
        save_judged(folder / _JUDGED_PARTS, parts)
        result = Result(
            seed=seed,
            split=split.name,
            fingerprint=fingerprint,
            curve=tuple(state.curve),
            best_epoch=trainer.kept(state).epoch,
            retrieval_validation=validation,
            retrieval_test=test,
            ranking=ranking,
            epsilon=spent,
        )
        write_json(folder / "result.json", asdict(result))
        (folder / "checkpoint.npz").unlink()
        return result

    def baselines(self, split: Split, counts: Callable[[], Counts]) -> list[Evaluation]:
        """The baselines on the test part of a split, reused if they are of this data."""
        with exclusive(self.folder):
            return self._baselines(split, counts)

    def _baselines(self, split: Split, counts: Callable[[], Counts]) -> list[Evaluation]:
        path = self._baselines_path(split, "baselines", ".json")
        behaviour = self.config.behaviour.model_dump(mode="json", include={"event_weights", "consumes"})
        decides = [
            _BASELINES,
            self.prepared.fingerprint,
            repr(split),
            self.config.evaluation.cutoffs,
            behaviour,
        ]
        fingerprint = sha256(json.dumps(decides).encode()).hexdigest()
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            if saved["fingerprint"] == fingerprint and self.judged_baselines(split):
                return [Evaluation(**evaluation) for evaluation in saved["evaluations"]]
        except (OSError, ValueError, TypeError, KeyError, TrainingError):
            pass
        counted = counts()
        judge = judge_with(self, split, counted)
        evaluations, judged = zip(*(judge(one, "test") for one in fit_baselines(counted)), strict=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # it stands for both
        save_judged(self._baselines_path(split, "judged-baselines", ".npz"), judged)
        write_json(path, {"fingerprint": fingerprint, "evaluations": [asdict(e) for e in evaluations]})
        return list(evaluations)

    def _baselines_path(self, split: Split, stem: str, suffix: str) -> Path:
        return self.folder / f"{stem}-{split.name.replace(' ', '-')}{suffix}"

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
            write_json(folder / "run.json", {"fingerprint": fingerprint, "config": config})


def judge_with(
    runs: Runs, split: Split, counts: Counts
) -> Callable[[Ranker, Stage], tuple[Evaluation, Judged]]:
    """`evaluate` with everything given but the ranker and the stage."""
    largest, behaviour = len(runs.prepared.items), runs.config.behaviour
    key = judging_key(runs.cache)
    vectors = category_vectors(runs.prepared.items, runs.prepared.categories)

    def judge(ranker: Ranker, stage: Stage) -> tuple[Evaluation, Judged]:
        return evaluate(
            ranker,
            runs.prepared,
            split,
            stage,
            cutoffs=[k for k in runs.config.evaluation.cutoffs if k <= largest] or [largest],
            item_users=counts.item_users,
            users=counts.users,
            vectors=vectors,
            key=key,
            # What chooses an epoch, and whether ranking is served, counts what the loss counts.
            type_weights=behaviour.type_weights() if stage == "validation" else None,
        )

    return judge


def _main(evaluation: Evaluation) -> float:
    """NDCG@10, or at the largest cut-off if there is no 10."""
    cutoffs = [int(name.split("@")[1]) for name in evaluation.metrics]
    return evaluation.metrics[f"ndcg@{10 if 10 in cutoffs else max(cutoffs)}"]


def cases_of(prepared: Prepared, split: Split, stage: Stage) -> list[Case]:
    """Every user who can be judged, in order of user id."""
    return [case for user in prepared.histories() if (case := split.case(user, stage)) is not None]


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Writes a file, whole or not at all."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)
