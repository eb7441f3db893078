"""The folder beside a model's own where versions are made: drafts, locks, the ledger."""

from __future__ import annotations

from pathlib import Path


def workbench(model_folder: Path) -> Path:
    """`.<model>` beside the model's folder, made at the first call.

    Nothing but versions and `config.pbtxt` may lie in the model's folder: Triton looks at the modification
    times of all else in it, and if one is newer than its last load, the next starts every version anew.
    """
    folder = model_folder.parent / f".{model_folder.name}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
