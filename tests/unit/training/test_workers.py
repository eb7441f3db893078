"""What a process makes of TF_CONFIG."""

from __future__ import annotations

import json

import pytest

from training.errors import TrainingError
from training.workers import ALONE, read_workers

TWO = {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}


def tf_config(cluster, kind="worker", index=0, **more):
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}, **more})


@pytest.mark.parametrize("text", [None, "", tf_config({"worker": ["10.0.0.1:2222"]})])
def test_a_process_trains_alone_unless_others_are_named(text):
    assert read_workers(text) == ALONE
    assert (ALONE.count, ALONE.chief) == (1, True)


def test_the_first_worker_is_the_chief():
    first, second = (read_workers(tf_config(TWO, index=i, environment="cloud")) for i in range(2))
    assert (first.count, first.index, first.chief) == (2, 0, True)
    assert (second.count, second.index, second.chief) == (2, 1, False)
    assert first.addresses == second.addresses == tuple(TWO["worker"])


def test_a_chief_that_is_named_comes_before_the_workers():
    cluster = {"chief": ["10.0.0.9:2222"], **TWO}
    chief, last = read_workers(tf_config(cluster, "chief")), read_workers(tf_config(cluster, index=1))
    assert chief.chief
    assert chief.addresses == last.addresses == ("10.0.0.9:2222", *TWO["worker"])
    assert (last.index, last.chief) == (2, False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "Invalid JSON"),
        ("{}", "cluster: Field required"),
        (tf_config({"worker": ["10.0.0.1"]}), "cluster.worker.0: "),
        (tf_config(TWO, index=2), "the task is worker 2, and the cluster has 2 of that type"),
        (tf_config(TWO, kind="ps"), "task.type: Input should be 'chief' or 'worker'"),
        (tf_config({**TWO, "ps": ["10.0.0.3:2222"]}), "cluster.ps: "),
        (tf_config({"worker": ["10.0.0.1:2222"] * 2}), "two workers of the cluster have one address"),
    ],
)
def test_a_wrong_tf_config_is_told_in_a_sentence(text, words):
    with pytest.raises(TrainingError, match=r"^TF_CONFIG is wrong: ") as told:
        read_workers(text)
    assert words in str(told.value)
    assert "\n" not in str(told.value)
