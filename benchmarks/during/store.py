"""The store is slow, several times for some seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import lmdb

from benchmarks.during.load import Load
from benchmarks.errors import BenchmarkError
from features.redis_address import Address, parse
from features.redis_client import RedisClient
from features.settings import Settings
from features.store import StoreError

_TIMES = 3
_HELD_S, _REST_S = 2.0, 3.0


class Brake(Protocol):
    """How a kind of store is made slow."""

    held: str
    released: str
    """What marks say of it."""

    def check(self) -> None:
        """Whether it works here.

        Raises:
            BenchmarkError: it does not.
        """

    def hold(self, seconds: float) -> AbstractContextManager[None]:
        """Holds the store up for so long, or until the block ends. Whatever becomes of this process, it goes
        on afterwards.

        Raises:
            BenchmarkError: it cannot.
        """


class LmdbBrake:
    """Holds the transaction of which LMDB has one for all processes: what writes waits, what reads does not.

    The kernel releases it if this process dies.
    """

    held, released = "writes to the store wait", "writes to the store go on"

    def __init__(self, folder: Path, map_bytes: int) -> None:
        self._folder, self._map_bytes = folder, map_bytes

    def check(self) -> None:
        if not (self._folder / "data.mdb").is_file():
            raise BenchmarkError(f"{self._folder}: there is no store; make up makes one")
        with self.hold(0.0):
            pass

    @contextmanager
    def hold(self, seconds: float) -> Iterator[None]:
        try:
            environment = lmdb.open(
                str(self._folder), map_size=self._map_bytes, create=False, max_readers=512, readahead=False
            )
        except lmdb.Error as error:
            raise BenchmarkError(f"{self._folder}: the store cannot be opened ({error})") from error
        try:
            transaction = environment.begin(write=True)
            try:
                yield
            finally:
                transaction.abort()
        finally:
            environment.close()


class RedisBrake:
    """Has the server answer nobody for a while (CLIENT PAUSE). It ends that by itself."""

    held, released = "the store answers nobody", "the store answers again"

    def __init__(self, address: Address) -> None:
        self._address = address

    def check(self) -> None:
        asyncio.run(self._pause(0.001))

    @contextmanager
    def hold(self, seconds: float) -> Iterator[None]:
        asyncio.run(self._pause(seconds))
        yield

    async def _pause(self, seconds: float) -> None:
        client = RedisClient(self._address)
        try:
            await client.of_servers(("CLIENT", "PAUSE", round(seconds * 1000), "ALL"))
        except StoreError as error:
            raise BenchmarkError(f"the store cannot be paused: {error}") from error
        finally:
            await client.close()


class SlowStore:
    """The store that the settings name."""

    promises_no_failure = False
    degrades = False

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def prepare(self) -> None:
        """Tries it out.

        Raises:
            BenchmarkError: it does not work here.
        """
        self._brake = brake_of(self._settings)
        self._brake.check()

    def happen(self, load: Load) -> list[str]:
        """Several times."""
        for number in range(_TIMES):
            if number:
                load.wait(_REST_S)
            with self._brake.hold(_HELD_S):
                load.mark(self._brake.held)
                load.wait(_HELD_S)
            load.mark(self._brake.released)
        return []


def brake_of(settings: Settings) -> Brake:
    """That of the store which the settings name.

    Raises:
        BenchmarkError: they name none.
    """
    folder = settings.store_folder
    if folder is not None:
        return LmdbBrake(folder, settings.store_map_gib << 30)
    try:
        return RedisBrake(parse(settings.store))
    except StoreError as error:
        raise BenchmarkError(str(error)) from error
