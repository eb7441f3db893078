"""What a call can end in, other than an answer.

RecommenderError            status, sentence
├── RequestRefused          INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE, UNAUTHENTICATED,
│   │                       PERMISSION_DENIED: repeating the call as it is will not help
│   └── NotFound            NOT_FOUND: nothing is known of this user or item
├── Exhausted               RESOURCE_EXHAUSTED: no room, for more calls at once (wait, then call again) or in
│                           the store (until its operator makes room); the sentence says which
├── Unavailable             UNAVAILABLE: the gateway answers, what it needs does not; wait, then call again
│   └── Unreachable         UNAVAILABLE: nothing listens at the address, or the gateway is stopping
├── DeadlineExceeded        DEADLINE_EXCEEDED: no answer in time; whether the call had its effect is not known
└── ServerFault             anything else: a defect of the gateway, see its log
"""

from __future__ import annotations

from grpc import StatusCode
from grpc.aio import AioRpcError

_REQUEST_ID = "x-request-id"


class RecommenderError(Exception):
    """A call that has no answer. `str()` is the server's sentence."""

    def __init__(self, status: StatusCode, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class RequestRefused(RecommenderError):
    """The request breaks a rule; the sentence names the field."""


class NotFound(RequestRefused):
    """Nothing is known of this user or item."""


class Exhausted(RecommenderError):
    """The gateway has no room: for another call now, or for what the call would store."""


class Unavailable(RecommenderError):
    """What the gateway needs for the call, the store for instance, does not answer."""


class Unreachable(Unavailable):
    """No gateway took the call."""


class DeadlineExceeded(RecommenderError):
    """The answer did not come in time."""


class ServerFault(RecommenderError):
    """The gateway failed."""


_BY_STATUS: dict[StatusCode, type[RecommenderError]] = {
    StatusCode.INVALID_ARGUMENT: RequestRefused,
    StatusCode.FAILED_PRECONDITION: RequestRefused,
    StatusCode.OUT_OF_RANGE: RequestRefused,
    StatusCode.UNAUTHENTICATED: RequestRefused,
    StatusCode.PERMISSION_DENIED: RequestRefused,
    StatusCode.NOT_FOUND: NotFound,
    StatusCode.RESOURCE_EXHAUSTED: Exhausted,
    StatusCode.UNAVAILABLE: Unavailable,
    StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}


def from_rpc(error: AioRpcError) -> RecommenderError:
    """The error of the tree above for what gRPC raised."""
    status = error.code()
    kind = _BY_STATUS.get(status, ServerFault)
    # gRPC says UNAVAILABLE too if it finds nobody. Only the gateway puts an id on what it says.
    if kind is Unavailable and _REQUEST_ID not in dict(error.trailing_metadata() or ()):
        kind = Unreachable
    return kind(status, error.details() or status.name)
