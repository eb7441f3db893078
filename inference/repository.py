"""What the model repository on disk says is to be served."""

from __future__ import annotations

from pathlib import Path

from tritonclient.grpc import model_config_pb2

from inference.errors import UnfitModel
from inference.model_config import CONFIG, from_text, versions_of


def read_config(model_folder: Path) -> model_config_pb2.ModelConfig | None:
    """The `config.pbtxt` in the model's folder; None if there is none.

    Raises:
        UnfitModel: it is no model configuration.
    """
    path = model_folder / CONFIG
    try:
        return from_text(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as exc:
        raise UnfitModel(f"{path}: is no model configuration ({exc}); correct or remove it") from exc


def versions_present(model_folder: Path) -> list[int]:
    """Numbers of the version folders, ascending."""
    if not model_folder.is_dir():
        return []
    return sorted(
        int(path.name) for path in model_folder.iterdir() if path.is_dir() and path.name.isdecimal()
    )


def listed_versions(model_folder: Path) -> list[int]:
    """The versions that Triton serves after its next start, the stable one first.

    A configuration that lists none, as those of earlier releases, serves the newest version present.

    Raises:
        UnfitModel: the configuration cannot be read.
    """
    config = read_config(model_folder)
    if config is None:
        return []
    return versions_of(config) or versions_present(model_folder)[-1:]
