"""Whether the service answers as the trained model does: recorded requests through the gateway and Triton,
and offline.

    python -m benchmarks.parity --config training/configs/movielens-small.toml

The stack has to be up, with the model of that configuration. The requests are drawn by lot from the users
of the log, with limits, times, filters, exclusions, surfaces and diversity; each names its time, so that it
can be repeated. The offline answer is computed from the prepared data and the weights of the run, request by
request, with none of the code of the served graph (`training.offline`). Exit status 1 if a page differs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from client.client import Client
from client.riptide.v1 import recommender_pb2 as pb
from features.schema import EventType, surface_key
from features.settings import Settings, load_settings
from training.baselines import count
from training.config import Config, load_config
from training.dataset import History, Prepared, open_prepared
from training.errors import BAD_INPUT_EXIT_CODE, TrainingError
from training.export import ADDED
from training.runs import Runs
from training.splits import LeaveOneOut
from training.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from training.offline import Offline

TOLERANCE = 1e-4
_TIE = 1e-6
"""Items whose scores are nearer to each other than this may change places: float32 cannot tell them apart."""
_AT_ONCE = 16
_MONTH_S = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Asked:
    """One recorded request."""

    user: int
    """Number of the user in the log."""
    limit: int
    time: int
    category: str
    """Empty: no filter."""
    excluded: tuple[str, ...]
    surface: str
    diversity: float


def main(arguments: list[str] | None = None) -> int:
    """Runs the comparison and gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="the one that the serving model is of")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1, help="of the requests")
    given = parser.parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    settings = load_settings()
    try:
        return asyncio.run(_compare(settings, load_config(given.config), given.requests, given.seed))
    except TrainingError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT_EXIT_CODE


@dataclass(frozen=True, slots=True)
class Model:
    """The model behind the export, and the data that it was trained on."""

    prepared: Prepared
    offline: Offline


def open_model(config: Config, state_dir: Path) -> Model:
    """Opens the run that the present export was made from.

    Raises:
        TrainingError: there is none, or its catalogue has been extended since.
    """
    import_tensorflow()
    from training.facts import gather_facts
    from training.offline import Offline
    from training.trained import load_trained

    export = state_dir / "exports" / config.data.name
    try:
        description = json.loads((export / "training.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"{export}: there is no export; run make run once") from error
    if (export / ADDED).exists():
        raise TrainingError(f"{export}: has items that were added after training; export the run again")
    prepared = open_prepared(state_dir / "data" / config.data.name, config.behaviour)
    runs = Runs(config, prepared, state_dir / "runs" / config.data.name, state_dir / "cache")
    split = LeaveOneOut()
    counts = count((split.training_part(history) for history in prepared.histories()), len(prepared.items))
    facts = gather_facts(config, prepared, counts, runs.cache)
    trained = load_trained(runs.run_folder(split, description["seed"]), facts)
    return Model(prepared, Offline(trained, prepared.items, config.model.page_size))


async def _compare(settings: Settings, config: Config, wanted: int, seed: int) -> int:
    model = open_model(config, settings.state_dir)
    from training.offline import Request

    histories = list(model.prepared.histories())
    requests = _requests(model.prepared, histories, wanted, seed)
    index_of = {item.item_id: i for i, item in enumerate(model.prepared.items, start=1)}
    async with Client(f"127.0.0.1:{settings.grpc_port}") as client:
        ignored = [EventType[name] for name in config.behaviour.ignored]
        changed = await _changed_users(client, histories, requests, ignored)
        requests = [asked for asked in requests if asked.user not in changed]
        pages = await _pages(client, histories, requests)
    degraded = sum(page.degraded != pb.DEGRADED_REASON_UNSPECIFIED for page in pages)
    other, largest = 0, 0.0
    for asked, page in zip(requests, pages, strict=True):
        history = histories[asked.user]
        expected = model.offline.page(
            Request(
                history,
                time=asked.time,
                surface=surface_key(asked.surface),
                excluded=frozenset(history.taken.tolist()) | {index_of[item] for item in asked.excluded},
                categories=frozenset({asked.category}) if asked.category else None,
                diversity=asked.diversity,
            )
        )
        items, scores = expected.items[: asked.limit].tolist(), expected.scores[: asked.limit].tolist()
        got = [index_of.get(item.item_id, 0) for item in page.items]
        if len(got) != len(items) or not _same_order(got, items, scores):
            other += 1
            continue
        for item, score in zip(page.items, scores, strict=True):
            largest = max(largest, abs(item.score - score))
    print(
        f"{len(requests)} requests (seed {seed}) of {len({asked.user for asked in requests})} users"
        + (f", {len(changed)} users with events of their own since left out" if changed else "")
        + f"; version {', '.join(sorted({str(page.model.version) for page in pages}))}; "
        f"degraded: {degraded}; pages with other items or another order than offline: {other}; "
        f"largest difference of a score: {largest:.1e}"
    )
    return int(not requests or other > 0 or degraded > 0 or largest > TOLERANCE)


def _requests(prepared: Prepared, histories: Sequence[History], wanted: int, seed: int) -> list[Asked]:
    rng = np.random.default_rng(seed)
    items = [item.item_id for item in prepared.items]
    requests = []
    for _ in range(wanted):
        user = int(rng.integers(len(histories)))
        requests.append(
            Asked(
                user=user,
                limit=int(rng.choice([10, 20, 100])),
                time=int(histories[user].times[-1]) + int(rng.integers(1, _MONTH_S)),
                category=str(rng.choice(prepared.categories)) if rng.random() < 0.2 else "",
                excluded=tuple(rng.choice(items, 5).tolist()) if rng.random() < 0.2 else (),
                surface=str(rng.choice(["", "home", "search"])),
                diversity=float(np.float32(rng.choice([0.0, 0.0, 0.0, 0.3, 0.7]))),
            )
        )
    return requests


async def _pages(
    client: Client, histories: Sequence[History], requests: Sequence[Asked]
) -> list[pb.RecommendResponse]:
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def page(asked: Asked) -> pb.RecommendResponse:
        async with at_once:
            return await client.recommend(
                histories[asked.user].user_id,
                limit=asked.limit,
                categories=[asked.category] if asked.category else (),
                exclude_item_ids=asked.excluded,
                surface=asked.surface,
                diversity=asked.diversity,
                time=asked.time,
            )

    return await asyncio.gather(*(page(asked) for asked in requests))


async def _changed_users(
    client: Client, histories: Sequence[History], requests: Sequence[Asked], ignored: Sequence[int]
) -> set[int]:
    """Users whose record is not what the log says: somebody has recorded events for them."""
    changed = set()
    for user in sorted({asked.user for asked in requests}):
        described = await client.describe_user(histories[user].user_id)
        times = [event.time for event in described.events if event.type not in ignored]
        if times != histories[user].times.tolist():
            changed.add(user)
    return changed


def _same_order(got: Sequence[int], items: Sequence[int], scores: Sequence[float]) -> bool:
    score_of = dict(zip(items, scores, strict=True))
    return all(
        one == other or abs(score_of.get(one, np.inf) - score) <= _TIE
        for one, other, score in zip(got, items, scores, strict=True)
    )


if __name__ == "__main__":
    sys.exit(main())
