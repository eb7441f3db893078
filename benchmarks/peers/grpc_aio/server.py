"""A `grpc.aio` server that runs the model itself: one call, one run; or `--batched`, by our coalescer.

python -m benchmarks.peers.grpc_aio.server --port P --version FOLDER --store FOLDER [--batched]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import uvloop

from benchmarks.peers.pages import Asked, Best, Pages
from benchmarks.target import RECOMMEND
from client.riptide.v1 import recommender_pb2 as pb
from gateway.coalescer import Coalescer, Waiting

_MAX_BATCH = 64
_TIMEOUT_S = 20.0

Page = Callable[[Asked], Awaitable[Best]]


def unbatched(pages: Pages) -> Page:
    """Each call by itself, on the event loop: a thread would cost more than it gains."""

    async def page(asked: Asked) -> Best:
        return pages.best([asked], await pages.read([asked]))[0]

    return page


def batched(pages: Pages) -> Page:
    """Calls that come while the model runs are its next batch."""
    thread = ThreadPoolExecutor(1)

    async def answer(batch: Sequence[Waiting[Asked, Best]]) -> None:
        asked = [entry.asked for entry in batch]
        records = await pages.read(asked)
        found = await asyncio.get_running_loop().run_in_executor(thread, pages.best, asked, records)
        for entry, page in zip(batch, found, strict=True):
            if not entry.answer.done():
                entry.answer.set_result(page)

    coalescer: Coalescer[Asked, Best] = Coalescer(answer, max_batch=_MAX_BATCH)

    async def page(asked: Asked) -> Best:
        return await coalescer.submit(asked, _TIMEOUT_S)

    return page


async def _serve(port: int, pages: Pages, served: Callable[[Pages], Page]) -> None:
    page = served(pages)

    async def recommend(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        message = pb.RecommendRequest.FromString(request)
        return pages.as_lines(await page(Asked(message.user_id, message.limit)))

    service, method = RECOMMEND.strip("/").split("/")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                service, {method: grpc.unary_unary_rpc_method_handler(recommend)}
            ),
        )
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    gc.collect()
    gc.freeze()
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(0)


def main() -> None:
    """Serves until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.grpc_aio.server")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--version", type=Path, required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--batched", action="store_true")
    arguments = parser.parse_args()
    pages = Pages(arguments.version, arguments.store)
    uvloop.run(_serve(arguments.port, pages, batched if arguments.batched else unbatched))


if __name__ == "__main__":
    main()
