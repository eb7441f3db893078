"""The version that an operator asks for, in the metadata of a `Recommend` call."""

from __future__ import annotations

import hmac
from collections.abc import Collection
from pathlib import Path

from features.operator_token import TOKEN_METADATA, VERSION_METADATA, operator_token
from gateway.errors import InvalidRequest, NotAnOperator, NotLoaded
from gateway.routing import Router

_MOST_DIGITS = 18  # of a version number: Triton's are 64 bits wide


class Pins:
    """Reads and checks what operators ask for."""

    def __init__(self, router: Router, state_dir: Path) -> None:
        self._router = router
        self._state_dir = state_dir

    def asked(self, metadata: Collection[tuple[str, str | bytes]]) -> int | None:
        """The version that a call asks for, which can be called; None if it asks for none.

        Of several entries of one name the last counts.

        Raises:
            NotAnOperator: without the operator's token.
            InvalidRequest: for something that is no version number.
            NotLoaded: for a version that cannot be called.
            TokenError, OSError: the deployment's token cannot be read.
        """
        given = dict(metadata)
        if VERSION_METADATA not in given:
            return None
        return self._checked(str(given[VERSION_METADATA]), given.get(TOKEN_METADATA, ""))

    def _checked(self, version: str, token: str | bytes) -> int:
        given = token.encode() if isinstance(token, str) else token
        # Read for each such call: there are few, and a token that was replaced holds at once.
        if not hmac.compare_digest(given, operator_token(self._state_dir).encode()):
            raise NotAnOperator(
                f"{TOKEN_METADATA}: must be this deployment's, for {VERSION_METADATA} to be heard"
            )
        if not (version.isdecimal() and len(version) <= _MOST_DIGITS):
            raise InvalidRequest(VERSION_METADATA, f"must be the number of a version, not {version[:40]!r}")
        number = int(version)
        if number in self._router.ready:
            return number
        if reason := self._router.refused.get(number):
            raise NotLoaded(f"{VERSION_METADATA}: version {number} cannot be called: {reason}")
        loaded = ", ".join(map(str, sorted(self._router.ready))) or "none"
        raise NotLoaded(f"{VERSION_METADATA}: version {number} is not loaded; loaded are {loaded}")
