"""Where OpenTelemetry spans go. FastAPI makes a span for each request, and the client's spans are its children."""

from __future__ import annotations

import os


def configure() -> bool:
    """Send spans to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names, if it is set. Raises ValueError."""
    if not (os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
        return False
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ValueError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but the exporter is missing: "
            "pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
        ) from None
    name = os.environ.get("OTEL_SERVICE_NAME", "vlclip-gateway")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return True
