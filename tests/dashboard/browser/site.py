"""A stand-in for the dashboard's server: it serves the real page of whatever page_state a test sets."""

import hashlib
from dataclasses import dataclass, field

from playwright.async_api import BrowserContext, Route

from worker.dashboard import page
from worker.dashboard.page_state import PageState
from worker.dashboard.rendering import served, to_json
from worker.dashboard.server import HEADERS

ADDRESS = "http://127.0.0.1:8080/"  # nobody has to listen there: the browser is answered before it connects

NO_CHARTS = "var Plotly = {react() {}};"


@dataclass
class Site:
    """What is served at ADDRESS; while `away`, every connection is refused."""

    page_state: PageState
    charts: bool = True  # else a library that draws nothing, which takes less time
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
        match path:
            case "/":
                return served(self.page_state), "text/html; charset=utf-8"
            case "/snapshot.json":
                return to_json(self.page_state), "application/json"
            case "/style.css":
                return page.style(), "text/css"
            case "/script.js":
                return page.script(), "text/javascript"
            case _:
                return page.plotly() if self.charts else NO_CHARTS, "text/javascript"


async def serve(context: BrowserContext, page_state: PageState, *, charts: bool = True) -> Site:
    """Serve the page_state to this context."""
    site = Site(page_state, charts)
    await context.route(f"{ADDRESS}**", site.answer)
    return site
