"""The encoder's folder in the model repository: the recommender's versions once more, as symbolic links.

Not as hard links: a file that gets another link has changed, for Triton, and with its next load it would
start every version of the recommender anew (docs/decisions/0023-the-encoder-is-a-model-of-its-own.md).

Only versions and `config.pbtxt` lie in the folder (`rollout/workbench.py` says why); drafts lie beside it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from features.encoder_name import encoder_name
from inference.errors import NothingPublished
from inference.model_config import CONFIG, encoder_config, to_text
from inference.repository import read_config

ENCODER_FILES = ("model.savedmodel", "golden.npz")
"""What an encoder is loaded, warmed up and proven with."""


class EncoderFolder:
    """The folder of the encoder that belongs to the recommender in `model_folder`. Made when it is needed."""

    def __init__(self, model_folder: Path) -> None:
        self._recommender = model_folder
        self.path = model_folder.with_name(encoder_name(model_folder.name))
        self._drafts = self.path.with_name(f".{self.path.name}")

    def link(self, version: int) -> None:
        """Make the version's folder, unless it is there. It appears whole or not at all.

        Raises:
            OSError: it cannot be made.
        """
        target = self.path / str(version)
        # Relative, so that the repository can be moved, or mounted somewhere else.
        links = {name: Path("..", "..", self._recommender.name, str(version), name) for name in ENCODER_FILES}
        if all(
            (target / name).is_symlink() and (target / name).readlink() == to for name, to in links.items()
        ):
            return
        draft, replaced = self._drafts / f"linking-{version}", self._drafts / f"replaced-{version}"
        for leftover in (draft, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
        draft.mkdir(parents=True)
        draft.chmod(0o755)  # whatever this user's default is: Triton may run as another
        for name, to in links.items():
            (draft / name).symlink_to(to)
        self.path.mkdir(exist_ok=True)
        if target.exists():
            target.rename(replaced)
        draft.rename(target)
        shutil.rmtree(replaced, ignore_errors=True)

    def configure(self, versions: Sequence[int]) -> None:
        """List `versions` in `config.pbtxt`, and otherwise what follows from the recommender's.

        Raises:
            NothingPublished: the recommender has no `config.pbtxt`.
            UnfitModel: it is no model configuration.
            OSError: the file cannot be written.
        """
        recommender = read_config(self._recommender)
        if recommender is None:
            raise NothingPublished(f"{self._recommender / CONFIG}: does not exist; publish a version first")
        text = to_text(encoder_config(self.path.name, recommender, versions))
        config = self.path / CONFIG
        if config.is_file() and config.read_text() == text:
            return
        self._drafts.mkdir(exist_ok=True)
        draft = self._drafts / CONFIG
        draft.write_text(text)
        draft.replace(config)
