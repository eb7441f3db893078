"""What the ranking network learns from: requests of the past with what the retrieval found for them.

The newest events of each user in the training part are asked for again, from the history before them. The
trained retrieval answers with its candidates; where the item that was taken is among them it is the positive.
Negatives are what the user was shown at that time and passed over, where the log tells, and else candidates
drawn at random: what the network will have to tell apart when it serves. User vectors are made with dropout,
as in training the retrieval has seen the answer, and without it would look better than it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.cold_items import ItemVectors
from training.dataset import Exposures, History, Prepared
from training.evaluate import masked
from training.facts import Facts
from training.model import HistoryEncoder
from training.splits import Case, Split

PER_USER = 20
"""Newest events of a user that are asked for."""
_MOST = 200_000
"""Requests that are gathered at most: as many of the first users' as make them."""
_REQUESTS_PER_BATCH = 256
_SESSION_S = 1_800
"""What was shown this long before an item was taken was shown beside it."""


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """P requests, each with one positive and Q negatives."""

    user: NDArray[np.float32]
    """`[P, W]`, user vectors."""
    items: NDArray[np.int32]
    """`[P, 1 + Q]`, catalogue indices, the positive first."""
    scores: NDArray[np.float32]
    """`[P, 1 + Q]`, the retrieval's, as logarithms of their shares among its candidates."""
    recent: NDArray[np.int32]
    """`[P, R]`, catalogue indices of the newest events, oldest first, left-padded with 0."""
    recent_times: NDArray[np.int64]
    """`[P, R]`, Unix seconds."""
    features: NDArray[np.int32]
    """`[P, F]`, rows of attributes."""
    surface: NDArray[np.int32]
    """`[P]`, rows of surfaces."""
    time: NDArray[np.int64]
    """`[P]`, Unix seconds of the request."""
    weight: NDArray[np.float32]
    """`[P]`, what an event of the positive's type counts."""
    shown: int
    """Negatives that were shown and passed over; the others were drawn."""

    def __len__(self) -> int:
        return len(self.time)


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A request of the past."""

    case: Case
    weight: float
    """What an event of its target's type counts."""
    shown: NDArray[np.int32]
    """What the user was shown beside it and passed over, catalogue indices."""


def gather_examples(
    facts: Facts, prepared: Prepared, split: Split, model: HistoryEncoder, items: ItemVectors, *, seed: int
) -> Examples | None:
    """Asks the retrieval for the newest events of every user; None if it found none of them."""
    rng = np.random.default_rng([seed, 3])
    # Wherever training has left the masks: a run that was resumed must give the same network.
    for i, layer in enumerate(model._flatten_layers()):
        if isinstance(layer, keras.layers.Dropout) and layer.rate > 0:
            layer.seed_generator.state.assign([seed, i])
    parts = []
    requests = islice(_requests(facts, prepared, split), _MOST)
    while batch := list(islice(requests, _REQUESTS_PER_BATCH)):
        parts.append(_examples(facts, model, items, batch, rng))
    parts = [part for part in parts if len(part)]
    if not parts:
        return None
    return Examples(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(Examples)
            if field.name != "shown"
        },
        shown=sum(part.shown for part in parts),
    )


def candidates_of(
    scores: NDArray[np.float32], cases: Sequence[Case], published: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """The best `count` items that may be recommended in each case, int32 `[B, count]`, best first, from 1;
    and whether they may, bool: where fewer are left, others fill up.

    Args:
        scores: float32 `[B, N]`.
        published: as `training.evaluate.masked` has it.
    """
    able = masked(scores, cases, published)
    best = np.argpartition(-able, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(able, best, axis=1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1)
    return (best + 1).astype(np.int32), np.isfinite(np.take_along_axis(able, best, axis=1))


def _examples(
    facts: Facts,
    model: HistoryEncoder,
    items_of: ItemVectors,
    asked: Sequence[_Asked],
    rng: np.random.Generator,
) -> Examples:
    config, cases = facts.config.ranker, [each.case for each in asked]
    histories = facts.histories(cases)
    vectors = model(histories, tf.constant(items_of.vectors), newest_only=True, training=True).numpy()
    scores = vectors @ items_of.vectors[1:].T + items_of.levels[1:]
    count = min(config.candidates, scores.shape[1])
    found, real = candidates_of(scores, cases, facts.published[1:], count)
    targets = np.array([case.targets[0] for case in cases], np.int32)
    hits = np.flatnonzero((real & (found == targets[:, None])).any(axis=1)).tolist()
    negatives = min(config.negatives, count - 1)
    items = np.zeros((len(hits), 1 + negatives), np.int32)
    shown, kept = 0, []
    for place, at in enumerate(hits):
        passed_over = rng.permutation(asked[at].shown)[:negatives]
        # An item that nobody took, or that came later, was no choice: as a negative it would teach that such
        # items are never taken, and the network would bury what the retrieval has brought up.
        choices = real[at] & facts.items.had[found[at]] & (facts.item_times[found[at]] <= cases[at].time)
        others = np.setdiff1d(found[at][choices], [targets[at], *passed_over])
        wanted = negatives - len(passed_over)
        if len(others) or not wanted:
            drawn = rng.choice(others, wanted, replace=len(others) < wanted)
            items[place] = [targets[at], *passed_over, *drawn]
            shown += len(passed_over)
            kept.append(place)
    hits, items = [hits[place] for place in kept], items[kept]
    scores = scores[hits]
    among = np.take_along_axis(scores, found[hits] - 1, axis=1)
    among = np.where(real[hits], among, -np.inf)
    total = np.logaddexp.reduce(among, axis=1)  # as `ranker.log_shares`
    recent = min(config.recent, facts.config.model.history)
    return Examples(
        user=vectors[hits],
        items=items,
        scores=(np.take_along_axis(scores, items - 1, axis=1) - total[:, None]).astype(np.float32),
        recent=histories.items.numpy()[hits, -recent:],
        recent_times=histories.times.numpy()[hits, -recent:],
        features=histories.features.numpy()[hits],
        surface=facts.surface_rows(np.array([cases[at].surface for at in hits], np.int64)),
        time=np.array([cases[at].time for at in hits], np.int64),
        weight=np.array([asked[at].weight for at in hits], np.float32),
        shown=shown,
    )


def _requests(facts: Facts, prepared: Prepared, split: Split) -> Iterator[_Asked]:
    exposures = prepared.exposures()
    weights = facts.config.behaviour.type_weights()
    shown = next(exposures, None)
    for history in prepared.histories():
        while shown is not None and shown.user_id < history.user_id:
            shown = next(exposures, None)
        own = shown if shown is not None and shown.user_id == history.user_id else None
        yield from _of_user(split.training_part(history), own, weights)


def _of_user(history: History, shown: Exposures | None, weights: Sequence[float]) -> Iterator[_Asked]:
    taken = np.unique(history.items)
    for at in range(max(1, len(history) - PER_USER), len(history)):
        target = history.items[at : at + 1]
        known = history.until(at)
        if target[0] in known.taken:
            continue
        time = int(history.times[at])
        surface = int(history.surfaces[at]) if len(history.surfaces) else 0
        passed_over = np.empty(0, np.int32)
        if shown is not None:
            beside = (shown.times <= time) & (shown.times > time - _SESSION_S)
            # What the user took later on was not passed over for good.
            passed_over = np.setdiff1d(shown.items[beside], taken).astype(np.int32)
        yield _Asked(Case(known, target, time, surface), weights[history.types[at]], passed_over)
