"""Reading a request's body within bounds of size and time, before anything else is taken for it.

A client that sends its body slowly holds neither a connection to PostgreSQL nor a place among the requests
at work, and it is cut off. What uvicorn (with httptools) bounds by itself: 64 KiB of a body that nobody has
read yet, and five seconds between two requests of a connection. What it does not, so that a gateway must:
how long a client takes to send its headers, how long headers are, how many connections there are, how long
a client takes to read its answer, and what it goes on sending to an endpoint that has answered already or
takes no body; that is discarded unread.
"""

import asyncio
from http import HTTPStatus

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from api.gate.errors import BodyTooLargeError, SlowBodyError

MAX_BODY_BYTES = 1024 * 1024
MAX_DISCARDED_BYTES = 16 * MAX_BODY_BYTES
BODY_SECONDS = 10.0


def announced_size(request: Request) -> int:
    """Return the Content-Length, or 0 when it is none; the bytes are counted in any case."""
    digits = request.headers.get("content-length", "")[:20]  # int() refuses what is too long
    return int(digits) if digits.isdecimal() else 0


def refuse_unread(request: Request) -> None:
    """Refuse a body whose announced length is far too large, or too large for a client that asks first.

    Raises:
        BodyTooLargeError: it is.

    """
    asks_first = "expect" in request.headers
    if announced_size(request) > (MAX_BODY_BYTES if asks_first else MAX_DISCARDED_BYTES):
        raise BodyTooLargeError


async def discard(receive: Receive, message: Message) -> None:
    """Take in what follows the message, within a bound, and forget it.

    A client that is cut off while it sends may never see its answer.
    """
    discarded = 0
    while message.get("more_body") and discarded < MAX_DISCARDED_BYTES:
        message = await receive()
        discarded += len(message.get("body", b""))


async def with_whole_body(request: Request) -> Request:
    """Return the request with its body read, whatever length was announced.

    Raises:
        BodyTooLargeError: it is longer than MAX_BODY_BYTES; no more than that was kept.
        SlowBodyError: it was not complete after BODY_SECONDS.
        HTTPException: the client went away before its end.

    """
    refuse_unread(request)
    received = 0

    async def receive_counted() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            await discard(request.receive, message)
            raise BodyTooLargeError
        return message

    complete = Request(request.scope, receive_counted)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            await complete.body()  # which the request remembers
    except TimeoutError:
        raise SlowBodyError from None
    except ClientDisconnect:
        raise HTTPException(HTTPStatus.BAD_REQUEST) from None
    return complete
