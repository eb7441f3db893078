"""Training by several workers and by several devices: real processes, which give the model that one gives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.integration.program import ROOT, wait_until
from tests.ports import free_ports

_LIMIT_S = 240


@dataclass
class Worker:
    """A started `python -m training train`."""

    process: subprocess.Popen[str]
    output: Path

    def end(self) -> int:
        """Its exit status, once it has ended by itself."""
        return self.process.wait(_LIMIT_S)

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self.output.read_text()


class Team:
    """Workers on the same log and configuration, with a state folder each unless told otherwise."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.started = folder, []
        rng = np.random.default_rng(5)
        rows = ["user_id,item_id,time"]
        for user in range(60):
            start, length = int(rng.integers(24)), int(rng.integers(6, 20))
            rows += [f"user-{user:02},item-{(start + i) % 24:02},{1_700_000_000 + i}" for i in range(length)]
        (folder / "events.csv").write_text("\n".join(rows) + "\n")
        (folder / "items.csv").write_text("item_id,title\n" + "".join(f"item-{i:02},I\n" for i in range(24)))

    def configuration(self, **changes: object) -> Path:
        """A small model, of which `changes` are keys of its training, or its dropout."""
        training = {"epochs": 3, "batch_size": 15, "learning_rate": 0.01, "warmup_steps": 4, **changes}
        dropout, privacy = training.pop("dropout", 0.0), training.pop("privacy", "")
        path = self.folder / f"{len(list(self.folder.glob('*.toml')))}.toml"
        path.write_text(
            f'[data]\nname = "log"\n[data.events]\npath = "events.csv"\n[data.items]\npath = "items.csv"\n'
            f'[model]\nwidth = 16\nhistory = 8\ntext = "none"\ndropout = {dropout}\n'
            "[ranker]\ntrain = false\n[training]\n"
            + "".join(f"{key} = {value}\n" for key, value in training.items())
            + str(privacy)
        )
        return path

    def start(self, configuration: Path, state: str, tf_config: str | None = None) -> Worker:
        """One process."""
        (self.folder / state).mkdir(exist_ok=True)
        output = self.folder / f"{state}-{len(self.started)}.log"
        environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
        environment |= {"RIPTIDE_STATE_DIR": str(self.folder / state), "COLUMNS": "200"}
        if tf_config is not None:
            environment["TF_CONFIG"] = tf_config
        with output.open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "training", "train", "--config", str(configuration)],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                text=True,
            )
        self.started.append(Worker(process, output))
        return self.started[-1]

    def start_pair(self, configuration: Path, states: tuple[str, str]) -> list[Worker]:
        """Two workers on the loopback address."""
        cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
        return [
            self.start(
                configuration,
                state,
                json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
            )
            for index, state in enumerate(states)
        ]

    def curve(self, state: str) -> np.ndarray:
        """Loss, HR and NDCG of each epoch of a finished run."""
        result = json.loads((self.folder / state / "runs/log/seed-1/result.json").read_text())
        return np.array(
            [
                [epoch[name] for name in ("loss", "validation_hr", "validation_ndcg")]
                for epoch in result["curve"]
            ]
        )


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    team = Team(tmp_path_factory.mktemp("workers"))
    try:
        yield team
    finally:
        for worker in team.started:
            worker.process.kill()
            worker.process.wait()


def run_alone(team: Team, configuration: Path, state: str) -> np.ndarray:
    worker = team.start(configuration, state)
    assert worker.end() == 0, worker.said
    return team.curve(state)


def run_pair(team: Team, configuration: Path, states: tuple[str, str]) -> list[Worker]:
    pair = team.start_pair(configuration, states)
    for worker in pair:
        assert worker.end() == 0, "\n".join(each.said for each in pair)
    return pair


@pytest.fixture(scope="module")
def plain(team: Team) -> Path:
    """A configuration without dropout; in the folder `alone` is what one process makes of it."""
    configuration = team.configuration()
    run_alone(team, configuration, "alone")
    return configuration


def test_two_workers_train_the_model_that_one_trains(team: Team, plain: Path) -> None:
    chief, other = run_pair(team, plain, ("chief", "other"))
    assert team.curve("chief") == pytest.approx(team.curve("alone"), rel=1e-3)
    assert "epoch 3: " in chief.said
    assert "epoch" not in other.said
    assert not (team.folder / "other" / "runs").exists()  # it is the chief's to write

    weights = [np.load(team.folder / state / "runs/log/seed-1/weights.npz") for state in ("alone", "chief")]
    for name in weights[0].files:
        assert weights[1][name] == pytest.approx(weights[0][name], abs=2e-3)

    # Again: the chief's finished run is reused, and the other worker, which has none, does not wait for more.
    chief, other = run_pair(team, plain, ("chief", "other"))
    assert "epoch" not in chief.said


