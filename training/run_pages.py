"""What a report has of the pages of a trained model: measured once, and kept in the folder of its run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.baselines import Counts
from training.exposure import category_vectors
from training.plots import DiversityPoint
from training.results import Result
from training.runs import Runs, cases_of, write_json
from training.splits import Split
from training.tensorflow_import import import_tensorflow

PAGES = "pages.json"
_METHOD = 1
"""Raise it when the same model would give other figures."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to choose the reason, and how often removing it costs more than removing another item."""

    name: str
    share: float
    """Of recommended items, the mean over the users; ties count half, so 0.5 is a choice by lot."""
    low: float
    high: float
    """The 95 % interval of the share, by a bootstrap over the users."""
    exact: float
    """How often it is the very item whose removal costs most."""


@dataclass(frozen=True, slots=True)
class ReasonTrial:
    """All choices on the same users."""

    users: int
    recommended: int
    """Best items of each page that are looked at."""
    least_events: int
    """Users with fewer in the part of the history that the encoder sees are left out."""
    choices: tuple[Choice, ...]
    """The served one first."""

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ReasonTrial:
        """What `dataclasses.asdict` gave, after JSON. Raises TypeError or KeyError for anything else."""
        return cls(**{**document, "choices": tuple(Choice(**one) for one in document["choices"])})


@dataclass(frozen=True, slots=True)
class RunPages:
    """Of one run, on its test part."""

    pool: int
    """Candidates that the served graph re-orders for diversity."""
    diversity: tuple[DiversityPoint, ...]
    reasons: ReasonTrial | None
    """None if nobody has a history that is long enough."""


def run_pages(runs: Runs, split: Split, result: Result, counts: Callable[[], Counts]) -> RunPages:
    """What is kept, or else what loading and asking the model gives.

    Raises:
        TrainingError: the model cannot be loaded; `NoTextEncoder` if the vectors of its items' texts cannot.
    """
    path = runs.run_folder(split, result.seed) / PAGES
    config, item_count = runs.config, len(runs.prepared.items)
    pool = min(item_count, config.ranker.candidates if result.served else config.model.page_size)
    decides = [_METHOD, result.fingerprint, pool]
    if (kept := _kept(path, decides)) is not None:
        return kept
    import_tensorflow()
    from training.diversity_curve import diversity_curve
    from training.facts import gather_facts
    from training.reason_trial import try_reasons
    from training.trained import load_trained

    facts = gather_facts(config, runs.prepared, counts(), runs.cache)
    trained = load_trained(runs.run_folder(split, result.seed), facts)
    cases = cases_of(runs.prepared, split, "test")
    categories = category_vectors(runs.prepared.items, runs.prepared.categories)
    pages = RunPages(
        pool=pool,
        diversity=tuple(diversity_curve(trained, cases, pool, categories)),
        reasons=try_reasons(trained, cases),
    )
    write_json(path, {"decides": decides, "pages": asdict(pages)})
    return pages


def _kept(path: Path, decides: list[Any]) -> RunPages | None:
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["decides"] != decides:
            return None
        pages = saved["pages"]
        return RunPages(
            pool=pages["pool"],
            diversity=tuple(DiversityPoint(**point) for point in pages["diversity"]),
            reasons=None if pages["reasons"] is None else ReasonTrial.from_json(pages["reasons"]),
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None
