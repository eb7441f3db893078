"""The whole of `python -m training run` on a small log, and what it leaves."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from features.catalog import Catalog
from features.schema import item_key
from training.__main__ import main
from training.checkpoint import load_state

CONFIG = """
[data]
name = "shop"
min_events_per_user = 3
[data.items]
columns = { item_id = "item_id", title = "title", categories = "categories" }
[model]
text = "none"
layers = 1
width = 16
heads = 2
history = 8
[behaviour.event_weights]
READ = 0
LIKE = 2
[training]
epochs = 2
batch_size = 16
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Files of a shop, and the arguments that train on them."""
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(3)
    events = ["user_id,item_id,time"]
    for user in range(40):
        start = int(rng.integers(30))
        events += [f"u{user},é{(start + i) % 30},{1_700_000_000 + 10 * user + 60 * i}" for i in range(12)]
    items = ["item_id,title,categories"] + [
        f"é{i},Title {i},{('even', 'odd')[i % 2] if i else ''}" for i in range(31)
    ]
    (folder / "events.csv").write_text("\n".join(events) + "\n", encoding="utf-8")
    (folder / "items.csv").write_text("\n".join(items) + "\n", encoding="utf-8")
    (folder / "shop.toml").write_text(CONFIG, encoding="utf-8")
    return folder


def arguments(folder: Path, command="run", *more):
    return [
        command, "--config", f"{folder}/shop.toml", "--state-dir", f"{folder}/var",
        "--events", f"{folder}/events.csv", "--items", f"{folder}/items.csv", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(shop, monkeypatch_module):
    assert main(arguments(shop, "run", "--seeds", "1,2")) == 0
    return shop


@pytest.fixture(scope="module")
def monkeypatch_module(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RIPTIDE_STORE", f"lmdb:{tmp_path_factory.mktemp('none')}/store")
        yield patch


def test_a_run_leaves_an_export_a_report_and_curves(trained):
    export, runs = trained / "var/exports/shop", trained / "var/runs/shop"
    assert {path.name for path in export.iterdir()} == {
        "model.savedmodel", "catalog.lmdb", "golden.npz", "judged.npz", "training.json",
    }  # fmt: skip
    description = json.loads((export / "training.json").read_text())
    assert description["ignores"] == ["READ"]
    assert description["widths"] == {"T": 8, "D": 16, "C": 3, "K": 31, "F": 1}
    assert description["seed"] == 1
    assert description["parity"] < 1e-4
    metrics = json.loads((runs / "metrics.json").read_text())["protocols"]
    assert set(metrics) == {"leave-one-out", "global time"}
    assert set(metrics["leave-one-out"]["transformer"]["seeds"]) == {"1", "2"}
    assert set(metrics["leave-one-out"]["baselines"]) == {
        "popularity", "item-kNN", "EASE^R", "EASE^R, recent first",
    }  # fmt: skip
    assert metrics["global time"]["transformer"] is None
    assert description["metrics"]["test"] == metrics["leave-one-out"]["transformer"]["seeds"]["1"]["test"]
    report = (runs / "report.md").read_text()
    assert "±" in report
    assert "No transformer was trained for this protocol" in report
    for name in ("loss.png", "validation_ndcg.png"):
        assert (runs / name).read_bytes().startswith(b"\x89PNG")


def test_the_catalogue_has_every_item_and_no_item_is_its_own_neighbour(trained):
    catalog = Catalog(trained / "var/exports/shop/catalog.lmdb")
    assert len(catalog) == 31
    assert catalog.categories == ("even", "odd")
    assert catalog.popular[-1] == item_key("é30")  # nobody ever had it
    for i in range(31):
        keys, scores = catalog.neighbours(item_key(f"é{i}"))
        assert len(set(keys.tolist())) == 30
        assert item_key(f"é{i}") not in keys
        assert (np.diff(scores) <= 0).all()
    catalog.close()


def test_golden_requests_are_varied_and_the_saved_model_repeats_their_answers(trained):
    golden = dict(np.load(trained / "var/exports/shop/golden.npz"))
    assert {name for name in golden if name.startswith("in:")} == {
        "in:history_keys", "in:history_times", "in:history_types", "in:request_time", "in:user_features",
        "in:user_vector", "in:user_vector_fresh", "in:exclude_keys", "in:allowed_categories", "in:surface",
        "in:diversity",
    }  # fmt: skip
    assert all(len(array) == 16 for array in golden.values())
    assert set(golden["in:user_vector_fresh"].ravel().tolist()) == {0, 1}
    excludes = golden["in:exclude_keys"].any(axis=1)
    assert excludes.any()
    assert not excludes.all()
    assert not golden["in:allowed_categories"].all()
    model = tf.saved_model.load(str(trained / "var/exports/shop/model.savedmodel"))
    inputs = {name[3:]: tf.constant(array) for name, array in golden.items() if name.startswith("in:")}
    for name, tensor in model.signatures["recommend"](**inputs).items():
        assert tensor.numpy() == pytest.approx(golden[f"out:{name}"], abs=1e-5)


def test_a_second_run_reuses_everything_and_does_not_wait_for_tensorflow(trained):
    paths = [path for path in (trained / "var").rglob("*") if path.name in ("weights.npz", "golden.npz")]
    before = {path: path.stat().st_mtime_ns for path in paths}
    code = (
        "import sys; from training.__main__ import main; status = main(sys.argv[1:]); "
        "sys.exit(status or ('tensorflow' in sys.modules and 9))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments(trained, "run", "--seeds", "1,2")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(reused)" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in paths} == before


def test_another_seed_replaces_the_export_and_stays_in_the_report(trained, tmp_path):
    copy = tmp_path / "shop"
    shutil.copytree(trained, copy)
    assert main(["export", "--config", f"{copy}/shop.toml", "--state-dir", f"{copy}/var", "--seed", "2"]) == 0
    assert json.loads((copy / "var/exports/shop/training.json").read_text())["seed"] == 2
    assert [path.name for path in (copy / "var/exports").iterdir() if not path.name.endswith(".lock")] == [
        "shop"
    ]


def test_the_global_split_trains_a_model_of_its_own_when_asked(trained, tmp_path):
    copy = tmp_path / "shop"
    shutil.copytree(trained, copy)
    assert main(arguments(copy, "train", "--time-split")) == 0
    metrics = json.loads((copy / "var/runs/shop/metrics.json").read_text())["protocols"]
    assert set(metrics["global time"]["transformer"]["seeds"]) == {"1"}


def test_a_run_that_was_killed_goes_on_from_its_last_whole_epoch(shop, tmp_path, monkeypatch_module, capsys):
    config = tmp_path / "long.toml"
    config.write_text(CONFIG.replace("epochs = 2", "epochs = 12\npatience = 12"), encoding="utf-8")
    command = [*arguments(shop, "train"), "--config", str(config), "--state-dir", str(tmp_path / "var")]
    checkpoint = tmp_path / "var/runs/shop/seed-1/checkpoint.npz"
    with subprocess.Popen([sys.executable, "-m", "training", *command], stdout=subprocess.PIPE) as killed:
        try:
            wait_until(lambda: load_state(checkpoint) is not None, killed)
        finally:
            killed.kill()
    whole_epochs = load_state(checkpoint).curve
    assert 1 <= len(whole_epochs) < 12
    assert main(command) == 0
    shown = [
        int(line.split()[1][:-1])
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("epoch ")
    ]
    assert shown == list(range(len(whole_epochs) + 1, 13))
    curve = json.loads((checkpoint.parent / "result.json").read_text())["curve"]
    assert curve[: len(whole_epochs)] == [dataclasses.asdict(epoch) for epoch in whole_epochs]


def test_two_processes_that_train_the_same_run_train_it_once(shop, tmp_path):
    command = [*arguments(shop, "train"), "--state-dir", str(tmp_path / "var")]
    both = [
        subprocess.Popen([sys.executable, "-m", "training", *command], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    epochs = [line.split(":")[0] for text in told for line in text.splitlines() if line.startswith("epoch ")]
    assert sorted(epochs) == ["epoch 1", "epoch 2"]


def wait_until(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "training ended before it had saved an epoch"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--events", "nowhere.csv"], "nowhere.csv"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(shop, tmp_path, capsys, more, says):
    assert main([*arguments(shop), "--state-dir", str(tmp_path / "state"), *more]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "state").rglob("*.parquet"))


def test_an_export_of_a_seed_that_was_not_trained_is_refused(trained, capsys):
    assert (
        main(["export", "--config", f"{trained}/shop.toml", "--state-dir", f"{trained}/var", "--seed", "7"])
        == 2
    )
    assert "seed 7" in capsys.readouterr().err
