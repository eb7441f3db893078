"""Preparing a behaviour log: clean, de-duplicate, sort by time, normalise, and account for every row.

`prepare` turns events, items and users files into one folder, `<state>/data/<name>/`:

    events.parquet    user_id string, item_id string, time int64 (unix s), type uint8 (`EventType`),
                      weight float32, surface string; sorted by user_id, time, item_id, type
    exposures.parquet user_id string, item_id string, time int64 (unix s), surface string; sorted by user_id,
                      time, item_id; only if items were shown and nothing came of it
    items.parquet     item_id string, title string, categories list<string>, text string (what a language
                      model reads of it), published int64 (unix s), the items file's other columns, of which
                      `embedding:<name>` are list<float32> of one length; sorted by item_id
    users.parquet     user_id string and one string column for each attribute; only with a users file
    report.json       `DataReport`
    quarantine.csv    file, line, reason and row of every row that was dropped, sorted by file and line

The folder is written under another name and renamed, so it is whole or not there. Preparing again is skipped
while the inputs, the [data] table and the list of forgotten users are the same. The fingerprint, by which
trained models are reused, is of the forgotten users in the log only, so to forget anybody else costs no
training. The work is done by DuckDB through Ibis within `data.memory_limit_mb`, so the log may be larger than
memory. The rows of forgotten users are counted, but nothing of them is written down.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from hashlib import file_digest, sha256
from pathlib import Path

from training.config import Config
from training.data_config import DataConfig
from training.data_folder import earlier_report, exclusive, replacing
from training.data_report import DataReport, print_report
from training.errors import TrainingError
from training.movielens import fetch_movielens_100k

__all__ = ["PreparedData", "digest_of", "prepare", "print_report"]

_LAYOUT = 2
"""Raise it when the same input gives another folder, so that old folders are not reused."""


@dataclass(frozen=True, slots=True)
class PreparedData:
    """A prepared data folder."""

    folder: Path
    report: DataReport
    fingerprint: str
    reused: bool
    """True: the folder was there already."""
    forgetting: str | None = None
    """A sentence, if all that had changed was the list of forgotten users."""


def prepare(
    config: Config,
    *,
    events: Path | None,
    items: Path | None,
    users: Path | None,
    state_dir: Path,
    excluded_users: frozenset[str],
) -> PreparedData:
    """Prepares the files given, or MovieLens-100K if the configuration says so.

    Raises `TrainingError` for input that cannot be used; the folder is then what it was before.
    """
    data = config.data
    events, items, users = _inputs(data, events, items, users, state_dir)
    given = {"events": events, "items": items, "users": users}
    excluded_users = frozenset(unicodedata.normalize("NFC", user) for user in excluded_users)
    digests = {kind: digest_of(path) for kind, path in given.items() if path is not None}
    fingerprint = partial(_fingerprint, data, digests)
    folder = state_dir / "data" / data.name
    with exclusive(folder):
        before = earlier_report(folder)
        if before is not None and before.request == fingerprint(excluded_users):
            return PreparedData(folder, before, before.fingerprint, reused=True)
        # Here, so that who finds everything done does not wait for Ibis and DuckDB.
        from training.preparation import write_prepared

        with replacing(folder) as new:
            report = write_prepared(data, new, given, digests, excluded_users, fingerprint)
    return PreparedData(folder, report, report.fingerprint, False, _forgetting(before, report))


def _forgetting(before: DataReport | None, now: DataReport) -> str | None:
    if before is None or before.inputs != now.inputs or before.request == now.request:
        return None
    if before.fingerprint == now.fingerprint:
        effect = "the change is of nobody in this log, so what was trained on it still holds"
    else:
        effect = "the change is of users in this log, so models are trained on it again"
    return f"prepared again, as the list of forgotten users has changed: {effect}"


def _inputs(
    data: DataConfig, events: Path | None, items: Path | None, users: Path | None, state_dir: Path
) -> tuple[Path, Path | None, Path | None]:
    if data.source == "movielens-100k":
        if events or items or users:
            raise TrainingError(
                'files were given, but the configuration says data.source = "movielens-100k"; '
                'use one with data.source = "files", such as training/configs/example-own-data.toml'
            )
        files = fetch_movielens_100k(state_dir / "cache" / "movielens-100k")
        return files.events, files.items, files.users
    events, items, users = events or data.events.path, items or data.items.path, users or data.users.path
    if events is None:
        raise TrainingError(
            'data.source is "files", so an events file is needed: data.events.path, or --events FILE'
        )
    return events, items, users


def digest_of(path: Path) -> str:
    """sha256 of a file. Raises `TrainingError` if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return file_digest(stream, "sha256").hexdigest()
    except OSError as exc:
        raise TrainingError(f"{path} cannot be read: {exc.strerror}") from exc


def _fingerprint(data: DataConfig, digests: dict[str, str], users: Collection[str]) -> str:
    digest = sha256(f"layout {_LAYOUT}\n{sorted(digests.items())}\n".encode())
    # Neither where a file lies nor how much memory reads it changes what is in it.
    places = {kind: {"path"} for kind in ("events", "items", "users")}
    digest.update(data.model_dump_json(exclude={"memory_limit_mb": True, **places}).encode())
    for user in sorted(users):
        digest.update(f"\n{len(user)} {user}".encode())
    return digest.hexdigest()
