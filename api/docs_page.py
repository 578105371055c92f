"""`/docs`: the OpenAPI document as a page to try it on, which loads nothing from elsewhere.

Swagger UI comes out of the installed package `fastapi-offline`; that package's own pages have inline scripts.
"""

from functools import cache
from importlib.resources import files

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse

from shared.page_headers import POLICY, page_headers

# Its icons are images within its style sheet.
HEADERS = {**page_headers({**POLICY, "img-src": "'self' data:"}), "Cache-Control": "no-cache"}
ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}

# All addresses are relative: right behind a proxy that takes a prefix off.
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Collections: its operations</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<script src="docs/swagger-ui-bundle.js" defer></script>
<script src="docs/start.js" defer></script>
</head>
<body><main id="operations"></main></body>
</html>
"""
# The validator is another site's.
START = """\
"use strict";
document.documentElement.classList.toggle("dark-mode", matchMedia("(prefers-color-scheme: dark)").matches);
SwaggerUIBundle({url: "openapi.json", dom_id: "#operations", deepLinking: true, validatorUrl: null});
"""


def add_docs_page(app: FastAPI) -> None:
    """Serve the page and its parts; like the document itself they need no token."""

    async def page(_: Request) -> Response:
        return HTMLResponse(PAGE, headers=HEADERS)

    async def start(_: Request) -> Response:
        return Response(START, media_type="text/javascript", headers=HEADERS)

    async def asset(request: Request) -> Response:
        name = request.scope["path"].rpartition("/")[2]
        headers = {**HEADERS, "Cache-Control": "max-age=86400"}
        return Response(installed(name), media_type=ASSETS[name], headers=headers)

    app.add_route("/docs", page, include_in_schema=False)
    app.add_route("/docs/start.js", start, include_in_schema=False)
    for name in ASSETS:
        app.add_route(f"/docs/{name}", asset, include_in_schema=False)


@cache
def installed(name: str) -> bytes:
    return (files("fastapi_offline") / "static" / name).read_bytes()
