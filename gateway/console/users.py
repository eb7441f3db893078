"""Some users of the store, to choose from."""

from __future__ import annotations

import asyncio
import contextlib

import grpc

from features.settings import Settings
from features.store import FeatureStore, StoreUnavailable, open_store
from gateway.console.connect import ConnectError

MOST_USERS = 200
_TIMEOUT_S = 2.0


class Users:
    """Opens the store when it is first asked."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opening: asyncio.Task[FeatureStore] | None = None

    async def some(self) -> list[str]:
        """Up to `MOST_USERS` ids of users with a record, in no particular order.

        Raises:
            ConnectError: the store does not answer.
        """
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                store = await self._opened()
                return await store.sample_users(MOST_USERS)
        except (StoreUnavailable, TimeoutError) as error:
            raise ConnectError(
                grpc.StatusCode.UNAVAILABLE, "the feature store does not answer; try again"
            ) from error

    async def close(self) -> None:
        """Releases the store."""
        if self._opening is not None:
            with contextlib.suppress(StoreUnavailable):
                await (await self._opening).close()

    async def _opened(self) -> FeatureStore:
        if self._opening is None or (self._opening.done() and self._opening.exception() is not None):
            # Off the loop: it reads files, and imports what the store is made of.
            self._opening = asyncio.create_task(asyncio.to_thread(open_store, self._settings))
        # To the end, also when a caller's time is up: a process may open a store's folder once.
        return await asyncio.shield(self._opening)
