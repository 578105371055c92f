"""Keeping a browser's requests out that a page of another site makes it send."""

from urllib.parse import urlsplit

from fastapi import Request

from api.gate.errors import ForeignSiteError

OWN = frozenset({"same-origin", "none"})  # none: of nobody's page, e.g. typed


def require_own_site(request: Request) -> None:
    """Let the request pass unless a browser sent it for a page of another site.

    Browsers name that page's relation in Sec-Fetch-Site, which no script can set. Older ones name its Origin,
    which must then be the host that is asked. Other clients send neither.

    Raises:
        ForeignSiteError: another site's page is behind it.

    """
    relation = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if relation is not None:
        is_own = relation in OWN
    else:
        is_own = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if not is_own:
        raise ForeignSiteError
