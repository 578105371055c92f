"""Bytes that no client of good will sends, against a real uvicorn process.

Whatever comes, the answer is a 4xx, or what the request would have got without the nonsense, or the end of
the connection; the process lives on, and its log stays one JSON object a line. The only 5xx that are let
pass are the protocol server's own 501 and 505.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from api.gate.body import MAX_DISCARDED_BYTES
from tests.api.clients import ALL, OWNER, SEEDED
from tests.api.unhurried import running_unhurried
from tests.fuzz.raw import ANSWER_SECONDS, Received, chunked, connected, exchange, request
from tests.log_lines import hold_against_contract, lines_of
from tests.processes import HANG_SECONDS, Running, environment

FORGED = b'{"event": "forged", "level": "critical", "process": "api", "schema_version": 1}'
OWNER_HEADER = b"User-ID: " + OWNER["User-ID"].encode()
JSON_TYPE = b"Content-Type: application/json"
CHUNKED = b"Transfer-Encoding: chunked"
DELETED = "SELECT count(*) FROM outbox_events WHERE event_type = 'collection.deleted'"
OF_THE_PROTOCOL = {501, 505}
Case = tuple[str, bytes, set[int]]  # name, bytes, the answers that may come; none: whatever is no 5xx


def post(body: bytes, *headers: bytes) -> bytes:
    return request("POST", ALL, OWNER_HEADER, JSON_TYPE, *headers, body=body)


def post_chunked(body: bytes, *headers: bytes) -> bytes:
    return request("POST", ALL, OWNER_HEADER, JSON_TYPE, CHUNKED, *headers) + body


def bodies() -> Iterator[Case]:
    """Bodies that are no JSON, or JSON that nobody should send."""
    yield "NUL in a name", post(rb'{"collection_name": "a\u0000b"}'), {422}
    yield "raw NUL in a name", post(b'{"collection_name": "a\0b"}'), {422}
    yield "lone surrogate", post(rb'{"collection_name": "\ud800"}'), {422}
    yield "surrogate in UTF-8", post(b'{"collection_name": "\xed\xa0\x80"}'), {422}
    for number in (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-0", b"9" * 5_000):
        yield f"{number[:9]!r} as a name", post(b'{"collection_name": %s}' % number), {400, 422}
        yield f"{number[:9]!r} beside", post(b'{"collection_name": "x", "tags": [%s]}' % number), {200, 400}
    for invalid in (b"\xff", b"\xc3", b"\xf8\x88\x80\x80\x80", b"\xfe\xff\0{\0}"):
        yield f"{invalid!r} as a body", post(invalid), {400, 422}
        yield f"{invalid!r} in a name", post(b'{"collection_name": "%s"}' % invalid), {400, 422}
    for encoding in ("utf-16", "utf-32"):
        name = '{"collection_name": "x"}'.encode(encoding)
        yield encoding, post(name), {200, 400, 422}
    for nested in (b"[" * 10_000 + b"]" * 10_000, b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b"[" * 10_000):
        yield f"{nested[:5]!r} deep", post(nested), {400, 422}
        yield f"{nested[:5]!r} deep in a name", post(b'{"collection_name": %s}' % nested), {400, 422}
        yield f"{nested[:5]!r} deep beside", post(b'{"x": %s}' % nested), {400, 422}
    yield "10 MB", post(b" " * 10_000_000), {413}
    yield "10 MB in chunks", post_chunked(chunked([b" " * 65_536] * 153)), {413}
    yield (
        "wrong items",
        post(b'{"collection_name": "x", "linked_question_ids": [%s1]}' % (b"1," * 300_000)),
        {422},
    )
    yield "nothing", post(b""), {422}
    yield "a forged line", post(b"\n" + FORGED + b"\n"), {422}
    yield "a forged line as a name", post(json.dumps({"collection_name": f"\n{FORGED!r}\n"}).encode()), {200}


def headers() -> Iterator[Case]:
    """Headers that try to be two, or to be too much."""
    for end in (b"\n", b"\r", b"\r\n", b"\0", b"\x85", b"\x0b"):
        injected = b"User-ID: x" + end + FORGED
        yield f"{end!r} in User-ID", request("GET", ALL, injected), {400, 403}
        yield f"{end!r} in a bearer", request("GET", ALL, b"Authorization: Bearer x" + end + b"y: z"), set()
        yield f"{end!r} in a name", request("GET", ALL, b"User" + end + b"-ID: x"), {400, 403}
    for code in (*range(1, 32), 127, 0x80, 0xFF):
        yield f"{code:#x} in User-ID", request("GET", ALL, b"User-ID: a%cb" % code), {400, 403}
    for value in (
        b"",
        b" ",
        b"'; DROP TABLE collections; --",
        b"a@b@c",
        b"\xff@\xfe",
        b"x" * 100_000,
        b"\xc3\x28",
    ):
        yield f"User-ID {value[:9]!r}", request("GET", ALL, b"User-ID: " + value), {403}
        yield f"User-ID {value[:9]!r} writes", request("DELETE", SEEDED, b"User-ID: " + value), {403}
    yield "folded", request("GET", ALL, b"User-ID: x\r\n " + FORGED), {400, 403}
    yield "two callers", request("GET", ALL, b"User-ID: nobody", OWNER_HEADER), {400}
    yield "two hosts", request("GET", ALL, OWNER_HEADER, b"Host: other"), {200, 400}
    yield "a megabyte of one header", request("GET", "/healthz", b"X: " + b"x" * 1_000_000), {200, 400, 431}
    yield (
        "ten thousand headers",
        request("GET", "/healthz", *[b"X-%d: y" % n for n in range(10_000)]),
        {200, 431},
    )
    yield "no name", request("GET", ALL, b": x"), {400}
    yield "no colon", request("GET", ALL, b"nonsense"), {400}
    yield "blank before the colon", request("GET", ALL, b"User-ID : x"), {400}
    for value in (
        b"",
        b"application/json; charset=\xff",
        b"/",
        b"application/json" * 5_000,
        b"\xff/\xff",
        b"a/b/c;;;=",
    ):
        body = b'{"collection_name": "x"}'
        yield (
            f"Content-Type {value[:9]!r}",
            request("POST", ALL, OWNER_HEADER, b"Content-Type: " + value, body=body),
            {200, 422},
        )
    yield "Expect", request("POST", ALL, OWNER_HEADER, b"Expect: a miracle", body=b"{}"), {417, 422}
    yield "Upgrade", request("GET", ALL, OWNER_HEADER, b"Connection: Upgrade", b"Upgrade: websocket"), set()
    yield "method override", request("GET", SEEDED, OWNER_HEADER, b"X-HTTP-Method-Override: DELETE"), {405}


def paths() -> Iterator[Case]:
    """Targets that are no path, and paths that are no text."""
    for piece in (
        b"%00",
        b"%ff",
        b"%c0%af",
        b"%ed%a0%80",
        b"%zz",
        b"%",
        b"%0d%0aX-Injected:%20yes",
        b"%e2%80%a8",
    ):
        yield (
            f"{piece!r} as a project",
            request("GET", b"/projects/" + piece + b"/collections", OWNER_HEADER),
            {400, 403},
        )
        yield (
            f"{piece!r} as a collection",
            request("DELETE", ALL.encode() + b"/" + piece, OWNER_HEADER),
            {400, 403, 404},
        )
        yield (
            f"{piece!r} and a slash",
            request("GET", b"/projects/" + piece + b"/collections/", OWNER_HEADER),
            {307, 400},
        )
        yield f"{piece!r} in a query", request("GET", ALL.encode() + b"?a=" + piece, OWNER_HEADER), {200, 400}
    for raw in (
        b"\xff",
        b"\xc3\xa9",
        b"\0",
        b"\x01",
        b"\x7f",
        b" x",
        b"#x",
        b"\n",
        b"\r\nX-Injected: yes\r\nY: ",
    ):
        yield (
            f"raw {raw!r} in the path",
            request("GET", b"/projects/" + raw + b"/collections", OWNER_HEADER),
            set(),
        )
        yield f"raw {raw!r} in a query", request("GET", ALL.encode() + b"?a=" + raw, OWNER_HEADER), set()
    yield "a megabyte of path", request("GET", "/" + "a" * 1_000_000), {400, 404, 414, 431}
    yield (
        "a megabyte of query",
        request("GET", ALL + "?" + "a=b&" * 250_000, OWNER_HEADER),
        {200, 400, 414, 431},
    )
    yield "absolute", request("GET", f"http://other.example{ALL}", OWNER_HEADER), {200, 400}
    yield "authority", request("CONNECT", "api.example:80"), set()
    for target in (
        "*",
        "",
        "?",
        "//",
        "/..",
        "/projects/../../etc/passwd",
        "projects",
        "http://",
        "\\",
        "/;/",
    ):
        yield f"target {target!r}", request("GET", target), set()
    for method in (
        "get",
        "GETT",
        "",
        "G\0T",
        "TRACE",
        "PRI",
        "PATCH",
        "\u00e9",
        "OPTIONS",
        "HEAD",
        "X" * 10_000,
    ):
        yield f"method {method[:9]!r}", request(method, ALL, OWNER_HEADER), set()


def framings() -> Iterator[Case]:
    """Lengths and chunks that contradict each other or themselves."""
    for size in (b"-1", b"0x5", b"G", b"", b" ", b"f" * 17, b"1" * 100, b"5;" + b"x" * 10_000, b"5;a=\x00"):
        yield f"chunk of {size[:9]!r}", post_chunked(size + b"\r\nhello\r\n0\r\n\r\n"), {400, 413, 422}
    yield "chunk without an end", post_chunked(b"5\r\nhelloX\r\n0\r\n\r\n"), {400}
    yield "trailers", post_chunked(b"2\r\n{}\r\n0\r\nUser-ID: x\r\nX: " + FORGED + b"\r\n\r\n"), {400, 422}
    for length in (b"-1", b"+2", b"2, 2", b"0x2", b"two", b"9" * 30, b"18446744073709551616", b"2 2", b""):
        yield (
            f"length {length[:9]!r}",
            request("POST", ALL, OWNER_HEADER, b"Content-Length: " + length) + b"{}",
            {400, 413, 422},
        )
    yield "two lengths", request("POST", ALL, b"Content-Length: 2", b"Content-Length: 3") + b"{} ", {400}
    yield "length and chunks", request("POST", ALL, CHUNKED, b"Content-Length: 5") + b"0\r\n\r\n", {400}
    for coding in (
        b"chunked, identity",
        b"xchunked",
        b"identity",
        b"chunked, chunked",
        b"gzip, chunked",
        b"\x0bchunked",
    ):
        data = request("POST", ALL, OWNER_HEADER, b"Transfer-Encoding: " + coding) + b"2\r\n{}\r\n0\r\n\r\n"
        yield f"coding {coding!r}", data, set()
    smuggled = request("DELETE", SEEDED)
    yield "a request in a body", post(smuggled), {422}
    yield "after a GET", request("GET", "/healthz", body=smuggled), {200}
    for garbage in (
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"\0" * 1_000,
        b"\r\n" * 1_000,
        b"GET /\r\n",
        FORGED + b"\n",
    ):
        yield f"garbage {garbage[:9]!r}", garbage, set()
    yield "HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", set()
    for version in (b"HTTP/0.9", b"HTTP/1.0", b"HTTP/9.9", b"HTTP/1.1.1", b"ICE/1.0", b""):
        yield f"version {version!r}", b"GET /healthz " + version + b"\r\nHost: x\r\n\r\n", set()


def check(case: Case, received: Received) -> Iterator[str]:
    """Say what is wrong with the answer."""
    name, _, expected = case
    for status in received.statuses:
        if status >= 500 and status not in OF_THE_PROTOCOL:
            yield f"{name}: {status}"
    if expected and not expected & set(received.statuses):
        yield f"{name}: {received.statuses or 'no answer'} instead of one of {expected}"
    if b"\nx-injected" in received.headers:
        yield f"{name}: a header was injected: {received.headers!r}"


@contextlib.asynccontextmanager
async def attacked(database_url: str, redis_url: str, log_file: Path) -> AsyncIterator[tuple[Running, int]]:
    """Run an API, and look afterwards whether it is well and its log whole."""
    env = environment(database_url, redis_url, LOG_FILE=str(log_file), BODY_SECONDS=str(HANG_SECONDS))
    async with running_unhurried(env) as (api, port):
        yield api, port
        assert api.process.poll() is None, api.output
        assert (await exchange(port, request("GET", "/readyz"))).statuses == [200]
        assert (await exchange(port, post(b'{"collection_name": "after all that"}'))).statuses == [200]
        await api.wait_for("collection_written")
    check_log(log_file)
    assert [line for line in api.lines if not line.startswith("{")] == []


def check_log(log_file: Path) -> None:
    """Each line is one JSON object of ours, and none is what a client wrote."""
    lines = lines_of(log_file)
    assert {line["process"] for line in lines} == {"api"}
    hold_against_contract(lines)
    assert {line["event"] for line in lines} <= {"access_refused", "collection_written", "library_message"}
    messages = {line["message"] for line in lines if "message" in line and line["level"] != "info"}
    known = {"Invalid HTTP request received.", "Unsupported upgrade request."}
    assert {message for message in messages if "websocket" not in message.lower()} <= known


@pytest.mark.parametrize("kind", [bodies, headers, paths, framings])
async def test_no_bytes_bring_a_5xx_a_crash_or_a_forged_line(
    seeded: asyncpg.Connection,
    database_url: str,
    redis_url: str,
    tmp_path: Path,
    kind: Callable[[], Iterator[Case]],
) -> None:
    wrong: list[str] = []
    count = 0
    async with attacked(database_url, redis_url, tmp_path / "api.jsonl") as (api, port):
        for case in kind():
            seconds = ANSWER_SECONDS if case[2] else 0.3  # some nonsense is only the beginning of a request
            wrong += check(case, await exchange(port, case[1], seconds=seconds))
            count += 1
            assert api.process.poll() is None, (case[0], api.output)
    assert not wrong, "\n".join(wrong)
    assert count > 20
    assert await seeded.fetchval(DELETED) == 0


async def test_what_follows_a_body_that_was_refused_is_not_taken_for_a_request(
    seeded: asyncpg.Connection, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    smuggled = request("DELETE", SEEDED, OWNER_HEADER)
    async with attacked(database_url, redis_url, tmp_path / "api.jsonl") as (_, port):
        too_large = request("POST", ALL, OWNER_HEADER, b"Content-Length: 20000000") + smuggled
        received = await exchange(port, too_large, answers=2)
    assert (received.statuses, received.is_closed) == ([413], True)
    assert await seeded.fetchval(DELETED) == 0


async def test_an_endless_body_is_cut_off_long_before_its_end(
    seeded: asyncpg.Connection, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    del seeded
    chunk = chunked([b" " * 65_536])[:-5]
    sent = 0
    async with (
        attacked(database_url, redis_url, tmp_path / "api.jsonl") as (_, port),
        connected(port) as connection,
        asyncio.timeout(HANG_SECONDS),
    ):
        await connection.send(request("POST", ALL, OWNER_HEADER, CHUNKED))
        while sent < 500_000_000 and await connection.send(chunk):
            sent += len(chunk)
        received = await connection.receive()
        assert received.is_closed
    assert MAX_DISCARDED_BYTES < sent < 4 * MAX_DISCARDED_BYTES  # the sockets' buffers hold some
