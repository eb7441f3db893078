"""One `ModelInfer` per batch, against a Triton that answers what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as triton
from tritonclient.grpc.service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)

from features.catalog import Catalog
from gateway.errors import ModelUnavailable, VersionGone
from gateway.fit import Tensor
from gateway.scorer import Scorer, Scores, triton_channel
from gateway.versions import ServingVersion
from tests.far_away import far_away

KEYS = np.array([[11, 12, 0], [13, 0, 0]], np.int64)
SCORES = np.array([[0.5, 0.25, 0], [2, 0, 0]], np.float32)
VECTORS = np.array([[1, 2], [3, 4]], np.float32)


class FakeTriton(GRPCInferenceServiceServicer):  # type: ignore[misc]  # generated without types
    """Answers the arrays above, as far as they are asked for."""

    def __init__(self) -> None:
        self.asked: list[triton.ModelInferRequest] = []
        self.scores = SCORES
        self.refuses: tuple[grpc.StatusCode, str] | None = None
        self.hangs = False
        self.left_out = ""

    async def ModelInfer(
        self, request: triton.ModelInferRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> triton.ModelInferResponse:
        self.asked.append(request)
        if self.hangs:
            await asyncio.Event().wait()
        if self.refuses is not None:
            await context.abort(*self.refuses)
        arrays = {"item_keys": KEYS, "scores": self.scores, "reason_keys": KEYS, "user_vector": VECTORS}
        response = triton.ModelInferResponse(model_name=request.model_name)
        for output in reversed(request.outputs):  # the order is Triton's own business
            if output.name == self.left_out:
                continue
            array = arrays[output.name]
            kind = "INT64" if array.dtype == np.int64 else "FP32"
            response.outputs.add(name=output.name, datatype=kind, shape=array.shape)
            response.raw_output_contents.append(array.tobytes())
        return response


@asynccontextmanager
async def served(fake: FakeTriton) -> AsyncIterator[str]:
    """The address at which it answers."""
    server = grpc.aio.server()
    add_GRPCInferenceServiceServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)


@pytest.fixture
async def fake() -> AsyncIterator[tuple[FakeTriton, Scorer]]:
    fake = FakeTriton()
    async with served(fake) as target, triton_channel(target) as channel:
        yield fake, Scorer(channel)


async def score(
    scorer: Scorer, catalog: Catalog, *, reasons: bool = False, vectors: bool = False, timeout_s: float = 5
) -> Scores:
    version = ServingVersion("recommender", 7, {"history_keys": Tensor("INT64", 3)}, catalog)
    inputs = {"history_keys": np.array([[1, 2, 3], [4, 5, 6]], np.int64)}
    return await scorer.score(version, inputs, reasons=reasons, vectors=vectors, timeout_s=timeout_s)


async def test_the_version_is_pinned_and_the_arrays_arrive_as_they_are(
    fake: tuple[FakeTriton, Scorer], catalog: Catalog
) -> None:
    triton_, scorer = fake
    answer = await score(scorer, catalog)
    [asked] = triton_.asked
    assert (asked.model_name, asked.model_version) == ("recommender", "7")
    [tensor] = asked.inputs
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("history_keys", "INT64", [2, 3])
    assert np.frombuffer(asked.raw_input_contents[0], np.int64).tolist() == [1, 2, 3, 4, 5, 6]
    assert answer.item_keys.tolist() == KEYS.tolist()
    assert answer.scores.tolist() == SCORES.tolist()


@pytest.mark.parametrize("reasons", [False, True])
@pytest.mark.parametrize("vectors", [False, True])
async def test_only_what_is_wanted_is_asked_for(
    fake: tuple[FakeTriton, Scorer], catalog: Catalog, reasons: bool, vectors: bool
) -> None:
    triton_, scorer = fake
    answer = await score(scorer, catalog, reasons=reasons, vectors=vectors)
    wanted = ["item_keys", "scores"] + ["reason_keys"] * reasons + ["user_vector"] * vectors
    assert [output.name for output in triton_.asked[0].outputs] == wanted
    assert (answer.reason_keys is not None, answer.user_vector is not None) == (reasons, vectors)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
async def test_scores_that_are_not_finite_are_no_answer(
    fake: tuple[FakeTriton, Scorer], catalog: Catalog, bad: float
) -> None:
    triton_, scorer = fake
    triton_.scores = SCORES.copy()
    triton_.scores[1, 0] = bad
    with pytest.raises(ModelUnavailable, match="version 7 answered scores that are not finite"):
        await score(scorer, catalog)


async def test_an_answer_of_other_than_as_many_rows_as_asked_is_none(
    fake: tuple[FakeTriton, Scorer], catalog: Catalog
) -> None:
    triton_, scorer = fake
    triton_.scores = SCORES[:1]
    with pytest.raises(ModelUnavailable, match="version 7 answered other than 2 rows"):
        await score(scorer, catalog)


@pytest.mark.parametrize(
    ("code", "words", "gone"),
    [
        ("UNAVAILABLE", "Request for unknown model: 'm' version 7 is not at ready state", True),
        ("NOT_FOUND", "Request for unknown model: 'm' has no available versions", True),
        ("UNAVAILABLE", "Exceeds maximum queue size", False),
        ("UNAVAILABLE", "failed to connect to all addresses", False),
        ("INVALID_ARGUMENT", "unknown model of input", False),
    ],
)
async def test_what_triton_refuses_says_why_and_whether_the_version_has_gone(
    fake: tuple[FakeTriton, Scorer], catalog: Catalog, code: str, words: str, gone: bool
) -> None:
    triton_, scorer = fake
    triton_.refuses = (grpc.StatusCode[code], words)
    with pytest.raises(ModelUnavailable, match=f"{code}: {words}") as caught:
        await score(scorer, catalog)
    assert isinstance(caught.value, VersionGone) is gone


@pytest.mark.parametrize("left_out", ["item_keys", "scores"])
async def test_an_answer_that_lacks_something_is_none(
    fake: tuple[FakeTriton, Scorer], catalog: Catalog, left_out: str
) -> None:
    triton_, scorer = fake
    triton_.left_out = left_out
    with pytest.raises(ModelUnavailable, match="version 7 answered what is no answer"):
        await score(scorer, catalog)


async def test_a_triton_that_takes_a_while_to_greet_is_waited_for() -> None:
    async with (
        served(FakeTriton()) as target,
        far_away(target, 0.7) as way,
        triton_channel(way.address) as channel,
        asyncio.timeout(20),
    ):
        await channel.channel_ready()
    assert way.connections == 1


async def test_a_triton_that_hangs_is_not_waited_for_beyond_the_time_given(
    fake: tuple[FakeTriton, Scorer], catalog: Catalog
) -> None:
    triton_, scorer = fake
    triton_.hangs = True
    with pytest.raises(ModelUnavailable, match="DEADLINE_EXCEEDED"):
        await asyncio.wait_for(score(scorer, catalog, timeout_s=0.05), 5)
