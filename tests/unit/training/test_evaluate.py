from __future__ import annotations

import numpy as np
import pytest

from training.baselines import count
from training.errors import TrainingError
from training.evaluate import evaluate, rank
from training.splits import GlobalTime, LeaveOneOut


class Knows:
    """Scores what it was told highest; everything a user had even higher, which must not help."""

    name = "oracle"

    def __init__(self, item_count, targets):
        self.item_count, self.targets = item_count, targets

    def scores(self, histories):
        scores = np.zeros((len(histories), self.item_count), np.float32)
        for row, history in zip(scores, histories, strict=True):
            row[self.targets[history.user_id] - 1] = 1.0
            row[history.items - 1] = 2.0
        return scores


def judge(ranker, prepared, stage="test", split=None):
    counts = count(prepared.histories(), len(prepared.items))
    return evaluate(
        ranker, prepared, split or LeaveOneOut(), stage,
        cutoffs=(5, 10), item_users=counts.item_users, users=counts.users,
    )  # fmt: skip


def test_a_ranker_that_knows_the_answer_is_perfect_and_what_the_user_had_is_masked(cycles):
    for stage, back in (("test", -1), ("validation", -2)):
        oracle = Knows(len(cycles.items), {h.user_id: h.items[back] for h in cycles.histories()})
        got = judge(oracle, cycles, stage)
        assert got.users == 60
        assert got.metrics["hr@5"] == got.metrics["ndcg@5"] == got.metrics["mrr@10"] == 1.0
        assert got.metrics["precision@10"] == pytest.approx(0.1)


def test_ties_go_to_the_lower_position_and_the_history_is_left_out(cycles):
    oracle = Knows(24, {h.user_id: h.items[-1] for h in cycles.histories()})
    user = next(iter(cycles.histories())).until(3)
    ranked = rank(oracle, [user], 10)[0]
    rest = [i for i in range(24) if i + 1 not in user.items and i != ranked[0]]
    assert ranked[1:].tolist() == rest[:9]


def test_the_batches_do_not_change_the_figures(cycles, monkeypatch):
    oracle = Knows(24, {h.user_id: np.int32(1) for h in cycles.histories()})
    whole = judge(oracle, cycles)
    monkeypatch.setattr("training.evaluate._SCORES_PER_BATCH", 7 * 24)
    parts = judge(oracle, cycles)
    assert parts.users == whole.users
    assert parts.metrics == pytest.approx(whole.metrics)


def test_a_protocol_that_can_judge_nobody_is_said(cycles):
    oracle = Knows(24, {})
    with pytest.raises(TrainingError, match="no user"):
        judge(oracle, cycles, split=GlobalTime(10**6, 10**6 + 1))
