from __future__ import annotations

import numpy as np

from tests.unit.training import models
from training.dataset import History
from training.rank_training import calibration_of
from training.splits import Case


def test_candidates_stand_in_the_order_of_their_logits_however_near_these_are():
    trained = models.trained(models.facts(150), ranker=True)
    # Logits within a hundredth of each other, as those of a network that moves little.
    trained.ranker.trust.assign(0.0)
    trained.ranker.answer.set_weights([weight * 1e-3 for weight in trained.ranker.answer.get_weights()])
    known = History("u", np.array([3, 1], np.int32), np.array([5, 6]), np.full(2, 8, np.uint8))
    cases = [Case(known, np.array([2], np.int32), 10)]
    ranked = trained.judgeable
    scores = ranked.scores(cases)[0]
    found, logits, _ = ranked.candidates(cases)
    assert np.ptp(logits) < 0.01
    assert (np.argsort(-scores)[:100] + 1).tolist() == found[0][
        np.argsort(-logits[0], kind="stable")
    ].tolist()


def test_where_no_target_is_among_the_candidates_there_is_no_calibration():
    trained = models.trained(models.facts(150), ranker=True)
    known = History("u", np.array([3, 1], np.int32), np.array([5, 6]), np.full(2, 8, np.uint8))
    found, _, _ = trained.judgeable.candidates([Case(known, np.array([2], np.int32), 10)])
    missed = np.setdiff1d(np.arange(1, 151), [*found[0], 1, 3])[:1].astype(np.int32)
    assert calibration_of(trained.judgeable, [Case(known, missed, 10)]) is None
    assert calibration_of(trained.judgeable, [Case(known, found[0, :1], 10)]).positives == 1
