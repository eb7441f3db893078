"""Making tiny models versions of a deployment, also those that publishing would refuse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from features.settings import Settings
from inference.environment import Interpreter
from rollout import ledger
from rollout.export_folder import SAVEDMODEL
from rollout.manifest import MANIFEST, Manifest, hash_files, read_manifest
from rollout.publish import PUBLISHED_FILES, publish


class Versions:
    """The versions of a deployment. `exports` holds an export of each kind, by its name."""

    def __init__(self, settings: Settings, exports: Mapping[str, Path], interpreter: Interpreter) -> None:
        self._settings = settings
        self._exports = exports
        self._interpreter = interpreter
        self.folder = settings.model_repository / settings.model_name
        """The model's folder in the repository."""

    def publish(self, kind: str) -> int:
        """Publishes a kind as users do; the version's number.

        Raises:
            RolloutError: it did not pass preflight.
        """
        return publish(self._settings, self._interpreter, self._exports[kind]).version

    def place(self, kind: str) -> int:
        """Puts a kind among the published versions without trying it out; the version's number.

        The manifest is as publishing would write it, so that only the model itself is wrong. A version must
        have been published before; the model's configuration stays as that one has it.
        """
        version = ledger.choose(self.folder, None)
        export = self._exports[kind]
        draft = self._settings.state_dir / f"placed-{version}"
        shutil.copytree(export / SAVEDMODEL, draft / SAVEDMODEL, copy_function=shutil.copyfile)
        for name in PUBLISHED_FILES:
            shutil.copyfile(export / name, draft / name)
        training = json.loads((export / "training.json").read_text())
        manifest = self.manifest(version - 1).model_copy(
            update={
                "version": version,
                "export": kind,
                "seed": training["seed"],
                "widths": training["widths"],
                "attributes": training.get("attributes", []),
                "consumes": training.get("consumes"),
                "ignores": training.get("ignores", []),
                "files": hash_files(draft, (SAVEDMODEL, *PUBLISHED_FILES)),
            }
        )
        (draft / MANIFEST).write_text(manifest.text())
        ledger.record(self.folder, version)
        draft.rename(self.folder / str(version))
        return version

    def spoil(self, version: int, name: str = f"{SAVEDMODEL}/saved_model.pb") -> None:
        """Changes one byte in the middle of a published file, and leaves its hash in the manifest."""
        file = self.folder / str(version) / name
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)

    def manifest(self, version: int) -> Manifest:
        """The manifest of a version."""
        manifest = read_manifest(self.folder / str(version))
        assert manifest is not None, f"version {version} has no manifest"
        return manifest
