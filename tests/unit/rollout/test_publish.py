"""What publishing copies of an export, and who can read it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inference.golden import Golden
from rollout.export_folder import Export, TrainingRecord
from rollout.publish import _copy


@pytest.mark.parametrize("judged", [True, False])
def test_what_tells_of_users_is_for_the_owner_alone_and_the_model_is_not(
    tmp_path: Path, judged: bool
) -> None:
    folder, draft = tmp_path / "export", tmp_path / "draft"
    (folder / "model.savedmodel").mkdir(parents=True)
    draft.mkdir(mode=0o700)
    private = ["golden.npz", *(["judged.npz"] if judged else [])]
    public = ["catalog.lmdb", "model.savedmodel/saved_model.pb"]
    for name in (*private, *public):
        (folder / name).touch(mode=0o644)
    training = TrainingRecord(
        data_fingerprint="",
        code_revision="",
        model={},
        training={},
        metrics={},
        seed=1,
        created="",
        widths={},
    )
    before = os.umask(0o022)
    try:
        _copy(Export("shop", folder, training, Golden({}, {})), draft)
    finally:
        os.umask(before)
    modes = {
        path.relative_to(draft).as_posix(): path.stat().st_mode & 0o777
        for path in draft.rglob("*")
        if path.is_file()
    }
    assert modes == dict.fromkeys(private, 0o600) | dict.fromkeys(public, 0o644)
    assert draft.stat().st_mode & 0o777 == 0o755, "Triton may run as another user"
