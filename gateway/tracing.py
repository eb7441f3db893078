"""Traces of calls, with OpenTelemetry: a span for the call, one for each of its stages.

Off unless `RIPTIDE_TRACE_RATIO` is set. Whether a call is traced is settled before it is read, and all others
go the way that they go without tracing. Requests that were joined share the stages `features` and `model`:
each trace has spans of its own for them. Triton is told the context of the first; the `model` spans of the
others link to that one.

Span and attribute names are those of OpenTelemetry's conventions for RPC, and `riptide.…` where they have
none. No user id is in them.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import random
from types import TracebackType
from typing import TYPE_CHECKING

from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    format_span_id,
    format_trace_id,
)

from features.settings import Settings
from features.store import StoreError
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor

PARENT_METADATA = "traceparent"
"""W3C Trace Context. Its `tracestate` is not passed on: it may hold anything, and be so long that Triton
refuses the call of all who share the batch."""
_PARENT = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_MOST_ASKED_PER_S = 50
"""Traces that callers may ask a worker for, since a traced call costs it some two or three times what another
does; beyond, chance decides."""
_SAMPLED, _RANDOM_ID = TraceFlags.SAMPLED, 0x02
"""The second says that the trace's id is random, which is passed on (Trace Context, level 2)."""
_UNSET = Status(StatusCode.UNSET)

Metadata = Collection[tuple[str, str | bytes]]


@dataclass(slots=True, eq=False)
class Span:
    """A span that has not ended. It is told all that it has before it ends, and ends once."""

    name: str
    context: SpanContext
    parent: SpanContext | None
    kind: SpanKind
    began: int
    """Unix time, nanoseconds."""
    links: Sequence[Link] = ()
    attributes: dict[str, str | int | float] = field(default_factory=dict)
    status: Status = _UNSET


class Trace:
    """The trace of one call, while it is answered."""

    __slots__ = ("_call", "_tracing", "_zero")

    def __init__(self, tracing: Tracing, method: str, parent: SpanContext | None) -> None:
        # One look at the clock for the whole trace: a step of it would put stages out of their order.
        self._zero = time.time_ns() - time.perf_counter_ns()
        self._tracing = tracing
        self._call = self._open(method, time.perf_counter(), parent, SpanKind.SERVER)
        self._call.attributes.update({"rpc.system.name": "grpc", "rpc.method": method})

    def _at(self, moment: float) -> int:
        """Unix time, nanoseconds, of a moment on the clock of `time.perf_counter`, seconds."""
        return self._zero + int(moment * 1e9)

    def _open(
        self,
        name: str,
        began: float,
        parent: SpanContext | None,
        kind: SpanKind = SpanKind.INTERNAL,
        links: Sequence[Link] = (),
    ) -> Span:
        return Span(name, self._tracing.below(parent), parent, kind, self._at(began), links)

    def begin(self, stage: str, *, kind: SpanKind, links: Sequence[Link]) -> Span:
        """A span of a stage that begins now."""
        return self._open(stage, time.perf_counter(), self._call.context, kind, links)

    def finish(self, stage: Span) -> None:
        """Ends it now."""
        self._tracing.send(stage, self._at(time.perf_counter()))

    def past(self, stage: str, began: float, ended: float) -> None:
        """A stage that is over; moments on the clock of `time.perf_counter`, seconds."""
        self._tracing.send(self._open(stage, began, self._call.context), self._at(ended))

    def tell(self, **attributes: str | int | float) -> None:
        """Attributes of the call, `riptide.NAME`."""
        for name, value in attributes.items():
            self._call.attributes[f"riptide.{name}"] = value

    def end(self, code: str, *, is_fault: bool) -> None:
        """The call has ended with this gRPC status. `is_fault`: the service's, not the caller's."""
        self._call.attributes["rpc.response.status_code"] = code
        if is_fault:
            self._call.status = Status(StatusCode.ERROR, code)
        self.finish(self._call)


