"""The models that are measured, published into repositories of their own and kept in `var/bench-models`."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.processes import programs, run_module
from benchmarks.synthetic_users import fill
from benchmarks.synthetic_world import make_world
from features.settings import Settings
from features.store import open_store

_ROOT = Path(__file__).parents[1]
_EXPORTING = (
    "training/*.py",
    *(f"features/{name}.py" for name in ("catalog", "model_inputs", "order", "schema")),
    *(f"benchmarks/{name}.py" for name in ("synthetic_world", "synthetic_export")),
)
_PUBLISHING = ("rollout/*.py", "inference/**/*.py", "features/catalog.py")
"""The code that decides what a repository holds."""
_TRAINED = "movielens-100k"
"""The model that `make run` trains."""
USERS = 1_000


@dataclass(frozen=True, slots=True)
class Model:
    """A model, published."""

    name: str
    repository: Path
    items: int
    history: int
    """Events of each synthetic user."""
    data: Path | None = None
    """Prepared data whose users it is for; None: synthetic users."""

    def linked(self, folder: Path) -> Path:
        """A repository of its own in `folder`, of hard links: what serves it may write beside it."""
        shutil.copytree(self.repository, folder, copy_function=os.link)
        return folder

    def fill(self, settings: Settings, users: int = USERS) -> list[str]:
        """Fills the store that the settings name; ids of some users.

        Raises:
            BenchmarkError, StoreError: it cannot be filled.
        """
        if self.data is None:
            return asyncio.run(fill(settings, make_world(self.items), users, self.history))
        run_module(
            *("features", "backfill", "--data", str(self.data)),
            state_dir=settings.state_dir,
            store=settings.store,
        )

        async def sample() -> list[str]:
            store = open_store(settings)
            try:
                return await store.sample_users(users)
            finally:
                await store.close()

        return asyncio.run(sample())

    def item_ids(self, count: int) -> list[str]:
        """Ids of items that it has: the first ones."""
        if self.data is None:
            world = make_world(self.items)
            return [world.item_id(i % self.items) for i in range(count)]
        import pyarrow.parquet as pq

        ids = pq.read_table(self.data / "items.parquet", columns=["item_id"])["item_id"].to_pylist()
        return [str(ids[i % len(ids)]) for i in range(count)]


def synthetic(bench: Bench, items: int, size: str = "small", history: int | None = None) -> Model:
    """A model of that many items, built if it is not kept.

    Raises:
        BenchmarkError: it cannot be exported or published.
    """
    from benchmarks.synthetic_export import config_of

    length = config_of(items, size, history).model.history
    name = f"{items}-{size}-{length}"

    def build(export: Path) -> None:
        words = ["--items", str(items), "--size", size, "--history", str(length), "--out", str(export)]
        run_module("benchmarks.synthetic_export", *words)

    repository = _published(bench, name, _hash(name, _EXPORTING), build)
    return Model(name, repository, items, length)


def trained(bench: Bench) -> Model | None:
    """The small model that `make run` trained, with its users; None if there is none."""
    state_dir = bench.settings.state_dir
    export, data = state_dir / "exports" / _TRAINED, state_dir / "data" / _TRAINED
    try:
        said = json.loads((export / "training.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not (data / "events.parquet").exists():
        return None
    made = _hash(json.dumps(said, sort_keys=True), ())
    repository = _published(bench, _TRAINED, made, lambda folder: shutil.copytree(export, folder))
    return Model(_TRAINED, repository, int(said["items"]), int(said["widths"]["T"]), data)


def small(bench: Bench) -> Model:
    """The model of the first figures: the trained one, or, if there is none, one like it."""
    return trained(bench) or synthetic(bench, 2_000)


def _published(bench: Bench, name: str, fingerprint: str, build: Callable[[Path], object]) -> Path:
    """The repository of a model: exported if no export of this fingerprint is kept, published if it was not
    by this code. What is kept of other fingerprints goes."""
    models = bench.settings.state_dir / "bench-models"
    folder = models / f"{name}-{fingerprint}"
    export = folder / "export" / name
    began = time.perf_counter()
    if not export.is_dir():
        for other in models.glob(f"{name}-{'?' * len(fingerprint)}"):
            shutil.rmtree(other, ignore_errors=True)
        bench.say(f"building the model {name}")
        draft = folder / "draft" / name
        shutil.rmtree(draft.parent, ignore_errors=True)
        draft.parent.mkdir(parents=True, mode=0o700)
        build(draft)
        draft.parent.rename(export.parent)
        bench.say(f"  built in {time.perf_counter() - began:.0f} s")
    repository = folder / f"repository-{_hash('', _PUBLISHING)}"
    if not repository.is_dir():
        for other in folder.glob("repository-*"):
            shutil.rmtree(other, ignore_errors=True)
        draft = folder / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        run_module(
            *("rollout", "publish", "--export", str(export)),
            state_dir=folder / "state",
            model_repository=draft,
            **programs(bench.settings),
        )
        draft.rename(repository)
        shutil.rmtree(folder / "state", ignore_errors=True)
    return repository


def _hash(text: str, sources: Iterable[str]) -> str:
    """Of a text and the code of some files, by their patterns from the root."""
    digest = sha256(text.encode())
    for pattern in sources:
        for path in sorted(_ROOT.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
