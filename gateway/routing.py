"""Which model version a call goes to.

The version is pinned on every call: left unpinned, Triton answers with the highest one that is ready, and two
calls of one page could meet different versions. The highest ready version is served; while Triton is down,
the catalogue of the version served last (at start: of the newest one published) feeds the fallback pages.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import grpc
from tritonclient.grpc import service_pb2 as triton
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from features.catalog import Catalog, CatalogError
from features.settings import Settings
from gateway.model_inputs import FILLABLE_INPUTS, FREE_WIDTH_INPUTS

_LOOK_INTERVAL_S = 0.25
_LOOK_TIMEOUT_S = 2.0
_REQUIRED_OUTPUTS = frozenset({"item_keys", "scores", "reason_keys", "user_vector"})

log = logging.getLogger("riptide.gateway.routing")


class RoutingError(Exception):
    """No version can be served: nothing is published, or a version does not fit this gateway."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a version's metadata."""

    datatype: str
    width: int
    """Values per row; 0: as many as the widest row of a call needs."""


@dataclass(frozen=True, slots=True, eq=False)
class ServingVersion:
    """A version that is ready in Triton, and the catalogue published with it."""

    name: str
    version: int
    inputs: dict[str, Tensor]
    catalog: Catalog


class Router:
    """Follows which version is ready in Triton. `look_for_good` runs beside the server."""

    def __init__(self, settings: Settings, channel: grpc.aio.Channel) -> None:
        """Opens the catalogue of the newest published version.

        Raises:
            RoutingError: no version is published, or its catalogue cannot be read.
        """
        self._folder = settings.model_repository / settings.model_name
        self._name = settings.model_name
        self._stub = GRPCInferenceServiceStub(channel)
        self._refused: set[int] = set()
        self.serving: ServingVersion | None = None
        """The version to call; None while Triton is down or has none ready."""
        folders = [path.parent.name for path in self._folder.glob("*/catalog.lmdb")]
        # As Triton does: a folder of another name, `1.bak` for instance, is no version.
        published = [int(name) for name in folders if name.isdecimal()]
        if not published:
            raise RoutingError(f"{self._folder}: no published version; run make publish")
        self.catalog_version = max(published)
        """The version whose catalogue `catalog` is."""
        self.catalog = self._open_catalog(self.catalog_version)
        """For titles, filters and fallback pages: of the serving version, or the one before Triton went."""

    @property
    def name(self) -> str:
        """The model's name in Triton."""
        return self._name

    async def look_for_good(self) -> None:
        """Looks again and again until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_INTERVAL_S)

    async def look(self) -> None:
        """Asks Triton once which versions are ready, and switches to the highest one that fits."""
        try:
            metadata = await self._stub.ModelMetadata(
                triton.ModelMetadataRequest(name=self._name), timeout=_LOOK_TIMEOUT_S
            )
            ready = {int(version) for version in metadata.versions}
            self._refused &= ready  # one that goes and comes back is looked at again
            if self.serving is not None and self.serving.version not in ready:
                self.lost(f"version {self.serving.version} is no longer in Triton")
            version = max(ready - self._refused, default=None)
            if version is not None and (self.serving is None or self.serving.version != version):
                await self._switch_to(version)
        except grpc.aio.AioRpcError as error:
            self._refused.clear()
            self.lost(error.details() or error.code().name)
        except (RoutingError, ValueError) as error:
            log.error("no version can be served: %s", error)

    def lost(self, reason: str) -> None:
        """Notes that Triton does not answer, until the next look finds it again."""
        if self.serving is not None:
            log.warning("model unavailable: %s", reason)
            self.serving = None

    async def _switch_to(self, version: int) -> None:
        metadata = await self._stub.ModelMetadata(
            triton.ModelMetadataRequest(name=self._name, version=str(version)), timeout=_LOOK_TIMEOUT_S
        )
        ready = await self._stub.ModelReady(
            triton.ModelReadyRequest(name=self._name, version=str(version)), timeout=_LOOK_TIMEOUT_S
        )
        if not ready.ready:
            return
        try:
            inputs = {tensor.name: _tensor(tensor) for tensor in metadata.inputs}
            _check_fit(inputs, {tensor.name for tensor in metadata.outputs})
        except RoutingError as error:
            self._refused.add(version)
            log.error("version %d is not served: %s", version, error)
            return
        # A catalogue that cannot be read may be there a moment later: it is tried again with the next look.
        catalog = self.catalog if version == self.catalog_version else self._open_catalog(version)
        # The old catalogue is not closed here: requests in flight still read it. It goes with them.
        self.catalog, self.catalog_version = catalog, version
        self.serving = ServingVersion(self._name, version, inputs, catalog)
        log.info("serving %s version %d", self._name, version)

    def _open_catalog(self, version: int) -> Catalog:
        try:
            return Catalog(self._folder / str(version) / "catalog.lmdb")
        except CatalogError as error:
            raise RoutingError(str(error)) from error


def _tensor(tensor: triton.ModelMetadataResponse.TensorMetadata) -> Tensor:
    shape = list(tensor.shape)
    # With batching Triton lists the batch dimension as -1, first.
    if tensor.name in FREE_WIDTH_INPUTS:
        if shape != [-1, -1]:
            raise RoutingError(f"tensor {tensor.name!r} must have the shape [-1, -1], not {shape}")
        return Tensor(tensor.datatype, 0)
    if len(shape) != 2 or shape[0] != -1 or shape[1] < 1:
        raise RoutingError(f"tensor {tensor.name!r} must have the shape [-1, N], not {shape}")
    return Tensor(tensor.datatype, shape[1])


def _check_fit(inputs: dict[str, Tensor], outputs: set[str]) -> None:
    for name, tensor in inputs.items():
        if name not in FILLABLE_INPUTS:
            raise RoutingError(f"it wants an input {name!r}, which this gateway cannot fill")
        if tensor.datatype != FILLABLE_INPUTS[name]:
            raise RoutingError(f"input {name!r} must be {FILLABLE_INPUTS[name]}, not {tensor.datatype}")
    if missing := _REQUIRED_OUTPUTS - outputs:
        raise RoutingError(f"it lacks the output {min(missing)!r}")
