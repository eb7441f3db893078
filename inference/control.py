"""Managing the model of a running Triton: load what `config.pbtxt` lists, ask which versions are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from features.settings import PREFIX, Settings
from inference.access import ADMIN_KEY, admin_token
from inference.errors import LoadFailed, NoAnswer, NotAllowed, NothingPublished
from inference.model_config import CONFIG, to_json, with_versions
from inference.repository import read_config

CALL_TIMEOUT_S = 10.0
LOAD_TIMEOUT_S = 600.0

READY = "READY"
"""Triton's word for a version that answers requests; others are LOADING, UNLOADING and UNAVAILABLE."""

_RESTRICTED = "This protocol is restricted"
"""How Triton begins its refusal of a call without the right token; its status code says nothing of it."""

_UNANSWERED = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
)


class ModelControl:
    """Manages the model in `model_folder` through `channel`, which stays the caller's to close."""

    def __init__(self, channel: grpc.aio.Channel, model_folder: Path, token: str) -> None:
        self.stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        """For calls that need no token."""
        self._model_folder = model_folder
        self._model = model_folder.name
        self._metadata = ((f"triton-grpc-protocol-{ADMIN_KEY}", token),)

    async def load(self, versions: Sequence[int] | None = None, *, timeout_s: float = LOAD_TIMEOUT_S) -> None:
        """Bring Triton to serve `versions`, or those that `config.pbtxt` lists: load what it lacks, let go of
        the rest.

        Returns when what it lacked is ready; a version that goes first answers what it has. It is all or
        nothing: if one cannot be loaded, those that were there stay, and no other comes. Versions that are
        there and stay are left alone, unless `config.pbtxt` differs in more than the list. One that is there
        is taken for well: if its process is dead, only letting go of it and loading it again helps.

        Raises:
            LoadFailed: a version could not be loaded; with Triton's reason.
            NoAnswer: Triton is gone, or has not ended within `timeout_s`.
            NotAllowed: the token is the wrong one.
            NothingPublished, UnfitModel: there is no `config.pbtxt`, or it cannot be read.
        """
        config = read_config(self._model_folder)
        if config is None:
            raise NothingPublished(f"{self._model_folder / CONFIG} does not exist; publish a version first")
        if versions is not None:
            config = with_versions(config, versions)
        request = service_pb2.RepositoryModelLoadRequest(model_name=self._model)
        # Handed over, not left to be read: if the file is older than Triton's last load, even a failed one,
        # Triton does nothing and calls that a success.
        request.parameters["config"].string_param = to_json(config)
        try:
            await self.stub.RepositoryModelLoad(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as exc:
            self._raise_unanswered(exc)
            reason = _sentence(exc.details() or exc.code().name).removeprefix(
                f"load failed for model '{self._model}': "
            )
            raise LoadFailed(f"Triton cannot load {self._model}: {reason}") from exc

    async def unload(self, *, timeout_s: float = LOAD_TIMEOUT_S) -> None:
        """Let go of all versions. Triton may still answer what it has when this returns.

        Raises:
            LoadFailed: Triton refuses; with its reason.
            NoAnswer, NotAllowed: see `load`.
        """
        request = service_pb2.RepositoryModelUnloadRequest(model_name=self._model)
        try:
            await self.stub.RepositoryModelUnload(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as exc:
            self._raise_unanswered(exc)
            reason = _sentence(exc.details() or exc.code().name)
            raise LoadFailed(f"Triton cannot unload {self._model}: {reason}") from exc

    async def states(self) -> dict[int, tuple[str, str]]:
        """Version → its state, and why it is not ready: of all that Triton has, had, or failed to load.

        Raises:
            NoAnswer, NotAllowed: see `load`.
        """
        try:
            answer = await self.stub.RepositoryIndex(
                service_pb2.RepositoryIndexRequest(), timeout=CALL_TIMEOUT_S, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as exc:
            self._raise_unanswered(exc)
            raise NoAnswer(f"Triton does not say which versions it has: {exc.details()}") from exc
        return {
            int(entry.version): (entry.state, _sentence(entry.reason))
            for entry in answer.models
            if entry.name == self._model and entry.version.isdecimal()
        }

    async def ready(self, version: int) -> bool:
        """Whether the version answers requests; False, too, if Triton cannot be reached."""
        request = service_pb2.ModelReadyRequest(name=self._model, version=str(version))
        try:
            answer = await self.stub.ModelReady(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.ready)

    def _raise_unanswered(self, error: grpc.aio.AioRpcError) -> None:
        details = error.details() or error.code().name
        if details.startswith(_RESTRICTED):
            raise NotAllowed(
                f"Triton refuses to be managed with this token; set {PREFIX}TRITON_ADMIN_TOKEN to the one "
                "that it was started with"
            ) from error
        if error.code() in _UNANSWERED:
            raise NoAnswer(f"Triton does not answer: {error.code().name} {details}") from error


def _sentence(reason: str) -> str:
    """What went wrong, on one line, without the hints and the places in the code that TensorFlow and Python
    add.
    """
    for addition in ("\n\nAt:\n", "\nHint: "):
        reason = reason.partition(addition)[0]
    return " ".join(reason.split()).rstrip(";")


def open_control(
    settings: Settings, channel: grpc.aio.Channel, model_name: str | None = None
) -> ModelControl:
    """The control of `model_name`, or of the model that `settings` name.

    Its token is the setting `triton_admin_token`, else that of the Triton which the launcher with these
    settings starts.

    Raises:
        UnfitEnvironment: the launcher's token file is empty.
    """
    token = settings.triton_admin_token or admin_token(settings)
    return ModelControl(channel, settings.model_repository / (model_name or settings.model_name), token)
