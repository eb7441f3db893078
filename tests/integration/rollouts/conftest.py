"""Deployments on the tiny model that tests roll versions out in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from inference.environment import Interpreter
from tests.integration.conftest import settings_below
from tests.integration.rollouts.deployment import Deployment
from tests.integration.rollouts.kinds import KINDS
from tests.integration.tiny_variant import write_exports


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """An export of every kind, by its name; read only."""
    folder = tmp_path_factory.mktemp("kinds")
    write_exports({folder / kind: variant for kind, variant in KINDS.items()})
    return {kind: folder / kind for kind in KINDS}


@pytest.fixture
async def deployment(
    exports: Mapping[str, Path], interpreter: Interpreter, tmp_path: Path
) -> AsyncIterator[Deployment]:
    """A deployment with version 1 published and two gateway workers, none of them started yet."""
    settings = settings_below(tmp_path).model_copy(update={"workers": 2})
    deployment = Deployment(settings, exports, interpreter)
    try:
        await deployment.prepare()
        yield deployment
    finally:
        await deployment.store.close()