class Tracing:
    """Begins the traces of one worker."""

    def __init__(self, ratio: float, processor: SpanProcessor) -> None:
        """`ratio`: the share of the calls to trace whose caller does not say, above 0 to 1. `processor` gets
        spans when they end, and never when they start.
        """
        # Not above: only those who trace have to wait for it at their start.
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        self._ratio = ratio
        self._asked = 0
        self._second = 0
        self._processor = processor
        # What a tracer of the SDK makes in the end, without samplers, limits and locks on the way.
        self._readable = partial(
            ReadableSpan, resource=_resource(), instrumentation_scope=InstrumentationScope("riptide.gateway")
        )
        self._ids = RandomIdGenerator()

    def takes(self, metadata: Metadata) -> bool:
        """Whether a call is traced: as its caller says, else by chance. To be asked once for each call: what
        callers may ask for in a second is used up by it.
        """
        parent = _parent_of(metadata)
        if parent is not None:
            if not parent.trace_flags.sampled:
                return False
            if (second := int(time.monotonic())) != self._second:
                self._second, self._asked = second, 0
            self._asked += 1
            if self._asked <= _MOST_ASKED_PER_S:
                return True
        return random() < self._ratio

    def begin(self, method: str, metadata: Metadata) -> Trace:
        """The trace of a call of `PACKAGE.SERVICE/METHOD` that begins now, as part of its caller's if it has
        one."""
        return Trace(self, method, _parent_of(metadata))

    def below(self, parent: SpanContext | None) -> SpanContext:
        """The context of a new span: in its parent's trace, or in a new one."""
        if parent is None:
            trace_id, random_id = self._ids.generate_trace_id(), _RANDOM_ID
        else:
            trace_id, random_id = parent.trace_id, parent.trace_flags & _RANDOM_ID
        flags = TraceFlags(_SAMPLED | random_id)
        return SpanContext(trace_id, self._ids.generate_span_id(), is_remote=False, trace_flags=flags)

    def send(self, span: Span, at: int) -> None:
        """Sends a span that has ended at a Unix time, nanoseconds."""
        self._processor.on_end(
            self._readable(
                span.name,
                span.context,
                span.parent,
                attributes=dict(span.attributes),  # the exporter's thread reads them
                links=span.links,
                kind=span.kind,
                status=span.status,
                start_time=span.began,
                end_time=at,
            )
        )

    def close(self, timeout_s: float) -> None:
        """Sends what is left, as far as the collector takes it in that time."""
        ending = threading.Thread(target=self._processor.shutdown, daemon=True)
        ending.start()
        ending.join(timeout_s)


class Stage:
    """A stage that calls go through together, some of which are traced: a span for each of those.

    Ends with the block; with an error if that raises. Without traces it costs next to nothing.
    """

    __slots__ = ("_spans",)

    def __init__(
        self, name: str, traces: Iterable[Trace | None], *, kind: SpanKind = SpanKind.INTERNAL
    ) -> None:
        self._spans: list[tuple[Trace, Span]] = []
        for trace in traces:
            if trace is None:
                continue
            links = [Link(self._spans[0][1].context)] if self._spans else []
            self._spans.append((trace, trace.begin(name, kind=kind, links=links)))

    @property
    def metadata(self) -> tuple[tuple[str, str], ...] | None:
        """What tells who is called of the first trace; None without one."""
        if not self._spans:
            return None
        own = self._spans[0][1].context
        parent = f"00-{format_trace_id(own.trace_id)}-{format_span_id(own.span_id)}-{own.trace_flags:02x}"
        return ((PARENT_METADATA, parent),)

    def tell(self, **attributes: str | int | float) -> None:
        """Attributes of each span, `riptide.NAME`."""
        for _, span in self._spans:
            span.attributes.update({f"riptide.{name}": value for name, value in attributes.items()})

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for trace, span in self._spans:
            if isinstance(error, Exception):  # a caller that hangs up is none
                # What others say of their errors may name a user; our own sentences do not.
                sentence = f": {error}" if isinstance(error, GatewayError | StoreError) else ""
                span.status = Status(StatusCode.ERROR, type(error).__name__ + sentence)
            trace.finish(span)


def exported(settings: Settings) -> Tracing | None:
    """Tracing into the collector that the settings name (OTLP over HTTP); None if no call is to be traced."""
    if not settings.traced_ratio:
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return Tracing(settings.traced_ratio, BatchSpanProcessor(OTLPSpanExporter(settings.traces_url)))


def _parent_of(metadata: Metadata) -> SpanContext | None:
    """What the caller says of its own trace; None if it says nothing, or nothing that can be read."""
    for name, value in metadata:
        if name == PARENT_METADATA:
            found = _PARENT.fullmatch(value) if isinstance(value, str) else None
            if found is None:
                return None
            trace_id, span_id, flags = (int(part, 16) for part in found.groups())
            parent = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
            return parent if parent.is_valid else None
    return None


def _resource() -> Resource:
    from opentelemetry.sdk.resources import Resource

    told = Resource.create()
    if str(told.attributes["service.name"]).startswith("unknown_service"):  # OTEL_SERVICE_NAME is not set
        told = told.merge(Resource({"service.name": "riptide-gateway"}))
    return told
