"""The BentoML service: one worker, adaptive batching (https://docs.bentoml.com, "Adaptive batching")."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bentoml
from pydantic import BaseModel

from benchmarks.peers.pages import Asked, Pages, as_json

VERSION, STORE = "BENCHMARK_VERSION", "BENCHMARK_STORE"
"""Environment variables with the folders: BentoML makes the service itself, without arguments."""


class Request(BaseModel):
    """One JSON body."""

    user_id: str
    limit: int


@bentoml.service(
    workers=1,
    traffic={"timeout": 20, "concurrency": 64},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Recommender:
    """Pages."""

    def __init__(self) -> None:
        self.pages = Pages(Path(os.environ[VERSION]), Path(os.environ[STORE]))

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=1000)
    async def recommend(self, request: list[Request]) -> list[dict[str, Any]]:
        """A batch of requests to their pages."""
        asked = [Asked(one.user_id, one.limit) for one in request]
        return [as_json(page) for page in self.pages.scored(asked, await self.pages.read(asked))]
