"""A collector that keeps the spans it gets, and one that takes connections and never answers."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """Where it listens, and the spans it got: name, service, trace, parent and span, in hexadecimal."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[dict[str, str]] = []

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            said = {item.key: item.value.string_value for item in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [
                    {
                        "name": span.name,
                        "service": said["service.name"],
                        "trace": span.trace_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "span": span.span_id.hex(),
                    }
                    for span in scope.spans
                ]

    def named(self, name: str) -> dict[str, str]:
        (span,) = [span for span in self.spans if span["name"] == name]
        return span


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """Listen for spans on a port of its own while the body runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:  # noqa: ANN401 - the library's signature
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield collector
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def hanging() -> Iterator[str]:
    """Accept connections, as the kernel does for whoever listens, and never answer; yields the URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
