"""What each ingredient of the model gains: variants of a configuration, trained like any run and compared.

A variant has a run root of its own, `<runs>-ablation/<ingredients>`, but for the configuration itself, whose
runs are taken as they are. What is finished is not trained again. What comes of it is in ablation.md and
ablation.json of the configuration's run root, and in its report.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from training.baselines import Counts
from training.ingredients import Ingredients, Variant, VariantTable, variant_tables, with_ingredients
from training.judged import Judged
from training.report_tables import heading, mean_and_deviation, row
from training.results import Result
from training.runs import Progress, Runs, write_json
from training.sections import Section
from training.significance import RESAMPLES, Difference, differences
from training.splits import Split

ABLATION = "ablation"
"""Stem of the two files."""
_LABELS = {"hr": "HR", "ndcg": "NDCG"}


@dataclass(frozen=True, slots=True)
class AblationRow:
    """The figures of one variant."""

    name: str
    default: str
    test: Mapping[str, Sequence[float]]
    """`hr@10` and `ndcg@10`, a value for each seed."""
    validation: Mapping[str, Sequence[float]]
    seconds: float
    """Mean wall time of the training, over the seeds."""
    against: str | None
    """The row that it is compared with; None for the first."""
    differences: Sequence[Difference]
    """Of the test, by `hr@10` and `ndcg@10`; empty for the first row."""


@dataclass(frozen=True, slots=True)
class Ablation:
    """All tables."""

    seeds: Sequence[int]
    users: int
    cutoff: int
    tables: Mapping[str, Sequence[AblationRow]]
    """By title."""


def ablate(
    runs: Runs,
    split: Split,
    seeds: Sequence[int],
    counts: Callable[[], Counts],
    progress: Progress,
    announce: Callable[[str], None],
) -> Ablation:
    """Trains what is not trained yet, compares, and writes the two files.

    Args:
        runs: of the configuration.
        announce: told which variant is about to be trained.

    Raises:
        TrainingError: a training diverged.
    """
    tables = variant_tables(runs.config, attributes=bool(runs.prepared.attributes))
    roots = _roots(runs, split, tables)
    done: dict[Ingredients, _Trained] = {}
    for ingredients, root in roots.items():
        for seed in seeds:
            if root.finished(split, seed) is None:
                announce(f"{ingredients}, seed {seed}: {root.folder}")
                root.train(split, counts(), seed, progress)
        done[ingredients] = _Trained.read(root, split, seeds)
    cutoffs = next(iter(done.values())).parts[0][0].cutoffs
    cutoff = 10 if 10 in cutoffs else cutoffs[-1]
    ablation = Ablation(
        seeds=list(seeds),
        users=len(next(iter(done.values())).parts[0][0].users),
        cutoff=cutoff,
        tables={table.title: _rows(table, done, cutoff) for table in tables},
    )
    runs.folder.mkdir(parents=True, exist_ok=True)
    write_json(
        runs.folder / f"{ABLATION}.json", {"of": runs.fingerprint(split, 0), "ablation": asdict(ablation)}
    )
    text = [f"# {runs.config.data.name}: ingredients", "", *ablation_lines(ablation)]
    (runs.folder / f"{ABLATION}.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    return ablation


def kept_ablation(runs: Runs, split: Split) -> Ablation | None:
    """What `ablate` wrote, if it is of this data and configuration."""
    try:
        saved = json.loads((runs.folder / f"{ABLATION}.json").read_text(encoding="utf-8"))
        if saved["of"] != runs.fingerprint(split, 0):
            return None
        tables = {
            title: [_row_from_json(one) for one in rows]
            for title, rows in saved["ablation"]["tables"].items()
        }
        return Ablation(**{**saved["ablation"], "tables": tables})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def ablation_section(ablation: Ablation) -> Section:
    """The tables in a report."""
    return Section(
        key=ABLATION,
        title="Ingredients",
        lines=[*ablation_lines(ablation), "", f"Also in {ABLATION}.md and {ABLATION}.json."],
        figures=asdict(ablation),
    )


def ablation_lines(ablation: Ablation) -> list[str]:
    """Markdown without the first heading."""
    k, names = ablation.cutoff, [f"{name}@{ablation.cutoff}" for name in _LABELS]
    seeds = ", ".join(str(seed) for seed in ablation.seeds)
    lines = [
        f"Leave-one-out, {ablation.users:,} users, seed{'s' if len(ablation.seeds) > 1 else ''} {seeds}"
        f"{', mean ± sd' if len(ablation.seeds) > 1 else ''}; differences on the test, p by a paired "
        f"bootstrap over the users (each by the mean over the seeds), {RESAMPLES:,} resamples. In every row, "
        "items that nobody took get their vectors from their features. "
        "`python -m training ablate` makes this.",
    ]
    for title, rows in ablation.tables.items():
        to_the_first = all(one.against in (None, rows[0].name) for one in rows)
        against = "first row" if to_the_first else "row before"
        lines += ["", f"### {title}", "", f"Differences are to the {against}.", ""]
        figures = [f"{part}{label}@{k}" for part in ("", "validation ") for label in _LABELS.values()]
        changes = [word for label in _LABELS.values() for word in (f"Δ {label}@{k}", "p")]
        lines += heading(["", "default", *figures, *changes, "training"])
        for one in rows:
            cells = [mean_and_deviation(part[name]) for part in (one.test, one.validation) for name in names]
            found = [
                word for each in one.differences for word in (f"{each.difference:+.4f}", f"{each.p:.4f}")
            ]
            lines.append(row(one.name, [one.default, *cells, *(found or [""] * 4), f"{one.seconds:.0f} s"]))
    return lines


@dataclass(frozen=True, slots=True)
class _Trained:
    """One run of each seed."""

    results: Sequence[Result]
    parts: Sequence[Sequence[Judged]]
    """`Runs.judged_parts` of each."""

    @classmethod
    def read(cls, runs: Runs, split: Split, seeds: Sequence[int]) -> _Trained:
        results = [result for seed in seeds if (result := runs.finished(split, seed)) is not None]
        return cls(results, [runs.judged_parts(split, seed) for seed in seeds])

    def has(self, ranked: bool) -> bool:
        return not ranked or all(result.ranking is not None for result in self.results)

    def row(
        self, variant: Variant, cutoff: int, before: AblationRow | None, found: list[Difference]
    ) -> AblationRow:
        names = [f"{name}@{cutoff}" for name in _LABELS]
        tests, validations, seconds = [], [], []
        for result in self.results:
            ranking = result.ranking if variant.ranked else None
            tests.append(ranking.test if ranking else result.retrieval_test)
            validations.append(ranking.validation if ranking else result.retrieval_validation)
            alone = result.seconds - (result.ranking.seconds if result.ranking else 0.0)
            seconds.append(alone + (ranking.seconds if ranking else 0.0))
        return AblationRow(
            name=variant.name,
            default=variant.default,
            test={name: [part.metrics[name] for part in tests] for name in names},
            validation={name: [part.metrics[name] for part in validations] for name in names},
            seconds=fmean(seconds),
            against=before.name if before else None,
            differences=found,
        )


def _roots(runs: Runs, split: Split, tables: Sequence[VariantTable]) -> dict[Ingredients, Runs]:
    """The runs of all rows, none twice: a retrieval wanted with and without ranking is one training."""
    rows = [variant for table in tables for variant in table.rows]
    ranked = {variant.ingredients for variant in rows if variant.ranked}
    roots = {}
    for ingredients in dict.fromkeys(variant.ingredients for variant in rows):
        config = with_ingredients(runs.config, ingredients, ingredients in ranked)
        folder = runs.folder.with_name(f"{runs.folder.name}-{ABLATION}") / str(ingredients)
        root = replace(runs, config=config, folder=folder)
        own = root.fingerprint(split, 0) == runs.fingerprint(split, 0)
        roots[ingredients] = runs if own else root
    return roots


def _rows(table: VariantTable, done: Mapping[Ingredients, _Trained], cutoff: int) -> list[AblationRow]:
    rows: list[AblationRow] = []
    judged: list[Sequence[Judged]] = []
    for variant in table.rows:
        trained = done[variant.ingredients]
        if not trained.has(variant.ranked):  # the retrieval found nothing to learn a ranking from
            continue
        own = [parts[1 if variant.ranked else 0] for parts in trained.parts]
        at = 0 if table.to_the_first else len(rows) - 1
        found = differences(own, judged[at], [f"{name}@{cutoff}" for name in _LABELS]) if rows else []
        rows.append(trained.row(variant, cutoff, rows[at] if rows else None, found))
        judged.append(own)
    return rows


def _row_from_json(saved: dict[str, Any]) -> AblationRow:
    return AblationRow(**{**saved, "differences": [Difference(**one) for one in saved["differences"]]})
