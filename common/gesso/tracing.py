"""OpenTelemetry traces of one process, sent to a collector by OTLP; off unless an endpoint is given.

Trace context travels as W3C has it, in headers and in gRPC metadata. Spans never hold a prompt, nor the text of
an error, which may quote one: a hash, and the error's kind. Who serves never waits for the collector: what has
ended goes into a bounded queue, from which a thread sends it; what does not fit is dropped.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import Token
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger(__name__)

#: Spans that wait to be sent: some 100 images; and how many go at once: encoding more would hold up requests.
MOST_WAITING: Final = 4096
BATCH: Final = 128
SEND_EVERY_S: Final = 1.0
#: For one batch to reach the collector, retries included.
EXPORT_S: Final = 5.0
#: For what is left when the process ends, and then for an export that is under way to be given up: a process
#: has ten seconds in all.
CLOSE_S: Final = 0.75
GIVE_UP_S: Final = 0.2
#: Characters of an attribute's text.
LONGEST_VALUE: Final = 256

Value = str | bool | int | float | Sequence[str]
Attributes = Mapping[str, Value]
Metadata = Iterable[tuple[str, str | bytes]]

_W3C = TraceContextTextMapPropagator()
_HEADERS = ("traceparent", "tracestate")
_NOTHING: AbstractContextManager[Span] = nullcontext(INVALID_SPAN)


class _Current(AbstractContextManager[Span]):
    """A span that is the current one for a block, and ends with it; what is raised tells its kind only."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._token: Token[Context] | None = None

    def __enter__(self) -> Span:
        self._token = attach(trace.set_span_in_context(self._span))
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: object
    ) -> None:
        if self._token is not None:
            detach(self._token)
        if error is not None:
            failed(self._span, str(getattr(error, "kind", "") or type(error).__name__))
        self._span.end()


