"""Making an export a version in Triton's model repository, after it has passed preflight."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from features.settings import Settings
from inference.environment import Interpreter
from inference.errors import UnfitModel
from inference.model_config import CONFIG, PROFILES, Profile, build_config, with_versions
from inference.replay import Replay, replay
from inference.repository import read_config, versions_present
from rollout import ledger
from rollout.configuration import config_lock, finish_interrupted, prepare, read_versions
from rollout.durable import sync, sync_tree
from rollout.errors import BadExport, Busy, PreflightFailed
from rollout.export_folder import FILES, SAVEDMODEL, Export, check_agreement, read_export
from rollout.manifest import MANIFEST, Manifest, hash_files, read_manifest
from rollout.workbench import workbench

DRAFT_PREFIX = "publishing-"
PUBLISHED_FILES = tuple(name for name in FILES if name != "training.json")
OPTIONAL_FILES = ("judged.npz",)
"""What became of each user whom the evaluation judged: published if the export has it."""
PRIVATE_FILES = ("golden.npz", "judged.npz")
"""What tells of users: for the owner's eyes alone. A Triton of another user warms up with zeros instead."""


@dataclass(frozen=True, slots=True)
class Published:
    """The outcome. `fresh` is False if the same export was the newest version already."""

    version: int
    folder: Path
    fresh: bool
    config_changed: bool
    """The model's configuration differs from the one before in more than the version policy."""


def publish(
    settings: Settings,
    interpreter: Interpreter,
    export_folder: Path,
    *,
    version: int | None = None,
    profile: str = "cpu",
    if_new: bool = False,
) -> Published:
    """Check, try out and publish `export_folder`; the repository is as before if anything fails.

    Which versions are served stays as it was, and only a first one is served without being asked for: the
    others are the rollout's to decide.

    Raises:
        BadExport, PreflightFailed, VersionTaken, Busy: see `rollout.errors`.
        UnfitModel: the `config.pbtxt` that is there cannot be read.
    """
    export = read_export(export_folder)
    model_folder = settings.model_repository / settings.model_name
    model_folder.mkdir(parents=True, exist_ok=True)
    with _alone(model_folder):
        _remove_drafts(model_folder)
        with config_lock(model_folder):
            pass  # taking it finishes a publish that was killed
        if if_new and (newest := _newest_with(model_folder, _published_hashes(export))) is not None:
            return Published(newest, model_folder / str(newest), fresh=False, config_changed=False)
        ledger.choose(model_folder, version)  # refuse a taken number before the long part
        draft = Path(tempfile.mkdtemp(prefix=DRAFT_PREFIX, dir=workbench(model_folder)))
        try:
            copied = _copy(export, draft)
            hashes = _published_hashes(copied)
            tried = _preflight(interpreter, copied)
            number = ledger.choose(model_folder, version)
            _write_manifest(settings, copied, tried, hashes, number)
            sync_tree(draft)
            with config_lock(model_folder):
                changed = _commit(settings, copied, tried, number, PROFILES[profile])
            return Published(number, model_folder / str(number), fresh=True, config_changed=changed)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _copy(export: Export, draft: Path) -> Export:
    """Copy what is published. Preflight then tries out the copy, so nothing can change between the two.

    The files get new modification times on purpose: Triton takes an older time for "unchanged" and loads
    nothing.
    """
    try:
        shutil.copytree(export.savedmodel, draft / SAVEDMODEL, copy_function=shutil.copyfile)
        for name in PUBLISHED_FILES:
            shutil.copyfile(export.folder / name, draft / name)
        for name in OPTIONAL_FILES:
            if (export.folder / name).is_file():
                shutil.copyfile(export.folder / name, draft / name)
        for name in PRIVATE_FILES:
            if (draft / name).exists():
                (draft / name).chmod(0o600)
    except (OSError, shutil.Error) as exc:
        raise BadExport(f"{export.folder}: cannot be copied: {exc}") from exc
    draft.chmod(0o755)  # mkdtemp makes it private; Triton may run as another user
    return Export(export.name, draft, export.training, export.golden)


def _published_hashes(export: Export) -> dict[str, str]:
    """sha256 of each file of the export that is published, by its path in the version's folder."""
    return hash_files(export.folder, (SAVEDMODEL, *PUBLISHED_FILES, *OPTIONAL_FILES))


def _preflight(interpreter: Interpreter, export: Export) -> Replay:
    try:
        tried = replay(interpreter, export.savedmodel, export.golden)
    except UnfitModel as exc:
        raise PreflightFailed(str(exc)) from exc
    check_agreement(export, tried.signature)
    return tried


def _write_manifest(
    settings: Settings, export: Export, tried: Replay, hashes: dict[str, str], version: int
) -> None:
    manifest = Manifest(
        model=settings.model_name,
        version=version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        export=export.name,
        trained=export.training.created,
        data_fingerprint=export.training.data_fingerprint,
        code_revision=export.training.code_revision,
        seed=export.training.seed,
        hyper_parameters={"model": export.training.model, "training": export.training.training},
        metrics=export.training.metrics,
        widths=export.training.widths,
        inputs=[tensor.name for tensor in tried.signature.inputs],
        attributes=export.training.attributes,
        consumes=export.training.consumes,
        ignores=export.training.ignores,
        index=export.training.index,
        vectors_may_lag=export.training.vectors_may_lag,
        tensorflow=tried.tensorflow,
        files=hashes,
    )
    (export.folder / MANIFEST).write_text(manifest.text())


def _commit(settings: Settings, export: Export, tried: Replay, version: int, profile: Profile) -> bool:
    """Make the draft a version, with its configuration; whether that differs in more than its versions."""
    model_folder = settings.model_repository / settings.model_name
    before = read_config(model_folder)
    # A list of which nothing is left, because somebody deleted it, would serve nothing for good.
    kept = [number for number in read_versions(model_folder) if number in versions_present(model_folder)]
    versions = kept or [version]
    config = build_config(settings.model_name, tried.signature, profile, versions)
    ledger.record(model_folder, version)
    if config != before:
        prepare(model_folder, version, config)
    target = model_folder / str(version)
    export.folder.rename(target)
    sync(model_folder)
    try:
        finish_interrupted(model_folder)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return before is not None and with_versions(before, versions) != config


def _newest_with(model_folder: Path, hashes: dict[str, str]) -> int | None:
    """The newest version's number, if its files are these and it can be served."""
    present = versions_present(model_folder)
    if not present or not (model_folder / CONFIG).is_file():
        return None
    manifest = read_manifest(model_folder / str(present[-1]))
    return present[-1] if manifest is not None and manifest.files == hashes else None


def _remove_drafts(model_folder: Path) -> None:
    """Remove what a publish that was killed left behind."""
    for draft in workbench(model_folder).glob(f"{DRAFT_PREFIX}*"):
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _alone(model_folder: Path) -> Iterator[None]:
    """Hold the model's lock; the kernel lets go of it when the process ends, however it ends."""
    with (workbench(model_folder) / "publish.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise Busy(f"{model_folder}: another publish is under way; try again when it has ended") from exc
        yield
