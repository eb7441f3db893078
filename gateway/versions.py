"""The versions that are ready in Triton and fit this gateway, each with the catalogue published with it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from weakref import WeakValueDictionary

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as triton
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from features.catalog import Catalog, CatalogError
from features.settings import Settings
from gateway.fit import Said, Tensor, Unfit, fitting_inputs, read_manifest

_LOOK_TIMEOUT_S = 2.0

log = logging.getLogger("riptide.gateway.versions")


@dataclass(frozen=True, slots=True, eq=False)
class ServingVersion:
    """A version that is ready in Triton, and the catalogue published with it."""

    name: str
    version: int
    inputs: dict[str, Tensor]
    """What it is sent, and no more."""
    catalog: Catalog
    attributes: tuple[str, ...] = ()
    """Names of the user attributes that it takes, in the order of `user_features`."""
    consumes: NDArray[np.bool_] | None = None
    """Events of which types keep their item from being recommended: see `UserRecord.consumed`."""
    counts: NDArray[np.bool_] | None = None
    """Events of which types are the history that it reads: see `UserRecord.counting`."""
    max_lag_s: float = 0.0
    """By how many seconds a user's vector may lag; 0: not at all. See `freshness`."""


class Versions:
    """What there is to call, as of the last `look`."""

    def __init__(self, settings: Settings, channel: grpc.aio.Channel) -> None:
        """Looks at nothing yet."""
        self._settings = settings
        self.name = settings.model_name
        """The model's name in Triton."""
        self.folder = settings.model_repository / settings.model_name
        self.ready: dict[int, ServingVersion] = {}
        """By version number."""
        self.refused: dict[int, str] = {}
        """Those that are ready in Triton and cannot be called, and why."""
        self._stub = GRPCInferenceServiceStub(channel)
        # Weak: a catalogue goes with the last request that reads it. Until then a version that comes back
        # shares it: LMDB opens a file once per process.
        self._catalogs: WeakValueDictionary[int, Catalog] = WeakValueDictionary()

    def published(self) -> list[int]:
        """Versions in the repository that have a catalogue, the newest first."""
        folders = (path.parent.name for path in self.folder.glob("*/catalog.lmdb"))
        # As Triton does: a folder of another name, `1.bak` for instance, is no version.
        return sorted((int(name) for name in folders if name.isdecimal()), reverse=True)

    def catalog(self, version: int) -> Catalog:
        """The catalogue of a version, opened if it is not open.

        Raises:
            CatalogError: it cannot be read.
        """
        catalog = self._catalogs.get(version)
        if catalog is None:
            catalog = self._catalogs[version] = Catalog(self.folder / str(version) / "catalog.lmdb")
        return catalog

    def consumes(self, version: int) -> NDArray[np.bool_] | None:
        """`ServingVersion.consumes` of a version that need not be ready; None, too, if nothing says it."""
        try:
            return self._said(version).consumes
        except Unfit:
            return None

    async def look(self) -> None:
        """Asks Triton which versions are ready, takes up new ones and drops those that are gone."""
        try:
            metadata = await self._stub.ModelMetadata(
                triton.ModelMetadataRequest(name=self.name), timeout=_LOOK_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            self.refused.clear()
            for version in list(self.ready.values()):
                self.drop(version, error.details() or error.code().name)
            return
        listed = {int(number) for number in metadata.versions}
        for number in self.refused.keys() - listed:
            del self.refused[number]
        for number in self.ready.keys() - listed:
            self.drop(self.ready[number], "it is no longer in Triton")
        for number in sorted(listed - self.ready.keys()):
            await self._take_up(number)

    def drop(self, version: ServingVersion, reason: str) -> None:
        """Notes that a version cannot be called, until a look finds it ready again."""
        if self.ready.get(version.version) is version:
            log.info("version %d is not called any longer: %s", version.version, reason)
            del self.ready[version.version]

    async def _take_up(self, number: int) -> None:
        try:
            metadata = await self._stub.ModelMetadata(
                triton.ModelMetadataRequest(name=self.name, version=str(number)), timeout=_LOOK_TIMEOUT_S
            )
            answer = await self._stub.ModelReady(
                triton.ModelReadyRequest(name=self.name, version=str(number)), timeout=_LOOK_TIMEOUT_S
            )
        except grpc.aio.AioRpcError:
            return  # it went meanwhile, or all did: the next look tells
        if not answer.ready:
            return
        try:
            said = self._said(number)
            inputs = fitting_inputs(
                {tensor.name: (tensor.datatype, tensor.shape) for tensor in metadata.inputs},
                {tensor.name for tensor in metadata.outputs},
                said,
            )
            self.ready[number] = ServingVersion(
                self.name,
                number,
                inputs,
                self.catalog(number),
                said.attributes,
                said.consumes,
                said.counts,
                self._max_lag_s(said),
            )
        except (Unfit, CatalogError) as error:
            # It is tried again with each look: files that cannot be read may be there a moment later.
            if self.refused.get(number) != str(error):
                log.error("version %d is not served: %s", number, error)
            self.refused[number] = str(error)
            return
        self.refused.pop(number, None)
        log.info("version %d is ready", number)

    def _max_lag_s(self, said: Said) -> float:
        policy = self._settings.freshness
        bounded = policy == "bounded" or (policy == "auto" and said.vectors_may_lag)
        return self._settings.freshness_max_lag_s if bounded else 0.0

    def _said(self, number: int) -> Said:
        return read_manifest(self.folder / str(number) / "manifest.json")
