"""The BentoML service: one worker, adaptive batching (https://docs.bentoml.com, "Adaptive batching")."""

from __future__ import annotations

import asyncio
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
        self.one_at_a_time = asyncio.Lock()

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=1000)
    async def recommend(self, request: list[Request]) -> list[dict[str, Any]]:
        """A batch of requests to their pages."""
        asked = [Asked(one.user_id, one.limit) for one in request]
        records = await self.pages.read(asked)
        # Off the event loop, which takes requests for the next batch meanwhile.
        async with self.one_at_a_time:
            pages = await asyncio.to_thread(self.pages.scored, asked, records)
        return [as_json(page) for page in pages]
