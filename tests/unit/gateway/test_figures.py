from __future__ import annotations

from gateway.figures import _MOST_VERSIONS, Figures


def test_figures_are_counted_since_the_worker_began() -> None:
    figures = Figures()
    for _ in range(2):
        figures.answered(1, [5.0])
        figures.answered(1, [50.0])
        figures.failed(1)
        figures.degraded(1)
        figures.cold(1)
        figures.batch_answered(1, 2.0, encoded=True)
        figures.batch_answered(1, 1.0, encoded=False)
        figures.batch_answered(1, 1.0, encoded=False)
        figures.batch_failed(1)
        figures.flush()
    counted = figures.flush()[1]
    assert (counted.calls, counted.errors, counted.degraded, counted.cold) == (6, 2, 2, 2)
    assert (counted.batches, counted.failed_batches) == (8, 2)
    assert (counted.latency.total, counted.model_encoded.total, counted.model_cached.total) == (4, 2, 4)
    assert 5 <= counted.latency.quantile(0.5) <= 5.5
    assert 50 <= counted.latency.quantile(0.99) <= 55


def test_unseen_answers_count_apart_from_calls() -> None:
    figures = Figures()
    figures.shadow_answered(2, 2)
    figures.shadow_failed(2, 4)
    figures.shadow_cold(2, 3)
    figures.shadow_dropped(2, 5)
    figures.compared(2, overlap=0.5, correlation=None)
    figures.compared(2, overlap=1.0, correlation=0.25)
    counted = figures.flush()[2]
    assert (counted.shadow_calls, counted.shadow_errors, counted.shadow_dropped) == (6, 4, 5)
    assert (counted.shadow_batches, counted.failed_shadow_batches, counted.shadow_cold) == (2, 1, 3)
    assert (counted.pairs, counted.overlap_sum) == (2, 1.5)
    assert (counted.ranked, counted.correlation_sum, counted.drift) == (1, 0.25, 0.75)
    assert (counted.calls, counted.cold, counted.batches, counted.latency.total) == (0, 0, 0, 0)


def test_many_rollouts_leave_the_versions_used_last_and_the_one_in_use_is_never_begun_anew() -> None:
    figures = Figures()
    for candidate in range(2, 60):
        figures.answered(1, [1.0])
        figures.answered(candidate, [1.0])
        figures.flush()
    counted = figures.flush()
    assert len(counted) == _MOST_VERSIONS
    assert counted[1].calls == 58
    assert 59 in counted


def test_a_version_that_only_fails_or_is_only_answered_unseen_is_in_use_too() -> None:
    figures = Figures()
    for other in range(3, 60):
        figures.batch_failed(1)
        figures.shadow_answered(2, 1)
        figures.answered(other, [1.0])
        figures.flush()
    counted = figures.flush()
    assert (counted[1].failed_batches, counted[2].shadow_batches) == (57, 57)
