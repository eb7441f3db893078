"""The steps of training: prepare → train → evaluate → report → export. What is done already is reused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from rich.console import Console

from features.catalog import CatalogError
from features.settings import Settings
from features.state_folder import make_state_folder
from features.store import StoreError, open_store
from training.baselines import Counts, count
from training.config import Config
from training.data_folder import exclusive
from training.dataset import Prepared, open_prepared
from training.errors import TrainingError
from training.evaluate import Evaluation
from training.events import prepare, print_report
from training.export import Export, existing_export, export
from training.report import ProtocolReport, print_summary, write_report
from training.runs import Progress, Result, Runs
from training.splits import GlobalTime, LeaveOneOut, Split, Stage, global_time
from training.tensorflow_import import import_tensorflow

_MEANINGS = {
    "leave-one-out": "The newest event of each user is predicted from all earlier ones; "
    "training saw all but the two newest.",
    "global time": "What users do after one moment is predicted from what they did before it; training saw "
    "nothing later than the moment, of any user.",
}


@dataclass(frozen=True, slots=True)
class Inputs:
    """Files given on the command line; None: the configuration names it, or its source has it."""

    events: Path | None = None
    items: Path | None = None
    users: Path | None = None


class Pipeline:
    """One configuration, one state folder."""

    def __init__(self, config: Config, settings: Settings, console: Console, state_dir: Path) -> None:
        """`state_dir` may be another than that of the settings, which say where the online store is."""
        self._config, self._settings, self._console = config, settings, console
        self._state_dir = state_dir
        self._name = config.data.name

    def prepare(self, inputs: Inputs) -> None:
        """Cleans the input files, or finds that this has been done."""
        make_state_folder(self._state_dir)
        done = prepare(
            self._config,
            events=inputs.events,
            items=inputs.items,
            users=inputs.users,
            state_dir=self._state_dir,
            excluded_users=forgotten_users(self._settings),
        )
        if not done.reused:
            print_report(done.report, done.folder, self._console)
        if done.forgetting is not None:
            self._console.print(done.forgetting, soft_wrap=True, highlight=False)

    def train(self, seeds: Sequence[int], progress: Progress, time_split: bool = False) -> None:
        """Trains a model per seed, judges them and the baselines, writes and prints the report.

        Earlier finished seeds of the same data and configuration stay in the report. The global time split
        is always reported for the baselines, and for the transformer if it has been trained for it
        (`time_split`: with the first seed). A log that the global time split leaves without a part to train
        on or to judge by is reported without it.

        Raises:
            TrainingError: nothing is left to train on or to judge by, or the training diverged.
        """
        judged: list[tuple[Split, list[Evaluation]]] = []
        for split in (self._leave_one_out, self._global_time):
            if (purpose := self._lacking(split)) is not None:
                if split is self._leave_one_out:
                    raise TrainingError(self._too_short(purpose))
                self._console.print(f"{split.name}: left out, as it leaves nothing to {purpose}")
                continue
            counts = _counts(self._prepared, split)
            if split is self._leave_one_out or time_split:
                for seed in seeds if split is self._leave_one_out else seeds[:1]:
                    if self._runs.finished(split, seed) is None:
                        self._runs.train(split, counts(), seed, progress)
            judged.append((split, self._runs.baselines(split, counts)))
        with exclusive(self._runs.folder):
            # Asked for inside: another process may have finished a seed, and written its report, meanwhile.
            protocols = [
                ProtocolReport(split.name, _MEANINGS[split.name], baselines, self._runs.all_finished(split))
                for split, baselines in judged
            ]
            write_report(self._runs.folder, self._config, self._prepared, protocols)
        print_summary(self._console, self._runs.folder, protocols, _main_cutoff(self._config))

    def export(self, seed: int) -> Export:
        """Exports the model of a finished run for leave-one-out, or finds that this has been done.

        Raises:
            TrainingError: there is no finished run of this seed, or its catalogue cannot be written.
        """
        result = self._result(seed)
        folder = self._state_dir / "exports" / self._name
        done = existing_export(folder, self._config, result)
        if done is None:
            counts = count(self._prepared.histories(), len(self._prepared.items), pairs=False)
            weights = self._runs.run_folder(self._leave_one_out, seed) / "weights.npz"
            try:
                done = export(self._config, self._prepared, counts, result, weights, folder)
            except CatalogError as error:
                raise TrainingError(str(error)) from error
        reused = " (reused)" if done.reused else ""
        self._console.print(
            f"export: {done.folder}, seed {seed}{reused}; scores of the SavedModel and the Keras model "
            f"differ by at most {done.max_difference:.1e}",
            soft_wrap=True,
            highlight=False,
        )
        return done

    def cost(self) -> None:
        """Measures the export and prints the table.

        Raises:
            TrainingError: there is no export.
        """
        folder = self._state_dir / "exports" / self._name
        if not (folder / "golden.npz").exists():
            raise TrainingError(f"{folder}: there is no export to measure; run `run` first")
        import_tensorflow()
        from training.cost import measure, print_costs

        print_costs(self._console, measure(folder))

    def _lacking(self, split: Split) -> str | None:
        """What nobody has the events for under a split; None if somebody has, for each purpose."""
        histories = self._prepared.histories
        if not any(len(split.training_part(history)) >= 2 for history in histories()):
            return "train on"
        stages: tuple[tuple[Stage, str], ...] = (("validation", "validate by"), ("test", "test by"))
        for stage, purpose in stages:
            if not any(split.case(history, stage) for history in histories()):
                return purpose
        return None

    def _too_short(self, purpose: str) -> str:
        least = self._config.data.min_events_per_user
        return (
            f"{self._prepared.folder}: the {self._prepared.event_count():,} events left after cleaning leave "
            f"nothing to {purpose}; somebody must have 4 events or more, the newest two, held out, on items "
            f"that are new to them (data.min_events_per_user is {least})"
        )

    def _result(self, seed: int) -> Result:
        result = self._runs.finished(self._leave_one_out, seed)
        if result is None:
            raise TrainingError(f"seed {seed} has no finished run in {self._runs.folder}; run `train` first")
        return result

    @cached_property
    def _prepared(self) -> Prepared:
        return open_prepared(self._state_dir / "data" / self._name)

    @cached_property
    def _runs(self) -> Runs:
        return Runs(self._config, self._prepared, self._state_dir / "runs" / self._name)

    @cached_property
    def _leave_one_out(self) -> Split:
        return LeaveOneOut()

    @cached_property
    def _global_time(self) -> GlobalTime:
        return global_time(self._prepared.events_path, self._config.evaluation.global_split_quantile)


def _counts(prepared: Prepared, split: Split) -> Callable[[], Counts]:
    """The counts of a split's training part, made when first wanted."""

    @cache
    def counts() -> Counts:
        parts = (split.training_part(history) for history in prepared.histories())
        return count(parts, len(prepared.items))

    return counts


def forgotten_users(settings: Settings) -> frozenset[str]:
    """The exclusion list of the online store; empty if there is no store yet.

    Raises:
        TrainingError: there is a store, and it cannot be read. Training anyway could use what it must not.
    """
    folder = settings.store_folder
    if folder is not None and not folder.exists():  # opening it would make it
        return frozenset()

    async def read() -> frozenset[str]:
        store = open_store(settings)
        try:
            return await store.excluded_users()
        finally:
            await store.close()

    try:
        return asyncio.run(read())
    except StoreError as error:
        raise TrainingError(
            f"{settings.store}: the list of forgotten users cannot be read ({error})"
        ) from error


def _main_cutoff(config: Config) -> int:
    return 10 if 10 in config.evaluation.cutoffs else config.evaluation.cutoffs[0]
