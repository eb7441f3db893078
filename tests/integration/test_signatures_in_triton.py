"""A version of an earlier release and one with the inputs of this one, side by side in one real Triton."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2_grpc

from features.record import EMPTY_RECORD, Event, UserRecord, with_attributes, with_events
from features.schema import EventType, item_key
from gateway.model_inputs import Row, knows, model_inputs
from gateway.page import PageRequest
from gateway.scorer import Scorer, Scores, triton_channel
from gateway.versions import ServingVersion, Versions
from inference.environment import Interpreter
from inference.proof import prove_version
from inference.signature import ADDED_INPUTS
from rollout.check import check_files
from rollout.configuration import set_versions
from rollout.manifest import read_manifest
from rollout.publish import publish
from rollout.repository import find
from rollout.state import Bounds
from rollout.trial import try_out
from tests.integration.conftest import Launcher, launch, settings_below
from tests.integration.tiny_variant import COUNTRIES, ITEM_IDS, SURFACES, Variant, write_exports

pytestmark = pytest.mark.triton

OLDER, RANKING = 1, 2


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory, interpreter: Interpreter) -> Iterator[Launcher]:
    """Serves the older version; the other one is brought in as a rollout does."""
    folder = tmp_path_factory.mktemp("signatures")
    exports = {
        folder / "older": Variant(),
        folder / "ranking": Variant(attributes=("age", "country"), consumes=("PURCHASE",), ignores=("VIEW",)),
    }
    write_exports(exports)
    settings = settings_below(folder)
    published = [publish(settings, interpreter, export) for export in exports]
    assert [one.config_changed for one in published] == [False, False]
    set_versions(published[0].folder.parent, [OLDER, RANKING])
    launcher = launch(settings)
    try:
        launcher.wait_ready(1)
        yield launcher
    finally:
        assert launcher.stop() == 0, launcher.program.text


class Called:
    """Both versions, as a gateway finds and calls them."""

    def __init__(self, scorer: Scorer, versions: Versions, stub: Any) -> None:
        self.scorer, self.ready, self.stub, self.folder = scorer, versions.ready, stub, versions.folder

    async def page(self, number: int, record: UserRecord, **asked: Any) -> Scores:
        """A version's answer for a user of whom it knows something."""
        version: ServingVersion = self.ready[number]
        assert knows(version, record)
        row = Row(record, None, PageRequest("u", 10, **asked))
        return await self.scorer.score(
            version, model_inputs(version, [row], int(time.time())), reasons=True, vectors=True, timeout_s=30
        )


@pytest.fixture
async def called(triton: Launcher) -> AsyncIterator[Called]:
    async with triton_channel(triton.settings.triton_target) as channel:
        versions = Versions(triton.settings, channel)
        while versions.ready.keys() != {OLDER, RANKING}:  # the launcher loads the second by itself
            assert triton.program.runs, triton.program.text
            assert versions.refused == {}
            await versions.look()
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        yield Called(Scorer(channel), versions, stub)


def user(*events: tuple[str, EventType], **attributes: str) -> UserRecord:
    history = [Event("u", item, kind, 1_700_000_000 + place) for place, (item, kind) in enumerate(events)]
    return with_attributes(with_events(EMPTY_RECORD, history, 100).record, attributes)


def items(scores: Scores) -> list[int]:
    return [int(key) for key in scores.item_keys[0]]


def test_what_became_of_judged_users_is_published_with_the_version_if_the_export_has_it(
    triton: Launcher,
) -> None:
    folder = triton.settings.model_repository / triton.settings.model_name
    for number in (OLDER, RANKING):
        manifest = read_manifest(folder / str(number))
        assert manifest is not None
        there = (folder / str(number) / "judged.npz").is_file()
        assert ("judged.npz" in manifest.files, there) == (number == RANKING, number == RANKING)
        check_files(find(folder, number))


async def test_each_version_is_sent_its_own_inputs_and_answers_its_golden_requests(called: Called) -> None:
    assert called.ready[OLDER].inputs.keys().isdisjoint(ADDED_INPUTS)
    assert called.ready[RANKING].inputs.keys() >= ADDED_INPUTS
    record = user((ITEM_IDS[3], EventType.CLICK), country=COUNTRIES[0])
    for number in (OLDER, RANKING):
        assert all(items(await called.page(number, record, surface=SURFACES[0], diversity=0.5)))
        await prove_version(called.stub, "recommender", called.folder.parent, number)


async def test_a_user_with_attributes_and_no_history_gets_a_page_of_their_own(called: Called) -> None:
    pages = [items(await called.page(RANKING, user(country=country))) for country in COUNTRIES]
    assert len({tuple(page) for page in pages}) == len(COUNTRIES)
    assert not knows(called.ready[OLDER], user(country=COUNTRIES[0]))
    assert not knows(called.ready[RANKING], user(shoe_size="44"))


async def test_events_of_a_type_that_a_version_ignores_change_nothing(called: Called) -> None:
    bought = (ITEM_IDS[3], EventType.PURCHASE)
    views = [(item, EventType.VIEW) for item in ITEM_IDS[5:20]]
    plain = await called.page(RANKING, user(bought))
    amid_views = await called.page(RANKING, user(bought, *views))
    assert not knows(called.ready[RANKING], user(*views))
    assert knows(called.ready[OLDER], user(*views))
    np.testing.assert_array_equal(items(plain), items(amid_views))


async def test_types_surface_and_diversity_change_the_page(called: Called) -> None:
    events = [(ITEM_IDS[3], EventType.CLICK), (ITEM_IDS[4], EventType.CLICK)]
    clicked = await called.page(RANKING, user(*events))
    bought = await called.page(RANKING, user(events[0], (ITEM_IDS[4], EventType.PURCHASE)))
    assert not np.allclose(clicked.user_vector, bought.user_vector)  # type: ignore[arg-type]  # asked for
    plain = np.diff(clicked.scores[0])
    assert (plain <= 0).all()
    there = await called.page(RANKING, user(*events), surface=SURFACES[1])
    assert items(there) != items(clicked)
    diverse = await called.page(RANKING, user(*events), diversity=1.0)
    assert items(diverse) != items(clicked)
    assert (np.diff(diverse.scores[0]) > 0).any()


async def test_only_purchases_are_held_back_where_only_purchases_consume(called: Called) -> None:
    record = user(*((item, EventType.CLICK) for item in ITEM_IDS[:40]), (ITEM_IDS[44], EventType.PURCHASE))
    clicked, bought = set(map(item_key, ITEM_IDS[:40])), item_key(ITEM_IDS[44])
    older, ranking = items(await called.page(OLDER, record)), items(await called.page(RANKING, record))
    assert clicked.isdisjoint(older)
    assert not clicked.isdisjoint(ranking)
    assert bought not in older + ranking


@pytest.mark.parametrize(("stable", "candidate"), [(OLDER, RANKING), (RANKING, OLDER)])
async def test_a_trial_compares_them_whatever_their_scores_are(
    called: Called, stable: int, candidate: int
) -> None:
    # Of a busy machine the times say nothing.
    bounds = Bounds(overlap=0.3, latency_ratio=100)
    await try_out(
        called.stub, "recommender", called.folder, stable=stable, candidate=candidate, bounds=bounds
    )
