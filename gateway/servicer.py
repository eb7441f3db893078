"""The gRPC edge: who may come in, and what a call ends with. The statuses are in `errors`."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from itertools import count
from typing import Any, TypeAlias

import grpc
from google.protobuf import message_factory

from client.riptide.v1 import recommender_pb2 as pb
from features.operator_token import VERSION_METADATA
from gateway.errors import FAULTS, Overloaded, status_of
from gateway.methods import Answer, Call, Context, Metadata, Methods
from gateway.metrics import Metrics
from gateway.tracing import Trace, Tracing
from gateway.validation import check_request_id

SERVICE = pb.DESCRIPTOR.services_by_name["Recommender"]

Handle: TypeAlias = Callable[[Any, Call], Awaitable[Answer]]

log = logging.getLogger("riptide.gateway.calls")


class Recommender:
    """The `riptide.v1.Recommender` service of one worker. Its methods answer in wire format: see `wire`."""

    def __init__(
        self,
        methods: Methods,
        metrics: Metrics,
        *,
        max_in_flight: int,
        default_deadline_s: float,
        access_log: bool,
        tracing: Tracing | None = None,
    ) -> None:
        """`tracing`: None for no call is traced."""
        self._methods = methods
        self._tracing = tracing
        self._metrics = metrics
        self._max_in_flight = max_in_flight
        self._default_deadline_s = default_deadline_s
        self._log_all = access_log
        self.in_flight = 0
        """Calls that have come and are not answered yet."""
        self._failing = 0  # those of them that have failed, while gRPC sends that

    @property
    def handlers(self) -> grpc.GenericRpcHandler:
        """What a server is given: every method of the contract; each takes its message, answers bytes."""
        handle: dict[str, Handle] = {
            "Recommend": self._methods.recommend,
            "SimilarItems": self._methods.similar_items,
            "RecordEvents": self._methods.record_events,
            "DescribeUser": self._methods.describe_user,
            "ForgetUser": self._methods.forget_user,
        }

        def handlers(answer: Callable[..., Awaitable[bytes]]) -> dict[str, Any]:
            return {
                f"/{SERVICE.full_name}/{method.name}": grpc.unary_unary_rpc_method_handler(
                    partial(answer, method.name, handle[method.name]),
                    request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
                )
                for method in SERVICE.methods
            }

        return _Handlers(
            handlers(self._answer),
            handlers(self._answer_pinned),
            handlers(self._answer_traced) if self._tracing is not None else {},
            self._tracing,
        )

    async def _answer_pinned(self, method: str, handle: Handle, request: Any, context: Context) -> bytes:
        return await self._answer(method, handle, request, context, context.invocation_metadata() or ())

    async def _answer_traced(self, method: str, handle: Handle, request: Any, context: Context) -> bytes:
        assert self._tracing is not None, "else this handles nothing"
        metadata = context.invocation_metadata() or ()
        trace = self._tracing.begin(f"{SERVICE.full_name}/{method}", metadata)
        return await self._answer(method, handle, request, context, metadata, trace)

    async def _answer(
        self,
        method: str,
        handle: Handle,
        request: Any,
        context: Context,
        metadata: Metadata = (),
        trace: Trace | None = None,
    ) -> bytes:
        began = time.perf_counter()
        self.in_flight += 1
        request_id = ""
        try:
            request_id = check_request_id(given) if (given := request.request_id) else _new_id()
            if self.in_flight - self._failing > self._max_in_flight:
                # Here, not by gRPC, which counts other services' calls too, and tells no metric of a refusal.
                raise Overloaded(f"more than {self._max_in_flight} calls in flight; wait, then call again")
            remaining_s = context.time_remaining()
            if remaining_s is None:
                remaining_s = self._default_deadline_s
            elif remaining_s <= 0:
                raise TimeoutError  # nobody waits for the answer any more
            answer = await handle(request, Call(request_id, remaining_s, metadata, trace))
        except asyncio.CancelledError:
            # The caller has gone, or its deadline has passed.
            self._metrics.answered(method, grpc.StatusCode.CANCELLED.name, time.perf_counter() - began)
            if trace is not None:
                trace.end(grpc.StatusCode.CANCELLED.name, is_fault=False)
            raise
        except Exception as error:
            code, sentence = status_of(error)
            request_id = request_id or _new_id()
            duration_s = time.perf_counter() - began
            self._metrics.answered(method, code.name, duration_s)
            if trace is not None:
                trace.tell(request_id=request_id)
                trace.end(code.name, is_fault=code in FAULTS)
            log.log(
                logging.ERROR if code is grpc.StatusCode.INTERNAL else logging.INFO,
                "%s",
                str(error) or sentence,
                extra={**_fields(method, request_id, code.name, duration_s), "error": type(error).__name__},
                exc_info=error if code is grpc.StatusCode.INTERNAL else None,
            )
            # The client tells by this that the gateway itself has spoken. Metadata is ASCII by gRPC's rules.
            header = request_id.encode("ascii", "backslashreplace").decode()
            self._failing += 1
            try:
                await context.abort(code, sentence, (("x-request-id", header),))
            finally:
                self._failing -= 1
            raise AssertionError("abort raises") from error
        finally:
            self.in_flight -= 1
        duration_s = time.perf_counter() - began
        self._metrics.answered(method, "OK", duration_s)
        if trace is not None:
            trace.tell(request_id=request_id)
            trace.end("OK", is_fault=False)
        if self._log_all:
            origin = {"version": answer.version, "cohort": answer.cohort}
            known = {name: value for name, value in origin.items() if value is not None}
            log.info("answered", extra={**_fields(method, request_id, "OK", duration_s), **known})
        return answer.wire


class _Handlers(grpc.GenericRpcHandler):
    """Finds the handler of a call by the path of its method.

    gRPC has a call's metadata at hand here; to ask for them again takes longer than to check a request. So it
    is told apart here whether an operator asks for a version, which few calls do, and whether a call is
    traced.
    """

    def __init__(
        self,
        usual: Mapping[str, Any],
        pinned: Mapping[str, Any],
        traced: Mapping[str, Any],
        tracing: Tracing | None,
    ) -> None:
        self._usual, self._pinned, self._traced, self._tracing = usual, pinned, traced, tracing

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        tracing = self._tracing
        if tracing is not None and tracing.takes(handler_call_details.invocation_metadata or ()):
            return self._traced.get(handler_call_details.method)
        for name, _ in handler_call_details.invocation_metadata or ():
            if name == VERSION_METADATA:
                return self._pinned.get(handler_call_details.method)
        return self._usual.get(handler_call_details.method)


_PROCESS = os.urandom(6).hex()
_CALLS = count()


def _new_id() -> str:
    """An id that no other call has: of this process, and the number of the call in it."""
    return f"{_PROCESS}-{next(_CALLS):x}"


def _fields(method: str, request_id: str, code: str, duration_s: float) -> dict[str, Any]:
    # No user id: logs live longer than ForgetUser may allow.
    return {
        "method": method,
        "request_id": request_id,
        "code": code,
        "duration_ms": round(duration_s * 1000, 3),
    }
