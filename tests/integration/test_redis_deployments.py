"""Ways to run it: an ACL user, TLS, a primary that Sentinels name, a Cluster that changes under way."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from redis.crc import key_slot

from features.control import Document, Exposure
from features.record import CachedAnswer, Event
from features.redis_address import parse
from features.redis_keys import of_user
from features.redis_store import RedisStore
from features.schema import EventType, item_key
from features.store import StoreUnavailable
from tests.ports import free_ports
from tests.valkey import Sentinel, Valkey, cluster, one_server, running

PASSWORD = "s3cret"
# As in docs/decisions/0021.
RULES = (
    "resetkeys ~riptide:* resetchannels -@all +get +mget +set +del +exists +hset +hsetnx +hget +hvals"
    " +hgetall +hdel +evalsha +eval +scan +info +wait +select +ping +asking +cluster|slots"
)


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with one_server(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisStore]:
    store = RedisStore(parse(url), history_cap=20)
    try:
        yield store
    finally:
        await store.close()


def click(user: str, item: str = "x", time: int = 1) -> Event:
    return Event(user, item, EventType.CLICK, time)


async def again_and_again(call: Callable[[], Awaitable[object]], limit_s: float = 60) -> None:
    """Until it succeeds."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            await call()
            return
        except StoreUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


async def use_all_of(store: RedisStore) -> None:
    """Every method of both contracts, once."""
    control = store.control
    await store.append([click("u"), click("v")])
    await store.append([click("u")], leave_out_excluded=True)
    await store.set_attributes({"u": {"gender": "F"}})
    [record] = await store.read(["u"])
    empty = np.empty(0, np.int64)
    await store.put_answers({"u": CachedAnswer(1, record.revision, 1, np.ones(2, np.float32), empty, False)})
    assert await control.replace_document("d", b"one", 0)
    assert await control.read_document("d") == Document(1, b"one")
    await control.put_report("one", b"report")
    assert await control.reports() == {"one": b"report"}
    await control.drop_reports(["one"])
    await control.log_exposures([Exposure("u", "e/a", 5)])
    assert await control.exposures("e") == await control.exposures_of("u") == [Exposure("u", "e/a", 5)]
    assert await store.forget("v")
    assert await store.is_excluded("v")
    assert await store.excluded_users() == {"v"}
    assert await store.sample_users(9) == ["u"]
    await store.mark_loaded("data")
    assert await store.loaded_data() == "data"


async def test_a_user_with_the_permissions_that_are_documented_can_do_all_and_nothing_else(
    valkey: Valkey, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    valkey.ask("ACL", "SETUSER", "riptide", "on", f">{PASSWORD}", *RULES.split())
    (tmp_path / "password").write_text(PASSWORD)
    async with opened(
        f"redis://riptide@{valkey.address}/3?password_file={tmp_path}/password&timeout_ms=5000"
    ) as store:
        await use_all_of(store)
    assert valkey.ask("DBSIZE") == 0  # it is in database 3
    for wrong in (f"redis://riptide:wrong@{valkey.address}", f"redis://nobody:{PASSWORD}@{valkey.address}"):
        async with opened(f"{wrong}?timeout_ms=5000") as store:
            with pytest.raises(StoreUnavailable, match="wrong user or password") as refused:
                await store.read(["u"])
            assert PASSWORD not in str(refused.value)
    assert PASSWORD not in caplog.text


async def test_what_an_acl_forbids_is_named(valkey: Valkey) -> None:
    valkey.ask("ACL", "SETUSER", "reader", "on", f">{PASSWORD}", "~riptide:*", "-@all", "+get", "+mget")
    async with opened(f"redis://reader:{PASSWORD}@{valkey.address}?timeout_ms=5000") as store:
        await store.read(["u"])
        with pytest.raises(StoreUnavailable, match=r"refuses.*evalsha"):
            await store.append([click("u")])


# TLS: the wheel's server is built without, so a proxy that ends it stands before it.


_NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"


class Authority:
    """Certificates, made by openssl."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        made = f"-keyout {folder}/ca.key -out {folder}/ca.pem"
        self._openssl(f"req -x509 {_NEW_KEY} -days 2 -subj /CN=ca {made}")

    def certify(self, name: str, alternative: str) -> None:
        """Writes `NAME.pem` and `NAME.key`."""
        path = self.folder / name
        self._openssl(f"req {_NEW_KEY} -subj /CN={name} -keyout {path}.key -out {path}.csr")
        Path(f"{path}.ext").write_text(f"subjectAltName={alternative}\n")
        ours = f"-CA {self.folder}/ca.pem -CAkey {self.folder}/ca.key -CAcreateserial"
        self._openssl(f"x509 -req -in {path}.csr {ours} -days 2 -extfile {path}.ext -out {path}.pem")

    def _openssl(self, arguments: str) -> None:
        subprocess.run(["openssl", *arguments.split()], check=True, capture_output=True)


def tls_before(valkey: Valkey, authority: Authority, name: str) -> AbstractAsyncContextManager[str]:
    """The address at which the server is reached by who shows a certificate of the authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.folder / "ca.pem")
    context.load_cert_chain(authority.folder / f"{name}.pem", authority.folder / f"{name}.key")
    context.verify_mode = ssl.CERT_REQUIRED
    return before(valkey, context)


