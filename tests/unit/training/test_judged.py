from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from tests.unit.training.judging import judged
from training.errors import TrainingError
from training.judged import asked_hash, joined, judging_key, load_judged, save_judged, user_hash


def same(one, other):
    for field in fields(one):
        if field.name == "values":
            assert list(one.values) == list(other.values)
            assert all((one.values[name] == other.values[name]).all() for name in one.values)
        elif getattr(one, field.name) is None:
            assert getattr(other, field.name) is None, field.name
        else:
            assert np.array_equal(getattr(one, field.name), getattr(other, field.name)), field.name
            assert np.asarray(getattr(one, field.name)).dtype == np.asarray(getattr(other, field.name)).dtype


def test_rankers_survive_their_file_in_order(tmp_path):
    # More than ten, since the names of a zip file sort 10 before 2.
    rankers = [
        judged([[1], [i, 0]], ranker=f"EASE^R, {i}", lengths=[3, i], asked=[2**62 + i, -i]) for i in range(12)
    ]
    save_judged(tmp_path / "judged.npz", rankers)
    loaded = load_judged(tmp_path / "judged.npz")
    assert len(loaded) == 12
    for one, other in zip(rankers, loaded, strict=True):
        same(one, other)
    assert [path.name for path in tmp_path.iterdir()] == ["judged.npz"]


def test_a_file_of_before_it_was_kept_by_what_users_were_judged_has_nothing_of_it(tmp_path):
    save_judged(tmp_path / "judged.npz", [judged([[1], [2]])])
    with np.load(tmp_path / "judged.npz") as saved:
        assert "0/asked" not in saved.files
    assert load_judged(tmp_path / "judged.npz")[0].asked is None


def test_what_a_user_was_judged_by_is_told_apart_by_targets_history_user_and_secret():
    two, other = np.array([3, 11], np.int32), np.array([31, 1], np.int32)
    hashes = [
        asked_hash("u", two, 5, b"k"),
        asked_hash("u", other, 5, b"k"),
        asked_hash("u", two[:1], 5, b"k"),
        asked_hash("u", two, 6, b"k"),
        asked_hash("v", two, 5, b"k"),
        asked_hash("u", two, 5, b"l"),
    ]
    assert len(set(hashes)) == len(hashes)
    assert asked_hash("u", two.copy(), 5, b"k") == hashes[0]


def test_parts_are_joined_in_order():
    ranks, deciles, lengths = [[1], [0, 3], [2]], [[4], [0, 9], [1]], [7, 8, 9]
    whole = judged(ranks, users=[3, 1, 2], deciles=deciles, lengths=lengths, asked=[4, 5, 6])
    first = judged(ranks[:2], users=[3, 1], deciles=deciles[:2], lengths=lengths[:2], asked=[4, 5])
    second = judged(ranks[2:], users=[2], deciles=deciles[2:], lengths=lengths[2:], asked=[6])
    same(joined([first, second]), whole)


def test_cutoffs_are_those_of_the_metrics():
    assert judged([[1]], cutoffs=(20, 5)).cutoffs == [5, 20]


def test_a_file_that_is_missing_or_broken_is_said(tmp_path):
    with pytest.raises(TrainingError, match="no such file"):
        load_judged(tmp_path / "judged.npz")
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(TrainingError, match=r"text\.npz: cannot be read"):
        load_judged(tmp_path / "text.npz")
    save_judged(tmp_path / "short.npz", [judged([[1], [2]])])
    (tmp_path / "short.npz").write_bytes((tmp_path / "short.npz").read_bytes()[:-40])
    with pytest.raises(TrainingError, match=r"short\.npz: cannot be read"):
        load_judged(tmp_path / "short.npz")
    save_judged(tmp_path / "bad.npz", [judged([[i % 7] for i in range(99)])])
    whole = (tmp_path / "bad.npz").read_bytes()
    users = whole.index(b"0/users.npy") + 60
    (tmp_path / "bad.npz").write_bytes(whole[:users] + b"\xff" * 40 + whole[users + 40 :])
    with pytest.raises(TrainingError, match=r"bad\.npz: cannot be read"):
        load_judged(tmp_path / "bad.npz")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(TrainingError, match=r"other\.npz: holds no judged users"):
        load_judged(tmp_path / "other.npz")
    np.savez(tmp_path / "part.npz", **{"0/users": np.zeros(3, np.int64)})
    with pytest.raises(TrainingError, match=r"part\.npz: cannot be read"):
        load_judged(tmp_path / "part.npz")


def test_only_who_has_the_secret_of_the_state_folder_can_tell_whose_a_row_is(tmp_path):
    ours, theirs = judging_key(tmp_path / "ours"), judging_key(tmp_path / "theirs")
    assert judging_key(tmp_path / "ours") == ours
    assert user_hash("u1", ours) == user_hash("u1", ours) != user_hash("u2", ours)
    assert user_hash("u1", ours) != user_hash("u1", theirs)
    assert (tmp_path / "ours" / "judging_key").stat().st_mode & 0o077 == 0
    assert [path.name for path in (tmp_path / "ours").iterdir()] == ["judging_key"]
