"""Where the traces of a service's requests go."""

from __future__ import annotations

from pydantic import Field

from gesso.api.base import COLLECTOR, ApiModel, Share


class TracingSpec(ApiModel):
    """OpenTelemetry traces of router and workers."""

    endpoint: str = Field(
        pattern=COLLECTOR,
        max_length=512,
        description="OTLP collector (gRPC) that spans are sent to: `http://otel-collector.observability:4317`, "
        "`https://` for TLS.",
    )
    sample_ratio: Share = Field(
        default=1.0,
        description="Share of requests that are traced where the client has not decided: a `traceparent` of "
        "its own says whether.",
    )
