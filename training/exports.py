"""The export of one data set: made from a finished run, kept while it is of that run, extended by items."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from features.catalog import CatalogError
from training.baselines import count
from training.config import Config
from training.data_config import VECTOR_PREFIX
from training.data_folder import exclusive, replacing
from training.data_report import FileAccount
from training.dataset import Prepared
from training.errors import TrainingError
from training.events import digest_of
from training.export import ADDED, Export, existing_export, export, export_fingerprint
from training.extension import Merged, extended, merge, read_rows, write_rows
from training.results import Result
from training.runs import JUDGED, Runs
from training.splits import LeaveOneOut
from training.tensorflow_import import import_tensorflow


@dataclass(frozen=True, slots=True)
class Exports:
    """What is exported of the runs for leave-one-out of one data set, into one folder."""

    config: Config
    prepared: Prepared
    runs: Runs
    folder: Path
    console: Console

    def export(self, seed: int) -> Export:
        """Exports the model of a finished run, or finds that this has been done.

        What was added to the export of this very run stays. An export of another run goes, and what was added
        to it with it, which is said.

        Raises:
            TrainingError: there is no finished run of this seed, or its catalogue cannot be written.
        """
        result = self._result(seed)
        added = self._added_to(result)
        done = existing_export(self.folder, self._fingerprint(result, added))
        lost = 0
        if done is None:
            lost = 0 if added else self._added_but_lacking()
            done = self._write(result, added)
        self._say_exported(done, seed)
        if lost:
            items, are = ("1 item", "is") if lost == 1 else (f"{lost:,} items", "are")
            self._say(
                f"{items} that had been added to the export before, without training, {are} not in this one: "
                "put them into the items file to have them in every export"
            )
        return done

    def extend(self, items: Path, seed: int | None, cleaned: Path, private: frozenset[str]) -> Export:
        """Adds the items of a file to the export, without training.

        Args:
            seed: of the run that the export must be of; None: whichever it is of.
            cleaned: the folder for what is kept of the file, and for the list of what is not.
            private: ids of forgotten users.

        Raises:
            TrainingError: there is no export of a finished run of this data and configuration, or the file
                cannot be used. The export is as before.
        """
        # Here, so that who only wants an export does not wait for Ibis and DuckDB.
        from training.preparation import write_items

        result = self._exported_run(seed)
        with exclusive(cleaned):  # of two extensions at once, the second one keeps what the first one added
            with replacing(cleaned) as new:
                account = write_items(self.config.data, new, items, digest_of(items), private)
            present = self._added_to(result)
            earlier = read_rows(present, self.prepared) if present else ()
            try:
                given = read_rows(cleaned / "items.parquet", self.prepared)
            except TrainingError as error:
                raise TrainingError(f"{items}: {error}") from error
            merged = merge(self.prepared, earlier, given, int(time.time()))
            if merged.new or merged.changed:
                write_rows(cleaned / ADDED, merged.rows, self.prepared)
                done = self._write(result, cleaned / ADDED)
            else:
                description = self._description()
                done = Export(self.folder, float(description["parity"]), reused=True)
                # Publishing takes the newest export, and it is this one that was asked for.
                (self.folder / "training.json").touch()
        self._say_extended(items, merged, account, cleaned)
        self._say_exported(done, result.seed)
        return done

    def _exported_run(self, seed: int | None) -> Result:
        """The finished run that the present export is of."""
        description = self._description()
        exported = description.get("seed")
        if not isinstance(exported, int):
            raise TrainingError(f"{self.folder}: there is no export to extend; run `make train` first")
        if seed not in (None, exported):
            raise TrainingError(
                f"{self.folder} is of seed {exported}, not of seed {seed}: name that seed, or export "
                "this one first"
            )
        if description.get("data_fingerprint") != self.prepared.fingerprint:
            raise TrainingError(
                f"{self.prepared.folder} has been prepared anew since {self.folder} was exported; run "
                "`make train` first"
            )
        result = self.runs.finished(LeaveOneOut(), exported)
        if result is None or description.get("run") != result.fingerprint:
            raise TrainingError(
                f"{self.folder} is not of a finished run of this configuration in {self.runs.folder}; run "
                "`make train` first"
            )
        return result

    def _result(self, seed: int) -> Result:
        result = self.runs.finished(LeaveOneOut(), seed)
        if result is None:
            raise TrainingError(f"seed {seed} has no finished run in {self.runs.folder}; run `train` first")
        return result

    def _write(self, result: Result, added: Path | None) -> Export:
        import_tensorflow()
        from training.facts import gather_facts
        from training.trained import load_trained

        prepared, run = self.prepared, self.runs.run_folder(LeaveOneOut(), result.seed)
        parts = (LeaveOneOut().training_part(history) for history in prepared.histories())
        counts = count(parts, len(prepared.items), pairs=False)
        facts = gather_facts(self.config, prepared, counts, self.runs.cache)
        catalogue, trained = prepared.items, load_trained(run, facts)
        popularity = count(prepared.histories(), len(prepared.items), pairs=False).item_users
        if added is not None:
            catalogue, trained = extended(trained, prepared, read_rows(added, prepared), self.runs.cache)
            popularity = np.pad(popularity, (0, len(catalogue) - len(popularity)))
        try:
            return export(
                self.config,
                prepared,
                catalogue,
                trained,
                popularity,
                result,
                run / JUDGED,
                self.folder,
                fingerprint=self._fingerprint(result, added),
                added=added,
            )
        except CatalogError as error:
            raise TrainingError(str(error)) from error

    def _fingerprint(self, result: Result, added: Path | None) -> str:
        return export_fingerprint(self.config, result, digest_of(added) if added else "")

    def _added_to(self, result: Result) -> Path | None:
        """What was added to the present export; None if nothing was, or it is of another run."""
        added = self.folder / ADDED
        return added if self._description().get("run") == result.fingerprint and added.is_file() else None

    def _added_but_lacking(self) -> int:
        """How many items were added to the present export that the prepared data does not have."""
        try:
            added = pq.read_table(self.folder / ADDED, columns=["item_id"])["item_id"].to_pylist()
        except (OSError, pa.ArrowException):
            return 0
        return len(set(added) - {item.item_id for item in self.prepared.items})

    def _description(self) -> dict[str, Any]:
        """The present export's training.json; empty if there is none."""
        try:
            description = json.loads((self.folder / "training.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return description if isinstance(description, dict) else {}

    def _say_extended(self, items: Path, merged: Merged, account: FileAccount, cleaned: Path) -> None:
        changed = f"{merged.changed:,} changed"
        if merged.changed:
            changed += " (what is shown of them; those with a history keep their vectors)"
        self._say(f"{items}: {merged.new:,} items added, {changed}, {merged.same:,} known as they are")
        if account.rows_dropped:
            reasons = ", ".join(f"{rows:,} × {reason}" for reason, rows in account.rows_dropped.items())
            self._say(f"dropped rows: {reasons}; with their lines in {cleaned / 'quarantine.csv'}")
        names = pq.read_schema(cleaned / "items.parquet").names
        told = {name.removeprefix(VECTOR_PREFIX) for name in names if name.startswith(VECTOR_PREFIX)}
        for name in sorted(told - set(self.prepared.item_vectors)):
            self._say(f"{VECTOR_PREFIX}{name} says nothing to this model, which was trained without it")
        for name in sorted(set(self.prepared.item_vectors) - told):
            self._say(f"{VECTOR_PREFIX}{name}, with which the model was trained, is no column of the file")

    def _say_exported(self, done: Export, seed: int) -> None:
        reused = " (reused)" if done.reused else ""
        self._say(
            f"export: {done.folder}, seed {seed}{reused}; scores of the SavedModel and the trained model "
            f"differ by at most {done.max_difference:.1e}"
        )

    def _say(self, sentence: str) -> None:
        self.console.print(sentence, soft_wrap=True, highlight=False)
