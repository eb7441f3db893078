"""Models are built once, and again when what they are made of has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import models
from benchmarks.bench import Bench
from benchmarks.models import Model, _hash, _published
from features.settings import Settings


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    settings = Settings(state_dir=tmp_path / "var")
    return Bench(settings, tmp_path / "out", tmp_path / "work", rounds=1, seconds=1.0, in_flight=4)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was built and published, in order; publishing makes a folder, as it does."""
    calls: list[str] = []

    def publish(*words: str, **settings: object) -> str:
        calls.append("published " + Path(words[-1]).name)
        Path(str(settings["model_repository"])).mkdir()
        return ""

    monkeypatch.setattr(models, "run_module", publish)
    return calls


def build(calls: list[str], fingerprint: str, bench: Bench) -> Path:
    def export(folder: Path) -> None:
        calls.append("built " + folder.name)
        folder.mkdir()

    return _published(bench, "10-small-5", fingerprint, export)


def test_a_model_is_built_and_published_once(bench: Bench, calls: list[str]) -> None:
    first = build(calls, "a" * 12, bench)
    assert build(calls, "a" * 12, bench) == first
    assert first.is_dir()
    assert calls == ["built 10-small-5", "published 10-small-5"]


def test_another_fingerprint_is_built_anew_and_takes_the_place_of_the_old_one(
    bench: Bench, calls: list[str]
) -> None:
    first = build(calls, "a" * 12, bench)
    build(calls, "b" * 12, bench)
    assert calls.count("built 10-small-5") == 2
    assert not first.exists()


def test_other_publishing_code_publishes_the_same_export_again(
    bench: Bench, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(calls, "a" * 12, bench)
    monkeypatch.setattr(models, "_PUBLISHING", ("rollout/publish.py",))
    assert build(calls, "a" * 12, bench) != first
    assert calls == ["built 10-small-5", "published 10-small-5", "published 10-small-5"]
    assert not first.exists()


def test_a_build_that_fails_leaves_nothing_that_passes_for_a_model(bench: Bench, calls: list[str]) -> None:
    def fail(folder: Path) -> None:
        folder.mkdir()
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        _published(bench, "10-small-5", "a" * 12, fail)
    build(calls, "a" * 12, bench)
    assert calls == ["built 10-small-5", "published 10-small-5"]


def test_the_fingerprint_is_of_parameters_and_code() -> None:
    code = ("training/serving.py",)
    assert _hash("10", code) == _hash("10", code)
    assert len({_hash("10", code), _hash("11", code), _hash("10", ("training/export.py",))}) == 3


def test_what_serves_writes_beside_what_is_kept_and_not_into_it(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (kept / "recommender").mkdir(parents=True)
    (kept / "recommender/config.pbtxt").write_text("kept")
    own = Model("m", kept, 10, 5).linked(tmp_path / "own")
    (own / "recommender/2").mkdir()
    linked = own / "recommender/config.pbtxt"
    assert linked.samefile(kept / "recommender/config.pbtxt")
    assert [path.name for path in (kept / "recommender").iterdir()] == ["config.pbtxt"]
