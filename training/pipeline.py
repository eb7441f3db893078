"""The steps of training: prepare → train → evaluate → report → export. What is done already is reused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

from rich.console import Console

from features.settings import Settings
from features.state_folder import make_state_folder
from features.store import StoreError, open_store
from training.ablation import ablate, ablation_lines
from training.baselines import Counts, count
from training.cold_trial import cold_lines, try_cold_items
from training.config import Config
from training.data_folder import exclusive
from training.dataset import Prepared, open_prepared
from training.errors import TrainingError
from training.evaluate import Evaluation
from training.events import prepare, print_report
from training.export import Export
from training.exports import Exports
from training.protocol_report import ProtocolReport
from training.report import print_summary, write_report
from training.report_sections import report_sections
from training.runs import Progress, Runs
from training.splits import GlobalTime, LeaveOneOut, Split, Stage, global_time
from training.tensorflow_import import import_tensorflow
from training.text_encoder import NoTextEncoder, open_text_encoder
from training.workers import ALONE, Workers

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

    def __init__(
        self,
        config: Config,
        settings: Settings,
        console: Console,
        state_dir: Path,
        workers: Workers = ALONE,
    ) -> None:
        """`state_dir` may be another than that of the settings, which say where the online store is. The
        workers may share it or have one each."""
        self._config, self._settings, self._console = config, settings, console
        self._state_dir, self._workers = state_dir, workers
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
        if self._config.privacy.noise and done.report.items_file is None:
            raise TrainingError(
                "privacy.noise is set, but there is no items file, so the catalogue would tell what users "
                "had; name one in data.items.path or with --items"
            )
        if not done.reused:
            print_report(done.report, done.folder, self._console)
        if done.forgetting is not None:
            self._console.print(done.forgetting, soft_wrap=True, highlight=False)

    def train(self, seeds: Sequence[int], progress: Progress, time_split: bool = False) -> None:
        """Trains a model per seed, judges them and the baselines, writes and prints the report.

        Without the text encoder that is configured training goes on without texts, and that is said.

        Earlier finished seeds of the same data and configuration stay in the report. The global time split
        is always reported for the baselines, and for the transformer if it has been trained for it
        (`time_split`: with the first seed). A log that the global time split leaves without a part to train
        on or to judge by is reported without it.

        A worker that is not the chief helps with the training, and leaves the rest to the chief.

        Raises:
            TrainingError: nothing is left to train on or to judge by, the training diverged, or another
                worker is gone.
        """
        judged: list[tuple[Split, list[Evaluation]]] = []
        for split in (self._leave_one_out, self._global_time):
            if split is self._leave_one_out:
                self._refuse_short(split)
            elif (purpose := self._lacking(split)) is not None:
                self._console.print(f"{split.name}: left out, as it leaves nothing to {purpose}")
                continue
            counts = _counts(self._prepared, split)
            if split is self._leave_one_out:
                self._settle_text(seeds)
            if split is self._leave_one_out or time_split:
                for seed in seeds if split is self._leave_one_out else seeds[:1]:
                    if not self._workers.chief:
                        self._runs.assist(split, counts(), seed)
                    elif self._workers.count > 1 or self._runs.finished(split, seed) is None:
                        self._runs.train(split, counts(), seed, progress)
            if not self._workers.chief:
                continue
            judged.append((split, self._runs.baselines(split, counts)))
        if not self._workers.chief:
            return
        print_summary(self._console, self._runs.folder, self._report(judged))

    def ablate(self, seeds: Sequence[int], progress: Progress) -> None:
        """Trains the variants of the configuration, prints what each ingredient gains, and puts it into the
        report if there is one.

        Raises:
            TrainingError: nothing is left to train on or to judge by, or a training diverged.
        """
        split = self._leave_one_out
        self._refuse_short(split)
        self._settle_text(seeds)
        done = ablate(self._runs, split, seeds, _counts(self._prepared, split), progress, self._say)
        self._say("\n".join(ablation_lines(done)))
        if (self._runs.folder / "report.md").exists():
            splits: tuple[Split, ...] = (split, self._global_time)
            able = [each for each in splits if self._lacking(each) is None]
            self._report([(each, self._runs.baselines(each, _counts(self._prepared, each))) for each in able])

    def cold_items(self, seeds: Sequence[int], progress: Progress) -> None:
        """Measures and prints how well items that nobody took are recommended.

        Raises:
            TrainingError: nothing is left to train on or to judge by, or a training diverged.
        """
        self._refuse_short(self._leave_one_out)
        self._settle_text(seeds)
        trials = try_cold_items(self._runs, seeds, progress, self._say)
        self._say("\n".join(cold_lines(trials)))

    def meet(self) -> None:
        """Waits until all workers have come as far as this."""
        self._runs.meet()

    def export(self, seed: int) -> Export:
        """Exports the model of a finished run for leave-one-out, or finds that this has been done.

        Raises:
            TrainingError: there is no finished run of this seed, or its catalogue cannot be written.
        """
        self._settle_text_as_trained(seed)
        return self._exports.export(seed)

    def extend(self, items: Path, seed: int | None) -> Export:
        """Adds the items of a file to the export, without training; see `training.extension`.

        Args:
            seed: of the run that the export must be of; None: whichever it is of.

        Raises:
            TrainingError: there is no export of this data and configuration, or the file cannot be used.
        """
        if not (self._export_folder / "training.json").exists():
            raise TrainingError(
                f"{self._export_folder}: there is no export to extend; run `make train` first"
            )
        self._settle_text_as_trained(self._config.training.seed if seed is None else seed)
        cleaned = self._state_dir / "new-items" / self._name
        return self._exports.extend(items, seed, cleaned, forgotten_users(self._settings))

    def cost(self) -> None:
        """Measures the export and prints the table.

        Raises:
            TrainingError: there is no export.
        """
        folder = self._export_folder
        if not (folder / "golden.npz").exists():
            raise TrainingError(f"{folder}: there is no export to measure; run `run` first")
        import_tensorflow()
        from training.cost import measure, print_costs

        print_costs(self._console, measure(folder))

    def _report(self, judged: Sequence[tuple[Split, list[Evaluation]]]) -> list[ProtocolReport]:
        """Writes the report; leave-one-out comes first."""
        runs, counts = self._runs, _counts(self._prepared, self._leave_one_out)
        with exclusive(runs.folder):
            # Asked for inside: another process may have finished a seed, and written its report, meanwhile.
            protocols = [self._protocol(split, baselines) for split, baselines in judged]
            sections = report_sections(runs, self._leave_one_out, protocols[0], counts)
            write_report(runs.folder, self._config, self._prepared, protocols, sections)
        return protocols

    def _settle_text(self, seeds: Sequence[int]) -> None:
        """Goes on without texts if something is to be trained and the text encoder cannot be had."""
        kind = self._config.model.text
        finished = (self._runs.finished(self._leave_one_out, seed) is not None for seed in seeds)
        if kind == "none" or (self._workers.chief and all(finished)):
            return
        try:
            open_text_encoder(kind, self._runs.cache / "text")
        except NoTextEncoder as error:
            self._say(f"going on without the items' texts, as the text encoder cannot be had: {error}")
            self._take_over(_without_text(self._config))

    def _settle_text_as_trained(self, seed: int) -> None:
        """Goes on without texts if that is how the run of a seed was trained."""
        plain = replace(self._runs, config=_without_text(self._config))
        if self._runs.finished(self._leave_one_out, seed) is None and plain.finished(
            self._leave_one_out, seed
        ):
            self._take_over(plain.config)

    def _take_over(self, config: Config) -> None:
        self._config = config
        for name in ("_runs", "_exports"):  # made of the configuration
            self.__dict__.pop(name, None)

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)

    def _refuse_short(self, split: Split) -> None:
        if (purpose := self._lacking(split)) is not None:
            raise TrainingError(self._too_short(purpose))

    def _protocol(self, split: Split, baselines: list[Evaluation]) -> ProtocolReport:
        results = self._runs.all_finished(split)
        return ProtocolReport(
            protocol=split.name,
            meaning=_MEANINGS[split.name],
            baselines=baselines,
            results=results,
            judged_baselines=self._runs.judged_baselines(split),
            judged=[self._runs.judged(split, result.seed) for result in results],
        )

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

    @property
    def _export_folder(self) -> Path:
        return self._state_dir / "exports" / self._name

    @cached_property
    def _exports(self) -> Exports:
        return Exports(self._config, self._prepared, self._runs, self._export_folder, self._console)

    @cached_property
    def _prepared(self) -> Prepared:
        return open_prepared(self._state_dir / "data" / self._name, self._config.behaviour)

    @cached_property
    def _runs(self) -> Runs:
        return Runs(
            self._config,
            self._prepared,
            self._state_dir / "runs" / self._name,
            self._state_dir / "cache",
            self._workers,
        )

    @cached_property
    def _leave_one_out(self) -> Split:
        return LeaveOneOut()

    @cached_property
    def _global_time(self) -> GlobalTime:
        return global_time(self._prepared.events_path, self._config.evaluation.global_split_quantile)


def _without_text(config: Config) -> Config:
    return config.model_copy(update={"model": config.model.model_copy(update={"text": "none"})})


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
            f"{settings.store_name}: the list of forgotten users cannot be read ({error})"
        ) from error
