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

from tritonclient.grpc import model_config_pb2

from features.settings import Settings
from inference.environment import Interpreter
from inference.errors import UnfitModel
from inference.model_config import PROFILES, build_config, from_text, to_text, warmup_data
from inference.replay import Replay, replay
from rollout import ledger
from rollout.durable import sync, sync_tree, write_atomically
from rollout.errors import BadExport, Busy, PreflightFailed
from rollout.export_folder import FILES, SAVEDMODEL, Export, check_agreement, read_export
from rollout.manifest import MANIFEST, Manifest, hash_files, read_manifest

CONFIG = "config.pbtxt"
DRAFT_PREFIX = ".publishing-"
PENDING_PREFIX = ".config-of-"
"""With a version's number: the configuration that is to be in force as soon as that version is there."""
PUBLISHED_FILES = tuple(name for name in FILES if name != "training.json")


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

    Raises:
        BadExport, PreflightFailed, VersionTaken, Busy: see `rollout.errors`.
    """
    export = read_export(export_folder)
    model_folder = settings.model_repository / settings.model_name
    model_folder.mkdir(parents=True, exist_ok=True)
    with _alone(model_folder):
        _remove_drafts(model_folder)
        _finish_interrupted(model_folder)
        if if_new and (newest := _newest_with(model_folder, _published_hashes(export))) is not None:
            return Published(newest, model_folder / str(newest), fresh=False, config_changed=False)
        ledger.choose(model_folder, version)  # refuse a taken number before the long part
        draft = Path(tempfile.mkdtemp(prefix=DRAFT_PREFIX, dir=model_folder))
        try:
            copied = _copy(export, draft)
            hashes = _published_hashes(copied)
            tried = _preflight(interpreter, copied)
            return _commit(settings, copied, tried, hashes, version, profile)
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
    except (OSError, shutil.Error) as exc:
        raise BadExport(f"{export.folder}: cannot be copied: {exc}") from exc
    draft.chmod(0o755)  # mkdtemp makes it private; Triton may run as another user
    return Export(export.name, draft, export.training, export.golden)


def _published_hashes(export: Export) -> dict[str, str]:
    """sha256 of each file of the export that is published, by its path in the version's folder."""
    return hash_files(export.folder, (SAVEDMODEL, *PUBLISHED_FILES))


def _preflight(interpreter: Interpreter, export: Export) -> Replay:
    try:
        tried = replay(interpreter, export.savedmodel, export.golden)
    except UnfitModel as exc:
        raise PreflightFailed(str(exc)) from exc
    check_agreement(export, tried.signature)
    return tried


def _commit(
    settings: Settings,
    export: Export,
    tried: Replay,
    hashes: dict[str, str],
    wanted: int | None,
    profile: str,
) -> Published:
    model_folder, draft = export.folder.parent, export.folder
    config = build_config(settings.model_name, tried.signature, PROFILES[profile])
    before = _present_config(model_folder)
    if before is not None:
        config.version_policy.CopyFrom(
            before.version_policy
        )  # which versions serve is the rollout's decision
    config_changed = before is not None and before != config
    version = ledger.choose(model_folder, wanted)
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
        tensorflow=tried.tensorflow,
        files=hashes,
    )
    (draft / MANIFEST).write_text(manifest.text())
    sync_tree(draft)
    write_config = before is None or config_changed
    if write_config:
        _write_warmup(model_folder, tried, export)
    ledger.record(model_folder, version)
    target = model_folder / str(version)
    if write_config:
        write_atomically(model_folder / f"{PENDING_PREFIX}{version}", to_text(config).encode())
    draft.rename(target)
    sync(model_folder)
    try:
        _finish_interrupted(model_folder)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return Published(version, target, fresh=True, config_changed=config_changed)


def _write_warmup(model_folder: Path, tried: Replay, export: Export) -> None:
    """The rows that each version is warmed up with; written only when the tensors changed."""
    folder = model_folder / "warmup"
    folder.mkdir(exist_ok=True)
    for name, content in warmup_data(tried.signature, export.golden.inputs).items():
        write_atomically(folder / name, content)


def _present_config(model_folder: Path) -> model_config_pb2.ModelConfig | None:
    path = model_folder / CONFIG
    if not path.exists():
        return None
    try:
        return from_text(path.read_text())
    except ValueError as exc:
        raise BadExport(f"{path}: is no model configuration ({exc}); correct or remove it") from exc


def _newest_with(model_folder: Path, hashes: dict[str, str]) -> int | None:
    """The newest version's number, if its files are these and it can be served."""
    present = ledger.versions_present(model_folder)
    if not present or not (model_folder / CONFIG).is_file():
        return None
    manifest = read_manifest(model_folder / str(present[-1]))
    return present[-1] if manifest is not None and manifest.files == hashes else None


def _finish_interrupted(model_folder: Path) -> None:
    """Put the configuration of a version that has appeared in force; forget that of one that never did.

    A version and its configuration cannot appear in one step. A publish that was killed between the two
    leaves the second step to the next one.
    """
    for pending in model_folder.glob(f"{PENDING_PREFIX}*"):
        if (model_folder / pending.name.removeprefix(PENDING_PREFIX)).is_dir():
            pending.replace(model_folder / CONFIG)
        else:
            pending.unlink()
        sync(model_folder)


def _remove_drafts(model_folder: Path) -> None:
    """Remove what a publish that was killed left behind."""
    for draft in model_folder.glob(f"{DRAFT_PREFIX}*"):
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _alone(model_folder: Path) -> Iterator[None]:
    """Hold the model's lock; the kernel lets go of it when the process ends, however it ends."""
    with (model_folder / ".publish.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise Busy(f"{model_folder}: another publish is under way; try again when it has ended") from exc
        yield
