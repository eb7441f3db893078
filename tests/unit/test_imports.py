"""Who may import whom. A package may import itself, what its row names, and third parties."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "client": set[str](),
    "features": set[str](),
    "gateway": {"client", "features"},
    "training": {"features"},
    "inference": {"features"},
    "rollout": {"client", "features", "inference"},
    "loadtest": {"client"},
    # It compares what is served with what was trained, and with servers of its own (benchmarks/peers) that
    # run the same SavedModel and make the same page. A service level is read as the load test reads it.
    "benchmarks": {"client", "features", "gateway", "inference", "loadtest", "training"},
    "stack": {"client", "features"},
}
# How a process is configured is one file for all: these read it though their package does not use features.
READS_SETTINGS = {"client/__main__.py", "loadtest/_caller.py"}

# One calls the model on the way of a request; the other asks, beside it, which versions there are.
SPEAKS_TO_TRITON = {"gateway/scorer.py", "gateway/versions.py"}

# The modules of one store; no other knows what it is made of.
REDIS = "features/redis_"

TENSORFLOW = {"tensorflow", "keras"}
TENSORFLOW_FOLDERS = ("training/", "inference/tensorflow_backend/")


def imports(source: str, package: tuple[str, ...]) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it; `package` is the one it stands in."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            # `from features import settings` imports features.settings.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def broken_rules(path: str, source: str) -> list[str]:
    """The rules that a module breaks; `path` is relative to the root, with slashes."""
    parts = tuple(path.split("/"))
    ours = parts[0]
    broken = []
    for name in imports(source, parts[:-1]):
        top = name.split(".")[0]
        if top in MAY_IMPORT and top != ours and top not in MAY_IMPORT[ours]:
            if name.startswith("features.settings.") and path in READS_SETTINGS:
                continue
            broken.append(f"{path} imports {name}: {ours} may import only {sorted(MAY_IMPORT[ours])}")
        if top in TENSORFLOW and not path.startswith(TENSORFLOW_FOLDERS):
            broken.append(f"{path} imports {name}: only {TENSORFLOW_FOLDERS} may")
        if top == "redis" and not path.startswith(REDIS):
            broken.append(f"{path} imports {name}: only {REDIS}*.py may")
        if ours == "gateway" and top == "tritonclient" and path not in SPEAKS_TO_TRITON:
            broken.append(f"{path} imports {name}: only {sorted(SPEAKS_TO_TRITON)} speak to Triton")
    return broken


def modules() -> list[str]:
    found = [path.relative_to(ROOT).as_posix() for top in MAY_IMPORT for path in (ROOT / top).rglob("*.py")]
    return sorted(path for path in found if "/riptide/v1/recommender_pb2" not in path)


def test_every_package_is_looked_at() -> None:
    assert {path.split("/")[0] for path in modules()} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", modules())
def test_a_module_imports_only_what_it_may(path: str) -> None:
    assert broken_rules(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("gateway/page.py", "import training.model"),
        ("gateway/page.py", "def f():\n    from rollout import publish"),
        ("gateway/page.py", "from tritonclient import grpc"),
        ("gateway/page.py", "import tensorflow as tf"),
        ("client/client.py", "from features.settings import load_settings"),
        ("training/train.py", "from ..gateway import page"),
        ("loadtest/locustfile.py", "from features.schema import item_key"),
        ("inference/server.py", "import keras"),
        ("features/store.py", "from redis.asyncio import Redis"),
        ("gateway/worker.py", "import redis"),
    ],
)
def test_a_forbidden_import_is_found(path: str, source: str) -> None:
    assert broken_rules(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("gateway/scorer.py", "import tritonclient.grpc"),
        ("gateway/page.py", "from . import scorer"),
        ("rollout/publish.py", "from inference.launcher import find"),
        ("client/__main__.py", "from features.settings import load_settings"),
        ("inference/tensorflow_backend/model.py", "import tensorflow as tf"),
        ("features/redis_link.py", "from redis.asyncio import ConnectionPool"),
    ],
)
def test_an_allowed_import_is_let_through(path: str, source: str) -> None:
    assert not broken_rules(path, source)
