from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.baselines import count
from training.errors import TrainingError
from training.evaluate import evaluate, rank
from training.exposure import category_vectors, popularity_deciles
from training.judged import user_hash
from training.splits import Case, GlobalTime, LeaveOneOut


class Knows:
    """Scores what it was told highest; everything a user had even higher, which must not help."""

    name = "oracle"

    def __init__(self, item_count, targets):
        self.item_count, self.targets = item_count, targets

    def scores(self, cases):
        scores = np.zeros((len(cases), self.item_count), np.float32)
        for row, case in zip(scores, cases, strict=True):
            row[self.targets[case.known.user_id] - 1] = 1.0
            row[case.known.items - 1] = 2.0
        return scores


def judge(ranker, prepared, stage="test", split=None, cutoffs=(5, 10)):
    counts = count(prepared.histories(), len(prepared.items))
    return evaluate(
        ranker, prepared, split or LeaveOneOut(), stage, cutoffs=cutoffs, item_users=counts.item_users,
        users=counts.users, vectors=category_vectors(prepared.items, prepared.categories),
    )  # fmt: skip


def test_a_ranker_that_knows_the_answer_is_perfect_and_what_the_user_had_is_masked(cycles):
    for stage, back in (("test", -1), ("validation", -2)):
        oracle = Knows(len(cycles.items), {h.user_id: h.items[back] for h in cycles.histories()})
        got, _ = judge(oracle, cycles, stage)
        assert got.users == 60
        assert got.metrics["hr@5"] == got.metrics["ndcg@5"] == got.metrics["mrr@10"] == 1.0
        assert got.metrics["precision@10"] == pytest.approx(0.1)


def test_ties_go_to_the_lower_position_and_the_history_is_left_out(cycles):
    oracle = Knows(24, {h.user_id: h.items[-1] for h in cycles.histories()})
    user = next(iter(cycles.histories())).until(3)
    ranked = rank(oracle, [Case(user, np.array([1], np.int32), 0)], 10, np.zeros(24, np.int64))[0]
    rest = [i for i in range(24) if i + 1 not in user.items and i != ranked[0]]
    assert ranked[1:].tolist() == rest[:9]


def test_what_is_published_later_than_it_is_asked_for_comes_last(cycles):
    oracle = Knows(24, {h.user_id: np.int32(20) for h in cycles.histories()})
    user = next(iter(cycles.histories())).until(0)
    published = np.array([0] * 18 + [6, 5, 5, 0, 0, 0])
    ranked = rank(oracle, [Case(user, np.array([1], np.int32), time) for time in (4, 5)], 24, published)
    assert ranked[0, -3:].tolist() == [18, 19, 20]
    assert ranked[1, 0] == 19
    assert ranked[1, -1] == 18


def test_a_target_that_was_not_there_yet_is_never_hit(cycles):
    oracle = Knows(24, {h.user_id: h.items[-1] for h in cycles.histories()})
    last = max(int(h.times[-1]) for h in cycles.histories())
    soon = replace(cycles, items=tuple(replace(item, published=last + 1) for item in cycles.items))
    assert judge(oracle, soon)[0].metrics["hr@5"] == 0


def test_the_batches_do_not_change_the_figures(cycles, monkeypatch):
    oracle = Knows(24, {h.user_id: np.int32(1) for h in cycles.histories()})
    whole, whole_rows = judge(oracle, cycles)
    monkeypatch.setattr("training.evaluate._SCORES_PER_BATCH", 7 * 24)
    parts, rows = judge(oracle, cycles)
    assert parts.users == whole.users
    assert parts.metrics == pytest.approx(whole.metrics)
    assert (rows.users == whole_rows.users).all()
    assert (rows.top == whole_rows.top).all()
    assert (rows.target_ranks == whole_rows.target_ranks).all()


def test_every_user_has_a_row_with_the_hash_of_their_id_and_what_they_were_shown(cycles):
    histories = list(cycles.histories())
    oracle = Knows(24, {h.user_id: h.items[-1 if i % 2 else 0] for i, h in enumerate(histories)})
    got, rows = judge(oracle, cycles)
    assert rows.users.tolist() == [user_hash(h.user_id, b"") for h in histories]
    assert rows.users.dtype == np.int64
    assert rows.lengths.tolist() == [len(h) - 1 for h in histories]
    assert (rows.ranker, rows.data, rows.protocol) == ("oracle", "f" * 64, "LeaveOneOut() test")
    for name, values in rows.values.items():
        assert values.mean() == pytest.approx(got.metrics[name])
    # The oracle knows the target of every other user: what it knows is at the top of the page.
    known = [i for i in range(60) if i % 2]
    assert rows.top.shape == (60, 10)
    assert rows.top[known, 0].tolist() == [histories[i].items[-1] for i in known]
    assert (rows.target_ranks[known] == 1).all()
    assert (rows.target_ranks[::2] != 1).any()
    assert (rows.values["mrr@10"][known] == 1.0).all()


def test_targets_of_a_row_are_in_deciles_of_the_training_users_given(cycles):
    oracle = Knows(24, {h.user_id: h.items[-1] for h in cycles.histories()})
    had = np.arange(24)  # the first item was had by nobody
    _, rows = evaluate(oracle, cycles, LeaveOneOut(), "test", cutoffs=(5,), item_users=had, users=30)
    targets = np.array([h.items[-1] for h in cycles.histories()]) - 1
    assert (rows.target_deciles == popularity_deciles(had)[targets]).all()
    assert (rows.target_deciles[targets == 0] == 0).all()


def test_ten_items_are_kept_of_lists_that_are_judged_by_fewer_and_ranks_end_with_the_largest_cutoff(cycles):
    class Backwards(Knows):
        def scores(self, cases):
            return np.tile(np.arange(24, dtype=np.float32), (len(cases), 1))

    _, rows = judge(Backwards(24, {}), cycles, cutoffs=(3,))
    _, deeper = judge(Backwards(24, {}), cycles, cutoffs=(10,))
    assert rows.top.shape == (60, 10)
    assert (rows.top == deeper.top).all()
    assert rows.target_ranks.max() == 3
    assert ((rows.target_ranks > 0) == (rows.values["hr@3"] == 1)).all()


def test_the_figures_of_all_lists_are_those_of_the_cutoff(cycles):
    class Always(Knows):
        """Items 1, 3, 5, … first for everybody: of one category."""

        def scores(self, cases):
            return np.tile((np.arange(24) % 2 == 0).astype(np.float32), (len(cases), 1))

    got, _ = judge(Always(24, {}), cycles, cutoffs=(2, 24))
    assert got.metrics["intra_list_distance@2"] == pytest.approx(0.0)
    assert got.metrics["intra_list_distance@24"] == pytest.approx(12 * 12 / (24 * 23 / 2))
    assert got.metrics["coverage@24"] == 1.0
    assert got.metrics["gini@24"] == pytest.approx(0.0)
    assert got.metrics["popularity@24"] == pytest.approx(0.5)
    assert got.metrics["gini@2"] > 0.5


def test_a_protocol_that_can_judge_nobody_is_said(cycles):
    oracle = Knows(24, {})
    with pytest.raises(TrainingError, match="no user"):
        judge(oracle, cycles, split=GlobalTime(10**6, 10**6 + 1))
