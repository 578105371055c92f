"""Sending spans to an OpenTelemetry collector: off unless the environment asks for it.

What asks are the variables of OpenTelemetry itself, and its SDK reads the others: sampler, headers, limits.
Until then no SDK is imported, and every span is one of the API's that does nothing.
"""

import logging
import os
import platform
import re
import threading
from collections.abc import Callable

from opentelemetry import trace
from opentelemetry.trace import ProxyTracerProvider, Tracer

from shared.settings import SettingsError

SCOPE = "collection-sync"
ASKING = (
    "OTEL_TRACES_EXPORTER",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
)
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
# The SDK raises where one of these is no such number, and only when the process has begun its work.
NUMBERS = {r"OTEL_BSP_\w+": "[1-9][0-9]{0,8}", r"OTEL_\w+_LIMIT": "[0-9]{1,9}"}
LAST_EXPORT_SECONDS = 2.0  # for what is not sent yet, when the process is to end


def tracer() -> Tracer:
    """Return what starts this system's spans; without a provider they do nothing."""
    return trace.get_tracer(SCOPE)


def is_on() -> bool:
    """Return whether a provider is installed: by us, or by an application that mounts the router."""
    return not isinstance(trace.get_tracer_provider(), ProxyTracerProvider)


def asked_by() -> str | None:
    """Return the variable that asks for spans to be sent; None when none does, or one forbids it."""
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "")
    if exporter == "none" or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    return next((name for name in ASKING if os.environ.get(name)), None)


def require_exporter() -> None:
    """Require what is needed to send spans, where the environment asks for that. Connects to nothing.

    Raises:
        SettingsError: they cannot; the message says what to install or to set.

    """
    variable = asked_by()
    if variable is None:
        return
    if os.environ.get("OTEL_TRACES_EXPORTER", "") not in {"", "otlp"}:
        msg = "OTEL_TRACES_EXPORTER: only otlp and none are offered."
        raise SettingsError(msg)
    for protocol in PROTOCOLS:
        if os.environ.get(protocol, "") not in {"", "http/protobuf"}:
            raise SettingsError(
                f"{protocol}: only http/protobuf is offered; collectors take it on port 4318."
            )
    for pattern, number in NUMBERS.items():
        for name, value in os.environ.items():
            if re.fullmatch(pattern, name) and value and not re.fullmatch(number, value.strip()):
                raise SettingsError(f"{name}: is no number that OpenTelemetry takes.")
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: PLC0415
        import opentelemetry.sdk.trace.export  # noqa: F401, PLC0415
    except ImportError as error:
        raise SettingsError(
            f"{variable} asks for traces, but {error.name} is not installed. Unset the variable, or\n"
            "  pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
        ) from None


class Tracing:
    """Sends this process's spans from its start to its stop, where the environment asks for it.

    They are sent by a thread of its own, from a bounded queue: neither a request nor a batch waits for a
    collector, and what the queue does not hold is dropped. The service is called
    `collection-sync-<process>`, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES calls it something else.
    """

    def __init__(self, process: str) -> None:
        self._process = process
        self._shut_down: Callable[[], None] | None = None

    def start(self) -> None:
        """Install a provider, if one is asked for; once in a process. Connects to nothing yet.

        Raises:
            SettingsError: as `require_exporter`.

        """
        require_exporter()
        if asked_by() is None:
            return
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        # A collector that is away is worth a line for each batch that is lost, not one for each attempt.
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)
        ours = {
            "service.name": f"collection-sync-{self._process}",
            "service.instance.id": f"{platform.node()}:{os.getpid()}",  # as in worker_processes and the log
        }
        resource = Resource.create().merge(Resource(ours)).merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
        self._shut_down = provider.shutdown

    def stop(self) -> None:
        """Send what is left and end the sending, within LAST_EXPORT_SECONDS.

        A collector that hangs is left behind: the thread does not keep the process alive.
        """
        if self._shut_down is not None:
            thread = threading.Thread(target=self._shut_down, name="last spans", daemon=True)
            thread.start()
            thread.join(LAST_EXPORT_SECONDS)
