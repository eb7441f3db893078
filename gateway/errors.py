"""What can go wrong in the gateway, and the gRPC status that a caller sees.

    GatewayError
    ├── InvalidRequest    INVALID_ARGUMENT     a field breaks a limit; the sentence begins with its name
    ├── NotFound          NOT_FOUND            the item or user that the call is about is unknown
    ├── NotAnOperator     UNAUTHENTICATED      it asks for a version without the operator's token
    ├── NotLoaded         FAILED_PRECONDITION  the version that an operator asks for cannot be called
    ├── Overloaded        RESOURCE_EXHAUSTED   the worker has as many calls in flight as it may
    └── ModelUnavailable  (never seen)         Recommend answers with a fallback page instead
        └── VersionGone   (never seen)         Recommend asks the stable version, if that is another one

Errors of other layers: StoreFull → RESOURCE_EXHAUSTED, StoreUnavailable → UNAVAILABLE, TimeoutError →
DEADLINE_EXCEEDED, anything else → INTERNAL. These have fixed texts; details are in the log only,
which has one line a second of each kind (`logs.Sparing`).
"""

from __future__ import annotations

import grpc

from features.store import StoreFull, StoreUnavailable


class GatewayError(Exception):
    """Base of the errors of the gateway."""


class InvalidRequest(GatewayError):
    """A field of the request breaks a limit of the contract."""

    def __init__(self, field: str, sentence: str) -> None:
        """`field` as written in the .proto, with its index if repeated; `sentence`: what would be right."""
        super().__init__(f"{field}: {sentence}")


class NotFound(GatewayError):
    """The item or user that the call is about is unknown."""


class NotAnOperator(GatewayError):
    """The call asks for a version, and its token is missing or wrong."""


class NotLoaded(GatewayError):
    """The version that an operator asks for cannot be called."""


class Overloaded(GatewayError):
    """The worker has as many calls in flight as it may."""


class ModelUnavailable(GatewayError):
    """Triton did not answer, or not in time, or with something that is no answer."""


class VersionGone(ModelUnavailable):
    """The version that the call was pinned to is not, or no longer, ready in Triton."""


_OWN_WORDS: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (NotAnOperator, grpc.StatusCode.UNAUTHENTICATED),
    (NotLoaded, grpc.StatusCode.FAILED_PRECONDITION),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
)
_FIXED_WORDS: tuple[tuple[type[Exception], grpc.StatusCode, str], ...] = (
    (StoreFull, grpc.StatusCode.RESOURCE_EXHAUSTED, "the feature store is full; nothing was stored"),
    (StoreUnavailable, grpc.StatusCode.UNAVAILABLE, "the feature store does not answer; try again"),
    (TimeoutError, grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed"),
)


FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""Statuses that are the service's fault, as OpenTelemetry's conventions for RPC have it."""


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """The status and the sentence that the caller gets for `error`."""
    for kind, code in _OWN_WORDS:
        if isinstance(error, kind):
            return code, str(error)
    for kind, code, sentence in _FIXED_WORDS:
        if isinstance(error, kind):
            return code, sentence
    return grpc.StatusCode.INTERNAL, "internal error; the gateway's log has the details of such errors"