@asynccontextmanager
async def before(
    valkey: Valkey, context: ssl.SSLContext | None = None, *, delay_s: float = 0
) -> AsyncIterator[str]:
    """The address of a proxy; each connection through it begins after `delay_s`."""
    pumps: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(delay_s)
        behind = await asyncio.open_connection("127.0.0.1", valkey.port)
        pumps.update(
            {asyncio.create_task(pump(reader, behind[1])), asyncio.create_task(pump(behind[0], writer))}
        )

    [port] = free_ports(1)
    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=context)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.close()
        await asyncio.gather(*pumps)


async def test_tls_with_certificates_of_both_sides(valkey: Valkey, tmp_path: Path) -> None:
    valkey.ask("FLUSHALL")
    authority = Authority(tmp_path)
    authority.certify("server", "IP:127.0.0.1")
    authority.certify("elsewhere", "DNS:elsewhere.example")
    authority.certify("gateway", "DNS:gateway.example")
    ours = f"ca={tmp_path}/ca.pem&cert={tmp_path}/gateway.pem&key={tmp_path}/gateway.key&timeout_ms=5000"
    async with tls_before(valkey, authority, "server") as address:
        async with opened(f"rediss://{address}?{ours}") as store:
            await use_all_of(store)
        async with opened(f"rediss://{address}?timeout_ms=5000") as store:
            with pytest.raises(StoreUnavailable, match="certificate"):
                await store.read(["u"])
    async with (
        tls_before(valkey, authority, "elsewhere") as address,
        opened(f"rediss://{address}?{ours}") as store,
    ):
        with pytest.raises(StoreUnavailable, match="certificate"):
            await store.read(["u"])


async def test_a_server_to_which_connecting_takes_longer_than_a_call_may_is_reached_all_the_same(
    tmp_path: Path,
) -> None:
    with one_server(tmp_path, password=PASSWORD) as valkey:
        async with (
            before(valkey, delay_s=0.5) as address,
            opened(f"redis://:{PASSWORD}@{address}?timeout_ms=100") as store,
        ):
            with pytest.raises(StoreUnavailable, match="within 100 ms"):
                await store.read(["u"])
            await again_and_again(lambda: store.read(["u"]), 10)


