"""Whether a request carries a token that this process was given: the gateway's or the administrators'."""

import hmac

from fastapi import Request
from pydantic import SecretStr

BEARER = "bearer"


def presented_tokens(request: Request, header: str) -> list[bytes]:
    """Collect what the request offers, as bearer or in the header, as the bytes that were sent."""
    said = (line.partition(" ") for line in request.headers.getlist("authorization"))
    offered = [credentials.strip(" ") for scheme, _, credentials in said if scheme.lower() == BEARER]
    offered += request.headers.getlist(header)
    return [token.encode("latin-1") for token in offered]  # the encoding of headers


def carries_token(request: Request, token: SecretStr, header: str) -> bool:
    """Return whether the request offers this token, in a time that does not depend on the token.

    Args:
        request: read are its headers only.
        token: the right one; it may hold any characters.
        header: where the token may stand beside `Authorization: Bearer`.

    """
    expected = token.get_secret_value().encode()
    return any(hmac.compare_digest(offered, expected) for offered in presented_tokens(request, header))
