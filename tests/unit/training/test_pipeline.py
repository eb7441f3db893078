"""Training from the command line to the report, of a shop small enough for seconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from training.__main__ import main
from training.text_encoder import NoTextEncoder

CONFIG = """
[data]
name = "shop"
source = "files"
[data.events]
path = "events.csv"
[model]
width = 8
heads = 1
history = 8
text = "multilingual"
[ranker]
epochs = 1
[training]
epochs = 2
learning_rate = 0.01
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration with its file beside it; everybody goes round 30 items in the same order."""
    folder = tmp_path_factory.mktemp("shop")
    rows = [f"{u},i{(7 * u + i) % 30:02},{1700000000 + 60 * i}" for u in range(40) for i in range(12)]
    (folder / "events.csv").write_text("\n".join(["user_id,item_id,time", *rows]) + "\n")
    (folder / "shop.toml").write_text(CONFIG)
    return folder


class Trains(Exception):
    """Something would be trained."""


def run(shop: Path, command: str, *more: str) -> int:
    where = ["--config", str(shop / "shop.toml"), "--state-dir", str(shop / "var")]
    return main([command, *where, *more])


def there_is_no_encoder(*_: object) -> None:
    raise NoTextEncoder("the registry cannot be reached")


def never(*_: object, **__: object) -> None:
    raise Trains


@pytest.fixture(scope="module")
def trained(shop: Path) -> str:
    """What training said where the text encoder cannot be had."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.pipeline.open_text_encoder", there_is_no_encoder)
        assert run(shop, "train", "--seed", "1") == 0
    return (shop / "var" / "runs" / "shop" / "report.md").read_text()


@pytest.fixture
def no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.pipeline.open_text_encoder", there_is_no_encoder)


def test_without_the_text_encoder_training_goes_on_without_texts(shop: Path, trained: str) -> None:
    run_of = json.loads((shop / "var/runs/shop/seed-1/run.json").read_text())
    assert run_of["config"]["model"]["text"] == "none"


def test_that_it_goes_on_without_texts_is_said_in_one_sentence(
    shop: Path,
    trained: str,
    no_encoder: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("training.runs.Runs.train", never)  # it is finished
    assert run(shop, "train", "--seed", "1") == 0
    said = capsys.readouterr().out
    assert said.count("going on without the items' texts") == 1
    assert "the registry cannot be reached" in said


class FakeEncoder:
    """A `TextEncoder` that knows how long a text is."""

    name, width = "fake", 8

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.eye(8, dtype=np.float32)[[len(text) % 8 for text in texts]]


def test_what_is_finished_with_texts_stays_when_the_encoder_is_gone(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", str(shop / "shop.toml"), "--state-dir", str(tmp_path / "var"), "--seed", "1"]
    for module in ("pipeline", "item_features"):
        monkeypatch.setattr(f"training.{module}.open_text_encoder", lambda *_: FakeEncoder())
    assert main(["train", *words]) == 0
    for module in ("pipeline", "item_features"):
        monkeypatch.setattr(f"training.{module}.open_text_encoder", there_is_no_encoder)
    monkeypatch.setattr("training.runs.Runs.train", never)
    assert main(["train", *words]) == 0
    assert "going on without" not in capsys.readouterr().out
    run_of = json.loads((tmp_path / "var/runs/shop/seed-1/run.json").read_text())
    assert run_of["config"]["model"]["text"] == "multilingual"
    (tmp_path / "var/runs/shop/seed-1/pages.json").unlink()
    assert main(["train", *words]) == 0
    report = (tmp_path / "var/runs/shop/report.md").read_text()
    assert "Not measured, as the model cannot be loaded again: the registry cannot be reached" in report
    assert "## Retrieval and ranking" in report


def test_what_was_trained_without_texts_is_exported_without_them(
    shop: Path, trained: str, no_encoder: None
) -> None:
    assert run(shop, "export", "--seed", "1") == 0
    assert (shop / "var/exports/shop/golden.npz").exists()


def test_the_report_has_what_was_measured_of_the_model(trained: str) -> None:
    titles = [line.removeprefix("## ") for line in trained.splitlines() if line.startswith("## ")]
    assert titles[:2] == ["Leave-one-out", "Global time"]
    assert titles[2] == "Retrieval and ranking"
    assert titles[-3:] == ["Diversity", "Reasons", "Curves"]
    assert "| 0.3 |" in trained
    assert "| cosine and recency (served) |" in trained


def test_what_was_measured_of_the_model_is_not_measured_again(
    shop: Path, trained: str, no_encoder: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = shop / "var/runs/shop/report.md"
    report.unlink()
    monkeypatch.setattr("training.trained.load_trained", never)
    assert run(shop, "train", "--seed", "1") == 0
    assert report.read_text() == trained
    kept = shop / "var/runs/shop/seed-1/pages.json"
    kept.write_text(kept.read_text().replace('"decides": [\n  1', '"decides": [\n  0'))
    with pytest.raises(Trains):
        run(shop, "train", "--seed", "1")


def test_ingredients_are_compared_and_put_into_the_report(
    shop: Path, trained: str, no_encoder: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(shop, "ablate", "--seed", "1") == 0
    said = capsys.readouterr().out
    assert "| with ranking | on |" in said
    assert "training for leave-one-out" in said
    report = (shop / "var/runs/shop/report.md").read_text()
    assert "## Ingredients" in report
    assert "### Each alone" in report
    assert (shop / "var/runs/shop-ablation/ids-text-time/seed-1/result.json").exists()
    assert not (shop / "var/runs/shop-ablation/ids-time").exists(), "the configuration's own run is reused"