@pytest.mark.parametrize("death", [Valkey.kill, Valkey.hang])
async def test_when_the_primary_dies_its_replica_takes_over_with_what_was_confirmed(
    tmp_path: Path, death: Callable[[Valkey], None]
) -> None:
    with one_server(tmp_path / "one") as primary, one_server(
        tmp_path / "two", "--replicaof", "127.0.0.1", str(primary.port)
    ) as replica:  # fmt: skip
        sentinel = Sentinel.of(primary, tmp_path / "sentinel")
        [dead] = free_ports(1)
        with running([sentinel]):
            url = f"redis+sentinel://127.0.0.1:{dead},{sentinel.address}/main?timeout_ms=300&replicas=1"
            async with opened(url) as store:
                await again_and_again(lambda: store.append([click("u")]))
                # The one that takes over must be known before it is needed.
                await until(lambda: str(replica.port) in str(sentinel.ask("SENTINEL", "REPLICAS", "main")))
                # More connections than one, all of which lead to the one that dies.
                await asyncio.gather(*(store.read(["u"]) for _ in range(40)))
                death(primary)
                with pytest.raises(StoreUnavailable):
                    await store.read(["u"])
                # Not only after each of its connections has failed a call of its own, one a second.
                await again_and_again(lambda: store.read(["u"]), 20)
                [record] = await store.read(["u"])
                assert record.keys.tolist() == [item_key("x")]
            async with opened(url.replace("&replicas=1", "")) as store:
                await again_and_again(lambda: store.append([click("u", "y", 2)]))
                [record] = await store.read(["u"])
                assert record.keys.tolist() == [item_key("x"), item_key("y")]


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_call_follows_a_slot_that_moves_to_another_server(tmp_path: Path) -> None:
    with cluster(tmp_path) as servers:
        async with opened(f"redis+cluster://{servers[0].address}?timeout_ms=5000") as store:
            users = [f"user-{n}" for n in range(40)]
            await store.append([click(user) for user in users])
            key = of_user("u", users[0])
            slot = key_slot(key)
            ids = [server.ask("CLUSTER", "MYID").decode() for server in servers]
            [old] = [n for n, server in enumerate(servers) if server.ask("CLUSTER", "COUNTKEYSINSLOT", slot)]
            new = (old + 1) % len(servers)
            source, target = servers[old], servers[new]
            target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[old])
            source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[new])
            assert (await store.append([click(users[0], "y", 2)])).recorded == 1  # still at the source
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", key)
            # ASK: the key is at the target, the slot not yet.
            assert (await store.append([click(users[0], "z", 3)])).recorded == 1
            assert [len(record.keys) for record in await store.read(users)] == [3] + [1] * 39
            for server in (target, source, servers[(old + 2) % len(servers)]):
                server.ask("CLUSTER", "SETSLOT", slot, "NODE", ids[new])
            assert (await store.append([click(users[0], "a", 4)])).recorded == 1
            assert [len(record.keys) for record in await store.read(users)] == [4] + [1] * 39
            assert target.ask("EXISTS", key) == 1
            # It asked the wrong server once, and has learned from that.
            assert b"errorstat_MOVED:count=1\r" in source.ask("INFO", "errorstats")


async def test_a_cluster_of_which_one_server_dies_fails_whole_and_comes_back_with_it(tmp_path: Path) -> None:
    with cluster(tmp_path) as servers:
        async with opened(f"redis+cluster://{servers[0].address}?timeout_ms=300") as store:
            users = [f"user-{n}" for n in range(40)]
            await again_and_again(lambda: store.append([click(user) for user in users]))
            servers[0].kill()
            for call in (
                lambda: store.read(users),
                lambda: store.append([click(user, "y", 2) for user in users]),
            ):
                with pytest.raises(StoreUnavailable):
                    await call()
            servers[0].start()
            # What a half append has left out, its repetition adds.
            await again_and_again(lambda: store.append([click(user, "y", 2) for user in users]))
            assert [len(record.keys) for record in await store.read(users)] == [2] * 40


@pytest.mark.parametrize("death", [Valkey.kill, Valkey.hang])
async def test_when_a_server_of_a_cluster_dies_its_replica_takes_over(
    tmp_path: Path, death: Callable[[Valkey], None]
) -> None:
    quick = ("--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no")
    with cluster(tmp_path, *quick, replicas_of_first=1) as servers:
        first, replica = servers[0], servers[-1]
        url = f"redis+cluster://{first.address},{servers[1].address}?timeout_ms=300&replicas=0"
        async with opened(url) as store:
            users = [f"user-{n}" for n in range(40)]
            await again_and_again(lambda: store.append([click(user) for user in users]))
            await until(lambda: replica.ask("DBSIZE") == first.ask("DBSIZE") > 0)
            # Twenty at once, so that there are connections to the one that dies, and not just one.
            await again_and_again(lambda: asyncio.gather(*(store.read(users) for _ in range(20))))
            death(first)
            await again_and_again(lambda: store.read(users))
            assert [len(record.keys) for record in await store.read(users)] == [1] * 40
            await again_and_again(lambda: store.append([click(user, "y", 2) for user in users]))
            assert [len(record.keys) for record in await store.read(users)] == [2] * 40


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
async def test_a_server_that_is_of_another_kind_says_so(valkey: Valkey, kind: str) -> None:
    service = "/main" if kind == "sentinel" else ""
    async with opened(f"redis+{kind}://{valkey.address}{service}?timeout_ms=5000") as store:
        with pytest.raises(StoreUnavailable, match="RIPTIDE_STORE"):
            await store.read(["u"])
