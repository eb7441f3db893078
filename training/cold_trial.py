"""How well items that nobody took are recommended: a tenth of the catalogue is held out of training
entirely, and it is seen what the users who took something of it would have been shown.

The retrieval is trained once, on ids. Its vectors of the items held out are then those of a mapping from
their features (`training.cold_items`), made with and without the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from training.baselines import count
from training.dataset import History
from training.evaluate import rank
from training.report_tables import heading, mean_and_deviation, row
from training.runs import Progress, Runs, write_json
from training.splits import Case
from training.tensorflow_import import import_tensorflow
from training.warm_split import WarmItems, hold_out

if TYPE_CHECKING:  # TensorFlow is imported when something is trained or asked
    from training.trained import Trained

COLD_ITEMS = "cold-items"
SHARE = 0.1
"""Of the items, held out."""
SHOWN = 50
"""Slots of a page."""
TEXT, CATEGORIES, IDS, RANDOM = "text and categories", "categories", "ids only", "random order"
_CASES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class ColdRecall:
    """Of one kind of item vectors and one seed, recall@50."""

    micro: float
    """Share of all events on items held out whose item is on its user's page."""
    per_user: float
    """The mean of that share over the users."""


@dataclass(frozen=True, slots=True)
class ColdTrial:
    """One seed, which drew the items and trained the model."""

    seed: int
    held_out: int
    users: int
    positives: int
    recalls: Mapping[str, ColdRecall]
    """By kind of item vectors."""


def try_cold_items(
    runs: Runs, seeds: Sequence[int], progress: Progress, announce: Callable[[str], None]
) -> list[ColdTrial]:
    """Trains where that has not been done, judges, and writes cold-items.md and cold-items.json into the run
    root of `runs`; the trained models are in `<runs>-cold-items`.

    Args:
        runs: of the configuration. Its item features and its ranking network are left out.
        announce: told what is about to be trained.

    Raises:
        TrainingError: a training diverged; `NoTextEncoder` if the text encoder cannot be had.
    """
    config = runs.config
    ids = config.model_copy(
        update={
            "model": config.model.model_copy(update={"item_features": False}),
            "ranker": config.ranker.model_copy(update={"train": False}),
        }
    )
    root = replace(runs, config=ids, folder=runs.folder.with_name(f"{runs.folder.name}-{COLD_ITEMS}"))
    trials = [_trial(root, seed, progress, announce) for seed in seeds]
    runs.folder.mkdir(parents=True, exist_ok=True)
    write_json(
        runs.folder / f"{COLD_ITEMS}.json",
        {"data": runs.prepared.fingerprint, "trials": [asdict(trial) for trial in trials]},
    )
    text = [f"# {config.data.name}: items that nobody took", "", *cold_lines(trials)]
    (runs.folder / f"{COLD_ITEMS}.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    return trials


def cold_lines(trials: Sequence[ColdTrial]) -> list[str]:
    """Markdown without the heading."""
    seeds = ", ".join(str(trial.seed) for trial in trials)
    first = trials[0]
    which = f"Seed {seeds}."
    if len(trials) > 1:
        which = f"Seeds {seeds}, each with its own draw, mean ± sd; counts are those of seed {first.seed}."
    lines = [
        f"{SHARE:.0%} of the items that somebody took ({first.held_out:,}) are held out of training, "
        "drawn by lot; a user's page is ranked from all their events on the others: the whole catalogue but "
        f"what they had. Positives are the items held out that they took: {first.positives:,} of "
        f"{first.users:,} users. {which} `python -m training cold-items` makes this.",
        "",
        *heading(["vectors of items held out from", f"recall@{SHOWN}", "per user", "× random"]),
    ]
    for kind in first.recalls:
        both = [[getattr(trial.recalls[kind], name) for trial in trials] for name in ("micro", "per_user")]
        ratio = fmean(trial.recalls[kind].micro / trial.recalls[RANDOM].micro for trial in trials)
        lines.append(row(kind, [*map(mean_and_deviation, both), f"{ratio:.1f}"]))
    return lines


def _trial(root: Runs, seed: int, progress: Progress, announce: Callable[[str], None]) -> ColdTrial:
    prepared, item_count = root.prepared, len(root.prepared.items)
    everything = count(prepared.histories(), item_count, pairs=False)
    split = hold_out(everything.item_users, SHARE, seed)
    counts = count((split.training_part(h) for h in prepared.histories()), item_count, pairs=False)
    if root.finished(split, seed) is None:
        announce(f"without {len(split.held_out):,} items, seed {seed}: {root.folder}")
        root.train(split, counts, seed, progress)
    import_tensorflow()
    from training.facts import gather_facts
    from training.trained import load_trained, with_cold_items

    def features(text: bool) -> Trained:
        config = root.config
        if not text:
            model = config.model.model_copy(update={"text": "none"})
            config = config.model_copy(update={"model": model})
        facts = gather_facts(config, prepared, counts, root.cache)
        model = load_trained(root.run_folder(split, seed), facts).model
        return with_cold_items(facts, model, validation)

    validation = [case for h in prepared.histories() if (case := split.case(h, "validation")) is not None]
    kinds = {TEXT: features(text=True)} if root.config.model.text != "none" else {}
    kinds[CATEGORIES] = features(text=False)
    table = kinds[CATEGORIES].items
    cold = counts.item_users == 0
    nothing = replace(
        table,
        vectors=np.where(np.pad(cold, (1, 0))[:, None], np.float32(0), table.vectors),
        levels=np.zeros_like(table.levels),
    )
    kinds[IDS] = replace(kinds[CATEGORIES], items=nothing)
    cases = [case for h in prepared.histories() if (case := cold_case(h, split)) is not None]
    recalls = {kind: _recall(trained, cases) for kind, trained in kinds.items()}
    return ColdTrial(
        seed=seed,
        held_out=len(split.held_out),
        users=len(cases),
        positives=sum(len(case.targets) for case in cases),
        recalls=recalls | {RANDOM: random_recall(cases, item_count)},
    )


def cold_case(history: History, split: WarmItems) -> Case | None:
    """A request of now, from all events on the other items, for those held out; None without either."""
    held_out = split.is_held_out(history.items)
    if held_out.all() or not held_out.any():
        return None
    return Case(split.warm(history), np.unique(history.items[held_out]), int(history.times[-1]))


def random_recall(cases: Sequence[Case], item_count: int) -> ColdRecall:
    """What a page drawn by lot from what is new to its user is expected to hold."""
    shares = [min(1.0, SHOWN / (item_count - len(np.unique(case.known.items)))) for case in cases]
    return ColdRecall(
        micro=float(np.average(shares, weights=[len(case.targets) for case in cases])), per_user=fmean(shares)
    )


def _recall(trained: Trained, cases: Sequence[Case]) -> ColdRecall:
    ranker, slots = trained.retrieval, min(SHOWN, len(trained.facts.item_users))
    published = trained.facts.published[1:]
    found: list[int] = []
    for start in range(0, len(cases), _CASES_AT_ONCE):
        some = cases[start : start + _CASES_AT_ONCE]
        for page, case in zip(rank(ranker, some, slots, published) + 1, some, strict=True):
            found.append(int(np.isin(case.targets, page).sum()))
    targets = [len(case.targets) for case in cases]
    return ColdRecall(
        micro=sum(found) / sum(targets),
        per_user=fmean(hits / count for hits, count in zip(found, targets, strict=True)),
    )
