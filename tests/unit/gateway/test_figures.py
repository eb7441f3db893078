from __future__ import annotations

from gateway.figures import _MOST_VERSIONS, Figures


def test_figures_are_counted_since_the_worker_began() -> None:
    figures = Figures()
    for _ in range(2):
        figures.answered(1, 5.0)
        figures.answered(1, 50.0)
        figures.failed(1)
        figures.degraded(1)
        figures.batch(1, 3, 2.0, encoded=True)
        figures.batch(1, 4, 1.0, encoded=False)
        figures.flush()
    counted = figures.flush()[1]
    assert (counted.calls, counted.errors, counted.degraded) == (6, 2, 2)
    assert (counted.latency.total, counted.model_encoded.total, counted.model_cached.total) == (4, 6, 8)
    assert 5 <= counted.latency.quantile(0.5) <= 5.5
    assert 50 <= counted.latency.quantile(0.99) <= 55


def test_unseen_answers_count_apart_from_calls() -> None:
    figures = Figures()
    figures.shadow_answered(2, 2, 8.0)
    figures.shadow_failed(2, 1)
    figures.shadow_dropped(2, 5)
    figures.compared(2, overlap=0.5, own_score=3.0, live_score=2.0)
    figures.compared(2, overlap=1.0, own_score=3.0, live_score=4.0)
    counted = figures.flush()[2]
    assert (counted.shadow_calls, counted.shadow_errors, counted.shadow_dropped) == (3, 1, 5)
    assert counted.shadow_model.total == 2
    assert (counted.pairs, counted.overlap_sum) == (2, 1.5)
    assert (counted.own_scores, counted.live_scores, counted.live_squares) == (6.0, 6.0, 20.0)
    assert (counted.calls, counted.latency.total) == (0, 0)


def test_many_rollouts_leave_the_versions_used_last_and_the_one_in_use_is_never_begun_anew() -> None:
    figures = Figures()
    for candidate in range(2, 60):
        figures.answered(1, 1.0)
        figures.answered(candidate, 1.0)
        figures.flush()
    counted = figures.flush()
    assert len(counted) == _MOST_VERSIONS
    assert counted[1].calls == 58
    assert 59 in counted
