"""Stands for the gateway: /readyz, DescribeUser and Recommend. Its model is there at the second question.

It waits for the test's word before it ends, if the test says so.
"""

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import grpc.aio

from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import RecommenderServicer, add_RecommenderServicer_to_server


class Recommender(RecommenderServicer):
    async def DescribeUser(self, request, context):
        events = [pb.DescribedEvent(item_id="i1", title="Alien [1979]", type=pb.EVENT_TYPE_RATE, time=1)]
        return pb.DescribeUserResponse(user_id=request.user_id, events=events)

    async def Recommend(self, request, context):
        reason = pb.Reason(item_id="i1", title="Alien [1979]")
        item = pb.RecommendedItem(item_id="i2", rank=1, title="Aliens", reason=reason)
        return pb.RecommendResponse(
            items=[item],
            model=pb.ModelVersion(name="recommender", version=1),
            degraded=os.environ.get("FAKE_DEGRADED"),
        )


MODEL = iter(["NOT_SERVING"])


async def http(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    model = os.environ.get("FAKE_MODEL") or next(MODEL, "SERVING")
    body = json.dumps({"gateway": "SERVING", "model": model}).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
    await writer.drain()
    writer.close()


async def main():
    end, loop = asyncio.Event(), asyncio.get_running_loop()
    # Not the handler of the loop, which goes with it: when a parent dies, Linux may say so more than once.
    signal.signal(signal.SIGTERM, lambda *_: end.is_set() or loop.call_soon_threadsafe(end.set))
    server = grpc.aio.server()
    add_RecommenderServicer_to_server(Recommender(), server)
    server.add_insecure_port(f"127.0.0.1:{os.environ['RIPTIDE_GRPC_PORT']}")
    await server.start()
    await asyncio.start_server(http, "127.0.0.1", int(os.environ["RIPTIDE_HTTP_PORT"]))
    await end.wait()
    await server.stop(1)


asyncio.run(main())
while os.environ.get("FAKE_GATEWAY") == "slow" and not Path("gateway-may-end").exists():
    time.sleep(0.02)
with Path("ended").open("a") as log:
    log.write("gateway\n")
