"""What peers serve is what the gateway serves: the same record, the same inputs, the same page."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers.pages import Asked, Pages, as_json, as_message
from benchmarks.synthetic_users import fill
from benchmarks.synthetic_world import World
from features.record import CachedAnswer, UserRecord
from features.settings import Settings
from inference.environment import probe
from rollout.publish import publish

HISTORY, USERS = 12, 8


@pytest.fixture(scope="module")
def served(export: Path, world: World, tmp_path_factory: pytest.TempPathFactory) -> Pages:
    folder = tmp_path_factory.mktemp("peer")
    settings = Settings(state_dir=folder / "state", model_repository=folder / "repository", store="lmdb")
    version = publish(settings, probe(settings.triton_python), export).folder
    asyncio.run(fill(settings, world, USERS, HISTORY))
    assert settings.store_folder is not None
    return Pages(version, settings.store_folder)


def records(pages: Pages) -> list[UserRecord]:
    return asyncio.run(pages.read([Asked(f"user-{i}", 10) for i in range(USERS)]))


def test_a_batch_gets_the_pages_that_each_gets_alone(served: Pages) -> None:
    asked = [Asked(f"user-{i}", 5 + i) for i in range(USERS)]
    together = [[line.item.item_id for line in page] for page in served.of(asked)]
    alone = [[line.item.item_id for line in served.of([one])[0]] for one in asked]
    assert together == alone
    assert [len(page) for page in together] == [5 + i for i in range(USERS)]
    assert len({tuple(page[:5]) for page in together}) > USERS / 2


def test_nobody_is_shown_what_they_had(served: Pages, world: World) -> None:
    for user, items, _ in world.histories(USERS, HISTORY, int(time.time())):
        [page] = served.of([Asked(user, 100)])
        assert {line.item.item_id for line in page}.isdisjoint(world.item_id(i) for i in items.tolist())


def test_a_kept_vector_of_this_version_is_used_and_of_another_one_is_not(
    served: Pages,
) -> None:
    asked = [Asked("user-0", 10)]
    record = records(served)[0]
    width = 64
    somewhere_else = np.full(width, 2.0, np.float32)
    answer = CachedAnswer(1, record.revision, 1, somewhere_else, np.empty(0, np.int64), page_is_current=False)

    def page(version: int, revision: int) -> list[str]:
        kept = answer._replace(version=version, revision=revision)
        changed = record._replace(answer=kept)
        return [line.item.item_id for line in served.scored(asked, [changed])[0]]

    encoded = [line.item.item_id for line in served.scored(asked, [record])[0]]
    assert page(1, record.revision) != encoded
    assert page(2, record.revision) == encoded
    assert page(1, record.revision - 1) == encoded


def test_both_forms_of_an_answer_say_the_same(served: Pages) -> None:
    [page] = served.of([Asked("user-1", 3)])
    message, data = as_message(page), as_json(page)["items"]
    assert [item.item_id for item in message.items] == [item["item_id"] for item in data]
    assert [item.rank for item in message.items] == [item["rank"] for item in data] == [1, 2, 3]
    assert [list(item.categories) for item in message.items] == [item["categories"] for item in data]
    assert [item.score for item in message.items] == pytest.approx([item["score"] for item in data])
