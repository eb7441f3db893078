"""A synthetic export, which takes seconds to make."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.synthetic_export import config_of, write_export
from benchmarks.synthetic_world import World, make_world

ITEMS, HISTORY = 500, 12


@pytest.fixture(scope="session")
def world() -> World:
    """A small one."""
    return make_world(ITEMS)


@pytest.fixture(scope="session")
def export(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export folder of a small model of that world."""
    folder = tmp_path_factory.mktemp("synthetic") / "export"
    write_export(config_of(ITEMS, "small", HISTORY), world, folder)
    return folder