def test_workers_that_share_a_folder_and_draw_masks_train_as_well_as_one(team: Team) -> None:
    configuration = team.configuration(dropout=0.1)
    alone = run_alone(team, configuration, "alone-masks")
    run_pair(team, configuration, ("shared", "shared"))
    assert team.curve("shared")[:, 0] == pytest.approx(alone[:, 0], rel=0.05)


def test_workers_train_privately_with_one_noise(team: Team) -> None:
    configuration = team.configuration(privacy="[privacy]\nnoise = 0.05\n")
    chief, _ = run_pair(team, configuration, ("private", "private-other"))
    assert "private training: epsilon" in chief.said
    curve = team.curve("private")
    assert len(curve) == 3
    assert curve[-1, 0] < curve[0, 0]


def test_a_worker_with_another_configuration_is_told_so_and_the_chief_does_not_hang(team: Team) -> None:
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    pair = [
        team.start(
            team.configuration(learning_rate=rate),
            f"differ-{index}",
            json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
        )
        for index, rate in enumerate((0.01, 0.02))
    ]
    assert [worker.end() for worker in pair] == [2, 2], "\n".join(worker.said for worker in pair)
    assert "worker 2 of 2: its data, configuration or seed is not the chief's" in pair[1].said
    assert "worker 1 of 2: another worker is gone" in pair[0].said


@pytest.mark.parametrize("dead", [0, 1])
def test_when_a_worker_dies_the_other_says_so_and_together_they_go_on_later(team: Team, dead: int) -> None:
    long = team.configuration(epochs=100_000, patience=100_000)
    states = (f"dies-{dead}-0", f"dies-{dead}-1")
    pair = team.start_pair(long, states)
    wait_until(
        lambda: "epoch 2: " in pair[0].said or any(each.process.poll() is not None for each in pair),
        lambda: pair[0].said + pair[1].said,
    )
    pair[dead].process.send_signal(signal.SIGKILL)
    left = pair[1 - dead]
    assert left.end() == 2, left.said
    assert "another worker is gone; start them all again" in left.said
    assert "Traceback" not in left.said
    if dead:
        return  # the chief has the checkpoint, so it is the one whose death could cost it

    again = team.start_pair(long, states)
    wait_until(
        lambda: "epoch " in again[0].said or any(each.process.poll() is not None for each in again),
        lambda: again[0].said + again[1].said,
    )
    first = int(again[0].said.split("epoch ")[1].split(":")[0])
    for worker in again:
        worker.process.kill()
    assert first > 2


def test_a_tf_config_that_is_not_valid_is_one_sentence(team: Team) -> None:
    worker = team.start(team.configuration(), "invalid", '{"cluster": {}, "task": {"type": "worker"}}')
    assert worker.end() == 2
    assert worker.said == "TF_CONFIG is wrong: task.index: Field required\n"


DEVICES = """
import json, sys
from pathlib import Path

import tensorflow as tf

processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)

from training.baselines import count
from training.config import load_config
from training.dataset import open_prepared
from training.distribution import Distribution
from training.facts import gather_facts
from training.splits import LeaveOneOut
from training.train import Trainer

config, prepared, out = load_config(Path(sys.argv[1])), open_prepared(Path(sys.argv[2])), Path(sys.argv[3])
counts = count((LeaveOneOut().training_part(h) for h in prepared.histories()), len(prepared.items))
facts = gather_facts(config, prepared, counts, out / "cache")
two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert two.num_replicas_in_sync == 2
trainer = Trainer(facts, prepared, LeaveOneOut(), counts, 1, Distribution(strategy=two))
state = trainer.run(out / "c.npz", lambda *_: None, lambda *_: None)
print(json.dumps([[e.loss, e.validation_hr, e.validation_ndcg] for e in state.curve]))
"""


def test_two_devices_train_the_model_that_one_trains(team: Team, plain: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            DEVICES,
            str(plain),
            str(team.folder / "alone/data/log"),
            str(tmp_path),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    curve = np.array(json.loads(done.stdout.splitlines()[-1]))
    assert curve == pytest.approx(team.curve("alone"), rel=1e-3)
