"""`python -m training.compare A B`: which of two models is better, by the users that both were judged by.

A and B are each a folder that holds judged.npz (a training run, an export, a published version), a folder of
runs (`var/runs/NAME`: the users' means over all its seeds), or a number, which is a version of the model
repository.

Exit status: 0 compared, 2 the two cannot be compared (one sentence says why).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from features.settings import Settings, load_settings
from training.errors import BAD_INPUT_EXIT_CODE, TrainingError
from training.judged import Judged, load_judged
from training.runs import JUDGED
from training.significance import RESAMPLES, Difference, differences, refuse_others
from training.slices import slices

_COMPARED = ("hr", "ndcg", "mrr", "recall")
"""Precision is left out, as it is the hits of HR and recall over the same k."""
_MAIN = 2
"""Metrics that come first: HR and NDCG at one cut-off."""
_OTHER_SLICES = (
    "By kinds of users and targets A and B do not compare, as the same users are not of the same kinds: they "
    "may have been judged by different events, as where [behaviour] differs, and then the figures above do "
    "not compare either; train both again with the same [behaviour] to be sure."
)
_LABELS = {"hr": "HR", "ndcg": "NDCG", "mrr": "MRR"}


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are compared."""

    label: str
    """`A` or `B`."""
    where: str
    """What the command line called it."""
    judged: Sequence[Judged]
    """Several are the seeds of one model."""

    def __str__(self) -> str:
        ranker = self.judged[0].ranker
        seeds = f", mean over {len(self.judged)} seeds" if len(self.judged) > 1 else ""
        return f"{self.label}: {self.where} ({ranker}{seeds})"


def main(arguments: list[str] | None = None, console: Console | None = None) -> int:
    """Compares, prints and gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.compare", description=__doc__.splitlines()[0])
    for name in ("A", "B"):
        parser.add_argument(
            name, help="a run, an export or a version's folder, a folder of runs, or a version's number"
        )
    given = parser.parse_args(arguments)
    settings = load_settings()
    try:
        first, second = (
            Side(label, where, _judged(where, settings)) for label, where in (("A", given.A), ("B", given.B))
        )
        refuse_others([*first.judged, *second.judged])
        found = differences(first.judged, second.judged, _metrics([*first.judged, *second.judged]))
    except TrainingError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT_EXIT_CODE
    print_comparison(console or Console(), first, second, found)
    return 0


def print_comparison(console: Console, first: Side, second: Side, found: Sequence[Difference]) -> None:
    """The figures, a verdict by each, and the figures by kinds of users and targets."""
    for side in (first, second):
        console.print(str(side), soft_wrap=True, highlight=False, markup=False)
    table = _table(
        f"{found[0].users:,} users, {first.judged[0].protocol}; paired bootstrap, {RESAMPLES:,} resamples",
        ["metric", "A", "B", "A − B", "95 % interval", "p"],
    )
    for i, one in enumerate(found):
        table.add_row(
            _label(one.metric),
            f"{one.first:.4f}",
            f"{one.second:.4f}",
            f"{one.difference:+.4f}",
            f"{one.low:+.4f} to {one.high:+.4f}",
            f"{one.p:.4f}",
            style="bold" if i < _MAIN else None,
        )
    console.print(table)
    for one in found:
        console.print(verdict(one), soft_wrap=True, highlight=False)
    _print_slices(console, first, second, [one.metric for one in found[:_MAIN]])


def verdict(found: Difference) -> str:
    """What a difference shows, in a sentence; `found` is of A and B, in this order."""
    metric = _label(found.metric)
    if not found.significant:
        return (
            f"{metric}: no difference is shown between A and B (p = {found.p:.4f}); A may be better by "
            f"{found.low:+.4f} to {found.high:+.4f}."
        )
    better, worse = ("A", "B") if found.difference > 0 else ("B", "A")
    low, high = (found.low, found.high) if found.difference > 0 else (-found.high, -found.low)
    return (
        f"{metric}: {better} is better than {worse} by {abs(found.difference):.4f} "
        f"(95 % interval {low:+.4f} to {high:+.4f}, p = {found.p:.4f})."
    )


def _print_slices(console: Console, first: Side, second: Side, metrics: Sequence[str]) -> None:
    columns = ["slice", "users"]
    for metric in metrics:
        columns += [f"A {_label(metric)}", f"B {_label(metric)}", "A − B"]
    table = _table("By kinds of users and targets", columns)
    everyone = [*first.judged, *second.judged]
    if len({tuple((one.name, one.users) for one in slices([judged])) for judged in everyone}) > 1:
        console.print(_OTHER_SLICES, soft_wrap=True, highlight=False, markup=False)
        return
    for ours, theirs in zip(slices(first.judged), slices(second.judged), strict=True):
        cells = []
        for metric in metrics:
            a, b = ours.metrics[metric], theirs.metrics[metric]
            cells += [f"{a:.4f}", f"{b:.4f}", f"{a - b:+.4f}"]
        table.add_row(ours.name, f"{ours.users:,}", *cells)
    console.print(table)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    return table


def _label(metric: str) -> str:
    name, k = metric.split("@")
    return f"{_LABELS.get(name, name)}@{k}"


def _metrics(rankers: Sequence[Judged]) -> list[str]:
    """Those that all were judged by, first at 10, or else at the largest cut-off."""
    shared = set.intersection(*(set(judged.cutoffs) for judged in rankers))
    if not shared:
        raise TrainingError("these were judged by no metric in common: evaluation.cutoffs differ")
    first = 10 if 10 in shared else max(shared)
    return [f"{name}@{k}" for k in (first, *sorted(shared - {first})) for name in _COMPARED]


def _judged(where: str, settings: Settings) -> list[Judged]:
    """What stands at a place that the command line names."""
    numbered = re.fullmatch("[0-9]+", where) is not None
    folder = settings.model_repository / settings.model_name / where if numbered else Path(where)
    if not folder.is_dir():
        raise TrainingError(f"{folder}: there is no such folder")
    if (folder / JUDGED).is_file():
        return [load_judged(folder / JUDGED)[0]]
    seeds = sorted(path.parent for path in folder.glob(f"seed-*/{JUDGED}"))
    if not seeds:
        raise TrainingError(
            f"{folder}: holds no {JUDGED}, nor does a seed-N folder in it; train or export it again"
        )
    if any(_settings(seed) != _settings(seeds[0]) for seed in seeds):
        raise TrainingError(f"{folder}: its seeds were trained with different settings; name one of them")
    return [load_judged(seed / JUDGED)[0] for seed in seeds]


def _settings(seed: Path) -> dict[str, Any]:
    """What of a run's configuration the mean over seeds has to have in common."""
    try:
        config = json.loads((seed / "run.json").read_text(encoding="utf-8"))["config"]
        config["training"].pop("seed", None)
        config["model"].pop("page_size", None)
        return {name: table for name, table in config.items() if name not in ("data", "evaluation")}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise TrainingError(f"{seed / 'run.json'}: cannot be read ({error})") from error


if __name__ == "__main__":
    sys.exit(main())
