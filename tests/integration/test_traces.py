"""One call's trace, from its caller through the gateway into the real Triton."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import RecommenderStub
from features.settings import Settings
from tests.collector import Collector, collecting
from tests.integration.conftest import launch
from tests.integration.program import Program, start, wait_until
from tests.integration.tiny_variant import ITEM_IDS
from tests.ports import free_ports

pytestmark = pytest.mark.triton

FIRST, TRACE, CALLER = "1" * 32, "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def traced(
    published: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Settings, Collector]]:
    """A Triton and a gateway that trace one call in a million, and those whose callers say so."""
    ports = ("grpc_port", "http_port", "triton_http_port", "triton_grpc_port", "triton_metrics_port")
    update: dict[str, object] = dict(zip(ports, free_ports(len(ports)), strict=True))
    settings = published.model_copy(update=update | {"state_dir": tmp_path / "state", "trace_ratio": 1e-6})
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        launcher, gateway = launch(settings), start(settings, "gateway")
        try:
            launcher.wait_ready()
            wait_until(lambda: serves(settings, gateway), lambda: gateway.text)
            yield settings, collector
        finally:
            statuses = gateway.stop(), launcher.stop()
        assert statuses == (0, 0), gateway.text + launcher.program.text


def serves(settings: Settings, gateway: Program) -> bool:
    assert gateway.runs, gateway.text
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{settings.http_port}/readyz", timeout=10) as answer:
            return set(json.loads(answer.read()).values()) == {"SERVING"}
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


async def test_a_trace_goes_from_the_caller_through_the_gateway_into_triton(
    traced: tuple[Settings, Collector],
) -> None:
    settings, collector = traced
    event = pb.Event(user_id="u", item_id=ITEM_IDS[0], type=pb.EVENT_TYPE_CLICK, time=1_700_000_000)
    async with grpc.aio.insecure_channel(settings.gateway_target) as channel:
        gateway = RecommenderStub(channel)
        await gateway.RecordEvents(pb.RecordEventsRequest(events=[event]), timeout=20)
        await gateway.Recommend(pb.RecommendRequest(user_id="u", limit=5), timeout=20)
        for trace in (FIRST, TRACE):  # of the first that it traces after its start, Triton may tell nothing
            page = await gateway.Recommend(
                pb.RecommendRequest(user_id="u", limit=5),
                timeout=20,
                metadata=(("traceparent", f"00-{trace}-{CALLER}-01"),),
            )
            assert page.degraded == pb.DEGRADED_REASON_UNSPECIFIED

    def of_the_trace() -> list[tuple[str, Span]]:
        return [(service, span) for service, span in collector.spans if span.trace_id.hex() == TRACE]

    def is_whole() -> bool:
        """Both send their spans in batches, and the gateway's stages end before the call does."""
        by_name = {span.name: span for service, span in of_the_trace() if service == "riptide-gateway"}
        model = by_name["model"].span_id if "riptide.v1.Recommender/Recommend" in by_name else None
        return any(service == "triton" and span.parent_span_id == model for service, span in of_the_trace())

    wait_until(is_whole, lambda: str(collector.spans))
    traces = {span.trace_id.hex() for _, span in collector.spans}
    assert traces == {FIRST, TRACE}, "only the calls whose callers say so"
    spans = of_the_trace()
    named = {span.name: span for service, span in spans if service == "riptide-gateway"}
    assert named.keys() == {"riptide.v1.Recommender/Recommend", "queue", "features", "model", "page"}
    call = named.pop("riptide.v1.Recommender/Recommend")
    assert call.parent_span_id.hex() == CALLER
    assert call.status.code != Status.STATUS_CODE_ERROR
    for stage in named.values():
        assert stage.parent_span_id == call.span_id
        assert call.start_time_unix_nano <= stage.start_time_unix_nano
        assert stage.end_time_unix_nano <= call.end_time_unix_nano
    known = {span.span_id for _, span in spans}
    roots = [span for service, span in spans if service == "triton" and span.parent_span_id not in known]
    assert roots == [], "each span of Triton hangs below one of ours"
    assert "u" not in {value for _, span in spans for value in texts(span)}


def texts(span: Span) -> list[str]:
    """The texts of its attributes."""
    return [attribute.value.string_value for attribute in span.attributes]
