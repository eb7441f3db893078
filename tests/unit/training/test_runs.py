"""What runs keep beside the means. That of trained models is tested with their training (`test_train`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.schema import EventType
from training.baselines import count
from training.config import Config
from training.errors import TrainingError
from training.judged import asked_hash, judging_key
from training.model_config import BehaviourConfig
from training.runs import Runs
from training.significance import refuse_others
from training.splits import LeaveOneOut


@pytest.fixture
def runs(cycles, tmp_path):
    return Runs(
        Config.model_validate({"data": {"name": "cycles"}}), cycles, tmp_path / "runs", tmp_path / "cache"
    )


def counts(prepared):
    return count((LeaveOneOut().training_part(h) for h in prepared.histories()), len(prepared.items))


def never():
    raise AssertionError("counted again")


def test_the_users_that_baselines_were_judged_by_are_kept_beside_their_means(runs, cycles):
    evaluations = runs.baselines(LeaveOneOut(), lambda: counts(cycles))
    judged = runs.judged_baselines(LeaveOneOut())
    assert (runs.folder / "judged-baselines-leave-one-out.npz").is_file()
    assert [rows.ranker for rows in judged] == [evaluation.ranker for evaluation in evaluations]
    for rows, evaluation in zip(judged, evaluations, strict=True):
        assert rows.values["ndcg@10"].mean() == pytest.approx(evaluation.metrics["ndcg@10"])
        assert evaluation.metrics["intra_list_distance@10"] > 0
    assert (judged[0].users == judged[1].users).all()
    assert not (judged[0].top == judged[1].top).all()


def test_rankers_that_were_judged_by_other_events_are_told_apart(runs, cycles, tmp_path):
    runs.baselines(LeaveOneOut(), lambda: counts(cycles))
    judged = runs.judged_baselines(LeaveOneOut())
    key = judging_key(tmp_path / "cache")
    cases = [LeaveOneOut().case(history, "test") for history in cycles.histories()]
    expected = [asked_hash(case.known.user_id, case.targets, len(case.known), key) for case in cases]
    assert [rows.asked.tolist() for rows in judged] == [expected] * len(judged)

    # The newest event of one user becomes one that does not count: another is then the target.
    events = pq.read_table(cycles.events_path)
    types = events["type"].to_pylist()
    types[cases[0].known.items.size] = EventType.VIEW
    column = events.schema.get_field_index("type")
    pq.write_table(events.set_column(column, "type", pa.array(types, pa.uint8())), cycles.events_path)
    less = replace(cycles, behaviour=BehaviourConfig(event_weights={"VIEW": 0}))
    other = replace(runs, prepared=less, folder=tmp_path / "other")
    other.baselines(LeaveOneOut(), lambda: counts(less))
    with pytest.raises(TrainingError, match=r"different events: 1 of 60 users"):
        refuse_others([judged[0], other.judged_baselines(LeaveOneOut())[0]])


def test_no_user_id_is_in_the_files(runs, cycles):
    runs.baselines(LeaveOneOut(), lambda: counts(cycles))
    with np.load(runs.folder / "judged-baselines-leave-one-out.npz") as saved:
        texts = {str(saved[name]) for name in saved.files if saved[name].dtype.kind not in "iuf"}
    assert texts == {
        "popularity", "item-kNN", "EASE^R", "EASE^R, recent first", "f" * 64, "LeaveOneOut() test",
    }  # fmt: skip


def test_baselines_are_judged_once_and_again_if_their_users_are_lost(runs, cycles):
    first = runs.baselines(LeaveOneOut(), lambda: counts(cycles))
    assert runs.baselines(LeaveOneOut(), never) == first
    (runs.folder / "judged-baselines-leave-one-out.npz").write_bytes(b"")
    with pytest.raises(AssertionError, match="counted again"):
        runs.baselines(LeaveOneOut(), never)
    assert runs.baselines(LeaveOneOut(), lambda: counts(cycles)) == first
    assert runs.baselines(LeaveOneOut(), never) == first


def test_users_of_a_run_that_is_not_there_are_said_to_be_missing(runs):
    with pytest.raises(TrainingError, match=r"judged\.npz: there is no such file"):
        runs.judged(LeaveOneOut(), 1)
