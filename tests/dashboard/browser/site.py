"""A stand-in for the dashboard's server: it serves the real page of whatever snapshot a test sets."""

import hashlib
from dataclasses import dataclass, field

from playwright.async_api import BrowserContext, Route

from worker.dashboard import page
from worker.dashboard.rendering import served, to_json
from worker.dashboard.server import HEADERS
from worker.dashboard.snapshot import Snapshot

ADDRESS = "http://127.0.0.1:8080/"  # nobody has to listen there: the browser is answered before it connects


@dataclass
class Site:
    """What is served at ADDRESS; while `away`, every connection is refused."""

    snapshot: Snapshot
    away: bool = False
    answered: list[str] = field(default_factory=list)

    async def answer(self, route: Route) -> None:
        """Answer one request as the server does."""
        path = "/" + route.request.url.removeprefix(ADDRESS)
        if self.away:
            await route.abort("connectionrefused")
            return
        self.answered.append(path)
        body, media_type = self._content(path)
        tag = f'"{hashlib.sha256(body.encode()).hexdigest()}"'
        known = route.request.headers.get("if-none-match") == tag
        headers = {**HEADERS, "ETag": tag, "Content-Type": media_type}
        await route.fulfill(status=304 if known else 200, headers=headers, body="" if known else body)

    def _content(self, path: str) -> tuple[str, str]:
        contents = {
            "/": (lambda: served(self.snapshot), "text/html; charset=utf-8"),
            "/snapshot.json": (lambda: to_json(self.snapshot), "application/json"),
            "/style.css": (page.style, "text/css"),
            "/script.js": (page.script, "text/javascript"),
            "/plotly.js": (page.plotly, "text/javascript"),
        }
        content, media_type = contents[path]
        return content(), media_type


async def serve(context: BrowserContext, snapshot: Snapshot) -> Site:
    """Serve the snapshot to this context."""
    site = Site(snapshot)
    await context.route(f"{ADDRESS}**", site.answer)
    return site
