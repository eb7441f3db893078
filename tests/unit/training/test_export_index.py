"""An export with an index: what it holds, says and refuses; what the manifest then says."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from features.catalog import Catalog
from features.schema import item_key
from inference.golden import read_golden
from rollout.export_folder import read_export
from rollout.manifest import Manifest
from training import index_choice
from training.__main__ import main
from training.config import Config
from training.export import export_fingerprint

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
[training]
epochs = 1
batch_size = 16
[index]
kind = "inverted"
lists = 40
probes = 1
recall = RECALL
"""
ITEMS = 400


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Files of a shop, trained and exported with an index."""
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(3)
    events = ["user_id,item_id,time"]
    for user in range(150):
        start = int(rng.integers(ITEMS))
        for i in range(10):
            events.append(f"u{user},é{(start + i) % ITEMS},{1_700_000_000 + 10 * user + 60 * i}")
    items = ["item_id,title,categories"] + [f"é{i},Title {i},{('even', 'odd')[i % 2]}" for i in range(ITEMS)]
    (folder / "events.csv").write_text("\n".join(events) + "\n", encoding="utf-8")
    (folder / "items.csv").write_text("\n".join(items) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RIPTIDE_STORE", f"lmdb:{tmp_path_factory.mktemp('none')}/store")
        assert run(folder, "run", "0.5") == 0
        yield folder


def run(folder, command, recall, kind="inverted"):
    written = CONFIG.replace("RECALL", recall).replace('"inverted"', f'"{kind}"')
    (folder / "shop.toml").write_text(written, encoding="utf-8")
    return main(
        [
            command, "--config", f"{folder}/shop.toml", "--state-dir", f"{folder}/var",
            *(["--events", f"{folder}/events.csv", "--items", f"{folder}/items.csv"] * (command == "run")),
        ]
    )  # fmt: skip


def test_the_export_says_what_its_index_is_and_what_it_finds(shop):
    said = json.loads((shop / "var/exports/shop/training.json").read_text())
    index = said["index"]
    assert (index["kind"], index["lists"], index["storage"]) == ("inverted", 40, "float32")
    assert (index["at"], index["bound"], index["users"]) == (100, 0.5, 150)
    assert 0.5 <= index["recall"] < 1
    assert index["recall_filtered"] >= 0.5
    assert 1 <= index["probes"] <= 5
    assert said["parity"] < 1e-4


def test_the_manifest_says_the_same(shop):
    export = read_export(shop / "var/exports/shop")
    assert export.training.index["recall"] >= 0.5
    fields = {
        "model": "m", "version": 1, "created": "", "export": "", "trained": "", "data_fingerprint": "",
        "code_revision": "", "seed": 1, "hyper_parameters": {}, "metrics": {}, "widths": {},
        "tensorflow": "", "files": {},
    }  # fmt: skip
    manifest = Manifest(**fields, index=export.training.index)
    assert json.loads(manifest.text())["index"] == export.training.index
    assert Manifest(**fields).index is None


def test_golden_answers_of_an_index_are_full_pages_within_the_filters(shop):
    golden = read_golden(shop / "var/exports/shop/golden.npz")
    keys, mask = golden.outputs["item_keys"], golden.inputs["allowed_categories"]
    assert (keys[mask.all(axis=1)] != 0).all()
    even = {item_key(f"é{i}") for i in range(0, ITEMS, 2)}
    for row, allowed in zip(keys, mask, strict=True):
        if not allowed.all():
            assert (row != 0).all()
            assert {key in even for key in row.tolist()} == {bool(allowed[0])}


def test_an_index_below_its_bound_is_not_exported_and_the_export_is_as_before(shop, capsys):
    before = (shop / "var/exports/shop/training.json").read_text()
    assert run(shop, "export", "1.0") == 2
    error = capsys.readouterr().err
    assert "less than index.recall, 1.0: not exported" in error
    assert error.count("\n") == 1
    assert (shop / "var/exports/shop/training.json").read_text() == before


def test_an_index_below_its_bound_that_nobody_insisted_on_is_left_out_and_the_export_says_so(
    shop, tmp_path, monkeypatch
):
    copy = tmp_path / "shop"
    shutil.copytree(shop, copy)
    monkeypatch.setattr(index_choice, "INDEXED_FROM", ITEMS)
    assert run(copy, "export", "1.0", kind="auto") == 0
    said = read_export(copy / "var/exports/shop").training.index
    assert said == {"kind": "exact", "refused_recall": said["refused_recall"], "bound": 1.0}
    assert 0.1 < said["refused_recall"] < 1
    golden = read_golden(copy / "var/exports/shop/golden.npz")
    assert (golden.outputs["item_keys"] != 0).all()
    variables = tf.train.list_variables(f"{copy}/var/exports/shop/model.savedmodel/variables/variables")
    assert not [name for name, _ in variables if "_means" in name]


def test_every_item_has_neighbours(shop):
    catalog = Catalog(shop / "var/exports/shop/catalog.lmdb")
    for i in range(ITEMS):
        keys, scores = catalog.neighbours(item_key(f"é{i}"))
        assert len(set(keys.tolist()) - {0, item_key(f"é{i}")}) == len(keys) > 20
        assert (np.diff(scores) <= 0).all()
    catalog.close()


def test_an_export_is_not_reused_for_another_index():
    class Run:
        fingerprint = "f"

    def fingerprint(index):
        return export_fingerprint(load_config_with(index), Run())

    assert fingerprint({"kind": "inverted"}) != fingerprint({"kind": "exact"})
    assert fingerprint({"recall": 0.9}) != fingerprint({})
    assert fingerprint({}) == fingerprint({"kind": "auto"})


def load_config_with(index):
    return Config.model_validate({"data": {"name": "shop"}, "index": index})
