"""What the methods answer beside what the request path does; the calls themselves are tested end to end."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, cast

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from client.riptide.v1 import recommender_pb2 as pb
from features.catalog import Catalog
from features.control import Exposure
from features.operator_token import operator_token
from features.schema import surface_key
from features.store import FeatureStore
from gateway.errors import InvalidRequest, ModelUnavailable, NotFound, NotLoaded
from gateway.methods import Answer, Call, Methods
from gateway.pin import Pins
from gateway.routing import Router
from gateway.tracing import Tracing
from gateway.wire import Lines
from tests.unit.gateway.fakes import ranking_version
from tests.unit.gateway.request_path import RequestPath


class Service:
    """The methods, over a request path of fakes."""

    def __init__(self, catalog: Catalog, state_dir: Path) -> None:
        self.path = RequestPath(catalog)
        self.store = self.path.store
        self.token = operator_token(state_dir)
        router = cast(Router, self.path.router)
        self.methods = Methods(
            router,
            cast(FeatureStore, self.store),
            self.path.recommend,
            self.path.exposures,
            self.path.refresher,
            Pins(router, state_dir),
            self.path.metrics,
            5.0,
            Lines(),
        )

    def call(self, *metadata: tuple[str, str]) -> Call:
        return Call("r1", 5.0, metadata)

    async def recommend(self, user: str, *metadata: tuple[str, str]) -> tuple[pb.RecommendResponse, Answer]:
        answer = await self.methods.recommend(
            pb.RecommendRequest(user_id=user, limit=3), self.call(*metadata)
        )
        return pb.RecommendResponse.FromString(answer.wire), answer


@pytest.fixture
def service(catalog: Catalog, tmp_path: Path) -> Service:
    return Service(catalog, tmp_path)


async def test_a_page_and_its_log_lines_say_version_and_cohort(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.store.saw("c", "1")
    service.path.router.cohorts["c"] = (8, "canary")
    response, answer = await service.recommend("c")
    assert (response.model.version, response.cohort, len(response.items)) == (8, "canary", 3)
    assert (answer.version, answer.cohort) == (8, "canary")
    assert response.request_id == "r1"
    assert response.stages_ms.page < response.stages_ms.total < 10_000
    service.path.scorer.error = ModelUnavailable("told to fail")
    with caplog.at_level(logging.INFO):
        response, answer = await service.recommend("c")
    assert (response.model.version, response.cohort, len(response.items)) == (7, "canary", 3)
    assert response.degraded == pb.DEGRADED_REASON_MODEL_UNAVAILABLE
    [line] = [vars(record) for record in caplog.records if record.message == "degraded"]
    assert (line["version"], line["cohort"], line["reason"]) == (7, "canary", "MODEL_UNAVAILABLE")


async def test_pages_are_counted_by_version_cohort_and_outcome(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[tuple[int, str, str]] = []
    monkeypatch.setattr(service.path.metrics, "page", lambda *page: counted.append(page))
    service.store.saw("c", "1")
    service.path.router.cohorts["c"] = (8, "canary")
    await service.recommend("c")
    await service.recommend("nobody")
    service.path.scorer.error = ModelUnavailable("told to fail")
    await service.recommend("c")
    assert counted == [(8, "canary", "FULL"), (7, "stable", "COLD_START"), (7, "canary", "MODEL_UNAVAILABLE")]


async def test_a_traced_call_says_what_it_got_and_has_the_store_as_a_stage(service: Service) -> None:
    exporter = InMemorySpanExporter()
    trace = Tracing(1.0, SimpleSpanProcessor(exporter)).begin("riptide.v1.Recommender/Any", ())
    call = service.call()._replace(trace=trace)
    event = pb.Event(user_id="u", item_id="1", type=pb.EVENT_TYPE_CLICK)
    await service.methods.record_events(pb.RecordEventsRequest(events=[event]), call)
    await service.methods.describe_user(pb.DescribeUserRequest(user_id="u"), call)
    await service.methods.forget_user(pb.ForgetUserRequest(user_id="u"), call)
    assert [span.name for span in exporter.get_finished_spans()] == ["store"] * 3
    await service.methods.recommend(pb.RecommendRequest(user_id="nobody", limit=3), call)
    trace.end("OK", is_fault=False)
    said = dict(exporter.get_finished_spans()[-1].attributes or {})
    assert (said["riptide.version"], said["riptide.cohort"]) == (7, "stable")
    assert said["riptide.outcome"] == "COLD_START"


async def test_surface_diversity_and_time_reach_the_model(service: Service, catalog: Catalog) -> None:
    service.store.saw("u", "1")
    router = service.path.router
    router.ready[7] = router.serving = ranking_version(7, catalog)
    request = pb.RecommendRequest(user_id="u", limit=3, surface="home", diversity=0.5, time=99)
    await service.methods.recommend(request, service.call())
    [inputs] = service.path.scorer.calls
    sent = {name: inputs[name].item() for name in ("surface", "diversity", "request_time")}
    assert sent == {"surface": surface_key("home"), "diversity": 0.5, "request_time": 99}


@pytest.mark.parametrize("asked", [{"surface": "x" * 65}, {"diversity": 1.5}, {"time": -1}])
async def test_a_field_that_breaks_its_limit_is_named(service: Service, asked: dict[str, Any]) -> None:
    request = pb.RecommendRequest(user_id="u", limit=3, **asked)
    with pytest.raises(InvalidRequest, match=f"^{next(iter(asked))}: must"):
        await service.methods.recommend(request, service.call())


async def test_an_operator_meets_the_version_asked_for(service: Service) -> None:
    service.store.saw("u", "1")
    token = ("riptide-operator-token", service.token)
    response, _ = await service.recommend("u", ("riptide-version", "8"), token)
    assert (response.model.version, response.cohort) == (8, "pinned")
    with pytest.raises(NotLoaded):
        await service.recommend("u", ("riptide-version", "9"), token)


async def test_a_user_is_told_the_experiments_they_have_met_the_first_one_first(service: Service) -> None:
    request = pb.DescribeUserRequest(user_id="u")
    with pytest.raises(NotFound):
        await service.methods.describe_user(request, service.call())
    service.store.control.exposed += [Exposure("u", "b/control", 20), Exposure("u", "a/treatment", 10)]
    service.store.control.exposed += [Exposure("v", "b/control", 5)]
    answer = await service.methods.describe_user(request, service.call())
    response = pb.DescribeUserResponse.FromString(answer.wire)
    assert [(one.arm, one.time) for one in response.exposures] == [("a/treatment", 10), ("b/control", 20)]


async def test_of_a_user_who_is_forgotten_no_exposure_is_written_afterwards(service: Service) -> None:
    service.store.saw("u", "1")
    service.path.router.cohorts["u"] = (8, "ads/treatment")
    await service.recommend("u")
    await service.methods.forget_user(pb.ForgetUserRequest(user_id="u"), service.call())
    await service.path.exposures.write()
    assert service.store.control.exposed == []
