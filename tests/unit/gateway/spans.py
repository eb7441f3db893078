"""Tracing whose spans stay in memory, and what tests look for in them."""

from __future__ import annotations

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateway.tracing import Tracing

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = (("traceparent", f"00-{TRACE}-{CALLER}-{flags}") for flags in ("01", "00"))
CALL = "riptide.v1.Recommender/Recommend"
A_MICROSECOND = 1000
"""What a float takes off, nanoseconds."""


class Spans:
    """Tracing, and what it has exported."""

    def __init__(self, ratio: float = 1.0) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracing = Tracing(ratio, SimpleSpanProcessor(self._exporter))

    @property
    def ended(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def names(self) -> list[str]:
        return sorted(span.name for span in self.ended)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.ended if span.name == name]


def ids(span: ReadableSpan) -> tuple[str, str]:
    """Of its trace, and its own."""
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def times(span: ReadableSpan) -> tuple[int, int]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time, span.end_time
