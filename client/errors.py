"""What a call can end in, other than an answer.

RecommenderError            status, sentence
├── RequestRefused          INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE, UNAUTHENTICATED,
│   │                       PERMISSION_DENIED: repeating the call as it is will not help
│   └── NotFound            NOT_FOUND: nothing is known of this user or item
├── Overloaded              RESOURCE_EXHAUSTED: wait, then call again
├── Unreachable             UNAVAILABLE: nothing listens at the address, or the gateway is stopping
├── DeadlineExceeded        DEADLINE_EXCEEDED: no answer in time; whether the call had its effect is not known
└── ServerFault             anything else: a defect of the gateway, see its log
"""

from __future__ import annotations

from grpc import StatusCode
from grpc.aio import AioRpcError


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


class Overloaded(RecommenderError):
    """The gateway has more calls than it can take."""


class Unreachable(RecommenderError):
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
    StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    StatusCode.UNAVAILABLE: Unreachable,
    StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}


def from_rpc(error: AioRpcError) -> RecommenderError:
    """The error of the tree above for what gRPC raised."""
    status = error.code()
    return _BY_STATUS.get(status, ServerFault)(status, error.details() or status.name)
