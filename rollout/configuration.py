"""Which versions `config.pbtxt` lists: what Triton serves after its next start or load."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tritonclient.grpc import model_config_pb2

from inference.model_config import CONFIG, to_text, versions_of, with_versions
from inference.repository import listed_versions, read_config, versions_present
from rollout.durable import sync, write_atomically
from rollout.errors import NoSuchVersion
from rollout.workbench import workbench

_PENDING_PREFIX = "config-of-"
"""With a version's number: the configuration that is to be in force as soon as that version is there."""


def read_versions(model_folder: Path) -> list[int]:
    """The listed versions, the stable one first; none if nothing is published.

    Raises:
        UnfitModel: `config.pbtxt` is no model configuration.
    """
    return listed_versions(model_folder)


def set_versions(model_folder: Path, versions: Sequence[int]) -> None:
    """List `versions`, the stable one first, and change nothing else.

    Raises:
        NoSuchVersion: nothing is published, or not one of these.
        UnfitModel: `config.pbtxt` is no model configuration.
    """
    with config_lock(model_folder):
        config = read_config(model_folder)
        if config is None:
            raise NoSuchVersion(f"{model_folder / CONFIG}: does not exist; publish a version first")
        for version in versions:
            if version not in versions_present(model_folder):
                raise NoSuchVersion(f"{model_folder}: has no version {version}")
        if versions_of(config) != list(versions):
            draft = workbench(model_folder) / CONFIG
            write_atomically(draft, to_text(with_versions(config, versions)).encode())
            draft.replace(model_folder / CONFIG)
            sync(model_folder)


@contextmanager
def config_lock(model_folder: Path) -> Iterator[None]:
    """Be the only one who changes `config.pbtxt`; waits for another, who takes milliseconds."""
    with (workbench(model_folder) / "config.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        finish_interrupted(model_folder)
        yield


def prepare(model_folder: Path, version: int, config: model_config_pb2.ModelConfig) -> None:
    """Write down the configuration that is to be in force once `version` is there; under `config_lock`.

    A version and its configuration cannot appear in one step. A publish that is killed between the two leaves
    the second step to whoever takes the lock next.
    """
    pending = workbench(model_folder) / f"{_PENDING_PREFIX}{version}"
    write_atomically(pending, to_text(config).encode())


def finish_interrupted(model_folder: Path) -> None:
    """Put the prepared configuration of a version that has appeared in force; forget that of one that never
    did.
    """
    for pending in workbench(model_folder).glob(f"{_PENDING_PREFIX}*"):
        if (model_folder / pending.name.removeprefix(_PENDING_PREFIX)).is_dir():
            pending.replace(model_folder / CONFIG)
            sync(model_folder)
        else:
            pending.unlink()
