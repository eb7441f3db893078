"""Following which version is ready, against a Triton that speaks gRPC and does as it is told."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2 as triton
from tritonclient.grpc.service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)

from features.catalog import Catalog
from features.settings import Settings
from gateway.routing import Router, RoutingError
from gateway.scorer import triton_channel

INPUTS = {"history_keys": ("INT64", 4), "exclude_keys": ("INT64", -1)}
OUTPUTS = ["item_keys", "scores", "reason_keys", "user_vector"]


class FakeTriton(GRPCInferenceServiceServicer):  # type: ignore[misc]  # generated without types
    """Metadata of the versions it is told to have ready."""

    def __init__(self) -> None:
        self.versions: dict[str, tuple[dict[str, tuple[str, int]], list[str]]] = {}
        self.target = ""

    async def ModelMetadata(
        self, request: triton.ModelMetadataRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> triton.ModelMetadataResponse:
        if not self.versions:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no version is available")
        inputs, outputs = self.versions[request.version or max(self.versions)]
        tensor = triton.ModelMetadataResponse.TensorMetadata
        return triton.ModelMetadataResponse(
            name=request.name,
            versions=list(self.versions),
            inputs=[tensor(name=n, datatype=kind, shape=[-1, width]) for n, (kind, width) in inputs.items()],
            outputs=[tensor(name=n, datatype="INT64", shape=[-1, 10]) for n in outputs],
        )

    async def ModelReady(
        self, request: triton.ModelReadyRequest, context: object
    ) -> triton.ModelReadyResponse:
        return triton.ModelReadyResponse(ready=request.version in self.versions)


@pytest.fixture
async def fake() -> AsyncIterator[tuple[FakeTriton, grpc.aio.Channel]]:
    fake = FakeTriton()
    server = grpc.aio.server()
    add_GRPCInferenceServiceServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = triton_channel(f"127.0.0.1:{port}")
    fake.target = f"127.0.0.1:{port}"
    yield fake, channel
    await channel.close()
    await server.stop(0)


@pytest.fixture
def settings(tmp_path: Path, catalog: Catalog) -> Settings:
    """A repository with versions 1 and 2."""
    repository = tmp_path / "repository"
    for version in "12":
        folder = repository / "recommender" / version
        folder.mkdir(parents=True)
        shutil.copy(tmp_path / "catalog.lmdb", folder)
    return Settings(model_repository=repository)


async def test_before_triton_answers_the_newest_published_catalogue_is_at_hand(
    settings: Settings, fake: tuple[FakeTriton, grpc.aio.Channel]
) -> None:
    router = Router(settings, fake[1])
    await router.look()
    assert router.serving is None
    assert (router.catalog_version, len(router.catalog)) == (2, 30)


async def test_the_highest_ready_version_is_served_and_followed(
    settings: Settings, fake: tuple[FakeTriton, grpc.aio.Channel]
) -> None:
    triton_, channel = fake
    router = Router(settings, channel)
    triton_.versions = {"1": (INPUTS, OUTPUTS)}
    await router.look()
    assert router.serving is not None
    assert (router.serving.version, router.catalog_version) == (1, 1)
    assert router.serving.inputs["history_keys"].width == 4
    triton_.versions["2"] = (INPUTS, OUTPUTS)
    await router.look()
    assert (router.serving.version, router.catalog_version) == (2, 2)
    triton_.versions = {}
    await router.look()
    assert router.serving is None
    assert router.catalog_version == 2


async def test_a_version_that_has_gone_is_not_served_any_longer_even_if_the_next_one_does_not_fit(
    settings: Settings, fake: tuple[FakeTriton, grpc.aio.Channel]
) -> None:
    triton_, channel = fake
    router = Router(settings, channel)
    triton_.versions = {"1": (INPUTS, OUTPUTS)}
    await router.look()
    triton_.versions = {"2": (INPUTS, OUTPUTS[:2])}
    await router.look()
    assert router.serving is None
    # Made right and loaded again, it is looked at again.
    triton_.versions = {}
    await router.look()
    triton_.versions = {"2": (INPUTS, OUTPUTS)}
    await router.look()
    assert router.serving is not None
    assert router.serving.version == 2


async def test_a_refused_version_that_goes_and_comes_back_made_right_is_served(
    settings: Settings, fake: tuple[FakeTriton, grpc.aio.Channel]
) -> None:
    triton_, channel = fake
    router = Router(settings, channel)
    for versions, served in (
        ({"1": (INPUTS, OUTPUTS), "2": (INPUTS, OUTPUTS[:2])}, None),
        ({"1": (INPUTS, OUTPUTS)}, 1),
        ({"1": (INPUTS, OUTPUTS), "2": (INPUTS, OUTPUTS)}, 2),
    ):
        triton_.versions = versions
        await router.look()
        assert (router.serving and router.serving.version) == served


async def test_triton_is_reached_past_a_proxy_that_is_set_for_the_way_out(
    settings: Settings, fake: tuple[FakeTriton, grpc.aio.Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    fake[0].versions = {"1": (INPUTS, OUTPUTS)}
    channel = triton_channel(fake[0].target)
    router = Router(settings, channel)
    await router.look()
    assert router.serving is not None
    await channel.close()


async def test_a_restarted_triton_is_found_again(
    settings: Settings, fake: tuple[FakeTriton, grpc.aio.Channel]
) -> None:
    triton_, channel = fake
    router = Router(settings, channel)
    triton_.versions = {"1": (INPUTS, OUTPUTS)}
    await router.look()
    router.lost("told so")
    assert router.serving is None
    await router.look()
    assert router.serving is not None


@pytest.mark.parametrize(
    ("inputs", "outputs", "sentence"),
    [
        (
            INPUTS | {"mood": ("INT64", 1)},
            OUTPUTS,
            "it wants an input 'mood', which this gateway cannot fill",
        ),
        (INPUTS | {"history_keys": ("FP32", 4)}, OUTPUTS, "input 'history_keys' must be INT64, not FP32"),
        (
            INPUTS | {"history_keys": ("INT64", -1)},
            OUTPUTS,
            "tensor 'history_keys' must have the shape [-1, N]",
        ),
        (
            INPUTS | {"exclude_keys": ("INT64", 8)},
            OUTPUTS,
            "tensor 'exclude_keys' must have the shape [-1, -1]",
        ),
        (INPUTS, OUTPUTS[:2], "it lacks the output 'reason_keys'"),
    ],
)
async def test_a_version_that_does_not_fit_is_refused_with_the_reason_and_an_older_one_served(
    settings: Settings,
    fake: tuple[FakeTriton, grpc.aio.Channel],
    caplog: pytest.LogCaptureFixture,
    inputs: dict[str, tuple[str, int]],
    outputs: list[str],
    sentence: str,
) -> None:
    triton_, channel = fake
    router = Router(settings, channel)
    triton_.versions = {"1": (INPUTS, OUTPUTS), "2": (inputs, outputs)}
    await router.look()
    await router.look()
    assert router.serving is not None
    assert router.serving.version == 1
    assert f"version 2 is not served: {sentence}" in caplog.text


async def test_a_folder_whose_name_is_no_number_is_no_version(
    settings: Settings, fake: tuple[FakeTriton, grpc.aio.Channel]
) -> None:
    repository = settings.model_repository / "recommender"
    shutil.copytree(repository / "2", repository / "3.bak")
    assert Router(settings, fake[1]).catalog_version == 2


async def test_an_empty_repository_is_said_with_what_to_do(
    tmp_path: Path, fake: tuple[FakeTriton, grpc.aio.Channel]
) -> None:
    with pytest.raises(RoutingError, match=r"no published version; run make publish"):
        Router(Settings(model_repository=tmp_path), fake[1])
