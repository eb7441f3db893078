"""Whether a reason is one: how often a recommended item loses more when its reason is taken out of the
history than when another item is.

Every item of a history is taken out in turn, with all its events, so "another item" is the mean over all of
them, and the item whose loss would cost most is known: no choice can do better than to name that one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.evaluate import rank
from training.model import Histories, asked_at
from training.reasons import reasons
from training.run_pages import Choice, ReasonTrial
from training.significance import paired_bootstrap
from training.splits import Case
from training.trained import Trained

_RECOMMENDED, _LEAST_EVENTS = 5, 5
_MOST_USERS = 1_000
_ROWS_AT_ONCE = 1_024


def try_reasons(trained: Trained, cases: Sequence[Case]) -> ReasonTrial | None:
    """Takes items out of the histories of up to 1,000 users, evenly spread; None if nobody has enough.

    What is recommended is what is served; the score that falls is the retrieval's.
    """
    few = [cases[i] for i in np.linspace(0, len(cases) - 1, min(_MOST_USERS, len(cases))).astype(int)]
    items = trained.facts.histories(few).items.numpy()
    able = [
        i for i, row in enumerate(items) if (row > 0).sum() >= _LEAST_EVENTS and len(set(row[row > 0])) > 1
    ]
    if not able:
        return None
    asked = [few[i] for i in able]
    ranker, count = trained.judgeable, min(_RECOMMENDED, len(trained.facts.item_users))
    published = trained.facts.published[1:]
    page = np.concatenate(
        [rank(ranker, asked[i : i + 256], count, published) + 1 for i in range(0, len(asked), 256)]
    ).astype(np.int32)
    losses = _losses(trained, asked, page)
    history, vectors = tf.constant(items[able]), tf.constant(trained.items.vectors)
    length = history.shape[1]
    choices = {
        "cosine and recency": reasons(vectors, history, page).numpy(),
        "cosine": reasons(vectors, history, page, recency=0.0).numpy(),
        "newest item": np.full(page.shape, length - 1),
        "the one that costs most": np.argmax(np.where(np.isnan(losses), -np.inf, losses), axis=2),
    }
    return ReasonTrial(
        users=len(asked),
        recommended=count,
        least_events=_LEAST_EVENTS,
        choices=tuple(_judged(name, at, losses) for name, at in choices.items()),
    )


def _losses(trained: Trained, cases: Sequence[Case], page: NDArray[np.int32]) -> NDArray[np.float64]:
    """By how much the score of each item of the page falls when an item of the history is gone, float64
    `[B, K, T]`, at the newest event of that item; NaN at its older events, and where there is no event."""
    facts, table = trained.facts, trained.items.vectors
    histories = facts.histories(cases)
    items, times, types, _, features = (values.numpy() for values in histories)
    at = np.array([[case.time] for case in cases], np.int64)
    read = tf.constant(table)
    encode = tf.function(
        lambda some: trained.model(some, read, newest_only=True),
        input_signature=[facts.spec],
        autograph=False,
    )

    def scores(users: NDArray[np.intp], kept: NDArray[np.bool_]) -> NDArray[np.float64]:
        # As the served graph reads a history without its unknown items: in the same order without gaps.
        order = np.argsort(kept, axis=1, kind="stable")
        left_items, left_times, left_types = (
            tf.constant(np.take_along_axis(np.where(kept, values[users], 0), order, axis=1))
            for values in (items, times, types)
        )
        some = Histories(
            items=left_items,
            times=left_times,
            types=left_types,
            asked=asked_at(left_times, tf.constant(at[users])),
            features=tf.constant(features[users]),
        )
        vectors = encode(some).numpy().astype(np.float64)
        found: NDArray[np.float64] = np.einsum("bw,bkw->bk", vectors, table[page[users]])
        return found

    everybody = np.arange(len(cases))
    before = np.concatenate([scores(some, items[some] > 0) for some in _lots(everybody)])
    losses = np.full((*page.shape, items.shape[1]), np.nan)
    newest = items > 0
    for row, known in zip(newest, items, strict=True):
        _, first = np.unique(known[::-1], return_index=True)
        row &= np.isin(np.arange(len(row)), len(row) - 1 - first)
    for some in _lots(np.argwhere(newest)):
        users, places = some.T
        kept = (items[users] > 0) & (items[users] != items[users, places][:, None])
        losses[users, :, places] = before[users] - scores(users, kept)
    return losses


def _judged(name: str, at: NDArray[np.integer], losses: NDArray[np.float64]) -> Choice:
    """`at` is int `[B, K]`, positions; a repeated item may be named by any of its events."""
    own = np.take_along_axis(losses, at[..., None], axis=2)  # (B, K, 1)
    others = np.count_nonzero(~np.isnan(losses), axis=2) - 1
    below, equal = (losses < own).sum(axis=2), (losses == own).sum(axis=2) - 1
    shares = ((below + equal / 2) / others).mean(axis=1)  # (B,)
    low, high, _ = paired_bootstrap(shares)
    exact = float((own[..., 0] >= np.nanmax(losses, axis=2)).mean())
    return Choice(name, float(shares.mean()), low, high, exact)


def _lots(rows: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    return np.array_split(rows, max(1, -(-len(rows) // _ROWS_AT_ONCE)))