class Tracing:
    """The spans of one process; `OFF` makes none."""

    def __init__(
        self,
        tracer: Tracer | None = None,
        provider: TracerProvider | None = None,
        exporter: SpanExporter | None = None,
    ) -> None:
        """See `start`."""
        self._tracer = tracer
        self._provider = provider
        self._exporter = exporter

    @property
    def on(self) -> bool:
        """Whether spans are made at all."""
        return self._tracer is not None

    def serve(
        self, name: str, carrier: Mapping[str, str], attributes: Attributes | None = None
    ) -> AbstractContextManager[Span]:
        """The span of a request that came in, within the trace that its headers name, if any."""
        if self._tracer is None:
            return _NOTHING
        context = _context(carrier)
        span = self._tracer.start_span(name, context, SpanKind.SERVER, attributes)
        return _Current(span) if span.is_recording() else _NOTHING

    def begin(
        self, name: str, carrier: Mapping[str, str], attributes: Attributes | None = None
    ) -> Span:
        """As `serve`, for who ends it itself; it is not the current one, see `part_of`."""
        if self._tracer is None:
            return INVALID_SPAN
        return self._tracer.start_span(
            name, context=_context(carrier), kind=SpanKind.SERVER, attributes=attributes
        )

    def span(
        self,
        name: str,
        attributes: Attributes | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> AbstractContextManager[Span]:
        """A part of what is under way; nothing outside of a trace that is recorded.

        What an error is called is told by its `kind`, if it has one, else by its type.
        """
        if self._tracer is None or not trace.get_current_span().is_recording():
            return _NOTHING
        return _Current(self._tracer.start_span(name, kind=kind, attributes=attributes))

    def calling(
        self, method: str, address: str, attributes: Attributes | None = None
    ) -> AbstractContextManager[Span]:
        """The span of a gRPC call that goes out, to HOST:PORT."""
        if self._tracer is None:
            return _NOTHING
        host, _, port = address.rpartition(":")
        where: dict[str, Value] = {"server.address": host.strip("[]")}
        if port.isdecimal():
            where["server.port"] = int(port)
        told = {**rpc(method), **where, **(attributes or {})}
        return self.span(method, told, SpanKind.CLIENT)

    def part_of(self, span: Span, name: str) -> AbstractContextManager[Span]:
        """A part of what a span is about, whether that is the current one or not."""
        if self._tracer is None or not span.is_recording():
            return _NOTHING
        within = trace.set_span_in_context(span, Context())
        return _Current(self._tracer.start_span(name, within))

    def record(
        self,
        name: str,
        parent: Span,
        began_ns: int,
        ended_ns: int,
        attributes: Attributes | None = None,
    ) -> None:
        """A part that is over already; times in nanoseconds since 1970."""
        if self._tracer is None or not parent.is_recording():
            return
        within = trace.set_span_in_context(parent, Context())
        span = self._tracer.start_span(name, within, attributes=attributes, start_time=began_ns)
        span.end(max(began_ns, ended_ns))

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a call takes along of the current trace; nothing if that is not recorded."""
        if self._tracer is None or not trace.get_current_span().is_recording():
            return ()
        carrier: dict[str, str] = {}
        _W3C.inject(carrier)
        return tuple(carrier.items())

    def close(self, seconds: float = CLOSE_S) -> None:
        """Sends what is left, within so many seconds, and ends the thread that sends."""
        if self._provider is None or self._exporter is None:
            return
        # In a thread: the library waits for half a minute for a collector that does not answer.
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(seconds)
        if closing.is_alive():
            log.warning("traces were not sent: the collector does not answer")
            self._exporter.shutdown()
            closing.join(GIVE_UP_S)


OFF = Tracing()


def start(
    endpoint: str, part: str, service: str, instance: str, ratio: float | None = None
) -> Tracing:
    """Traces of a process of `service`, sent to the OTLP collector (gRPC) at `endpoint`, an http(s) URL.

    `ratio` is the share of requests traced where the client has not decided; None: of none, for who only goes
    on with what others began. The environment's OTEL_EXPORTER_OTLP_HEADERS, ..._CERTIFICATE and
    OTEL_RESOURCE_ATTRIBUTES hold.
    """
    # Of each try that failed it would write a line; that a batch was given up is enough.
    logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter").setLevel(logging.ERROR)
    # Nobody else has to load it.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased

    root = ALWAYS_OFF if ratio is None else TraceIdRatioBased(ratio)
    provider = TracerProvider(
        sampler=ParentBased(root=root),
        resource=Resource.create(
            {
                "service.name": f"gesso-{part}",
                "service.namespace": service,
                "service.instance.id": instance,
            }
        ),
        shutdown_on_exit=False,
        span_limits=SpanLimits(max_attribute_length=LONGEST_VALUE),
    )
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_S)
    queue = BatchSpanProcessor(
        exporter,
        max_queue_size=MOST_WAITING,
        schedule_delay_millis=SEND_EVERY_S * 1000,
        max_export_batch_size=BATCH,
    )
    provider.add_span_processor(queue)
    return Tracing(provider.get_tracer("gesso"), provider, exporter)


def rpc(method: str) -> dict[str, Value]:
    """Attributes of a gRPC call, `package.Service/Method`."""
    return {"rpc.system.name": "grpc", "rpc.method": method}


def failed(span: Span, kind: str) -> None:
    """Marks a span as failed; `kind` is one word of few."""
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))


def trace_id(span: Span) -> str:
    """Of a span that is recorded, 32 hexadecimal digits; else empty."""
    return format(span.get_span_context().trace_id, "032x") if span.is_recording() else ""


def carrier_of(metadata: Metadata | None) -> dict[str, str]:
    """What gRPC metadata tell of the caller's trace."""
    return {k: v for k, v in metadata or () if k in _HEADERS and isinstance(v, str)}


def _context(carrier: Mapping[str, str]) -> Context:
    return _W3C.extract(carrier, Context())
