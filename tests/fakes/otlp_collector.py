"""A collector of traces that speaks OTLP over gRPC: it keeps what came, as bytes and as spans.

Put `tests/fakes` on sys.path.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


@dataclass(frozen=True)
class Span:
    """A span as it came, ids in hexadecimal digits, times in seconds."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    began: float
    ended: float
    error: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Collector:
    """Serves from `with` on; safe to read from the test's thread."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self._came = threading.Condition()
        self._server = grpc.server(ThreadPoolExecutor(2))
        export = grpc.unary_unary_rpc_method_handler(self._export)
        handler = grpc.method_handlers_generic_handler(SERVICE, {"Export": export})
        self._server.add_generic_rpc_handlers((handler,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait(5)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _export(self, request: bytes, context: Any) -> bytes:
        with self._came:
            self.raw.append(request)
            self._came.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse().SerializeToString()

    @property
    def spans(self) -> list[Span]:
        with self._came:
            return [span for raw in self.raw for span in decoded(raw)]

    def of(self, trace: str) -> list[Span]:
        return [s for s in self.spans if s.trace == trace]

    def until(self, trace: str, *names: str, seconds: float = 20.0) -> list[Span]:
        """The spans of a trace, once one of each of these names is there."""
        end = time.monotonic() + seconds
        with self._came:
            while True:
                found = [s for raw in self.raw for s in decoded(raw) if s.trace == trace]
                missing = set(names) - {s.name for s in found}
                if not missing:
                    return found
                left = end - time.monotonic()
                assert left > 0, f"no span named {missing}; there are {[s.name for s in found]}"
                self._came.wait(left)


def decoded(raw: bytes) -> list[Span]:
    """The spans of a message."""
    request = trace_service_pb2.ExportTraceServiceRequest.FromString(raw)
    return [
        Span(
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.kind,
            span.start_time_unix_nano / 1e9,
            span.end_time_unix_nano / 1e9,
            span.status.code == 2,
            _values(span.attributes),
            _values(group.resource.attributes),
        )
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _values(pairs: Any) -> dict[str, Any]:
    return {p.key: getattr(p.value, str(p.value.WhichOneof("value"))) for p in pairs}
