"""A browser's page, and everything that it says, asks for and fails to get."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import BrowserContext, ConsoleMessage, Page, Request


@dataclass
class Watched:
    """A page, with what it wrote to the console, its errors, and its requests."""

    page: Page
    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def hosts(self) -> set[str]:
        """Return every host that was asked for something, with its port."""
        return {urlsplit(url).netloc for url in self.requested if not url.startswith(("data:", "blob:"))}

    def assert_quiet(self) -> None:
        """Fail where the page said or broke anything."""
        assert (self.console, self.errors, self.failed) == ([], [], [])

    async def text(self, selector: str) -> str:
        """Return what the element says, with its white space made single."""
        return " ".join((await self.page.locator(selector).inner_text()).split())

    async def state(self) -> str | None:
        """Return the state of the verdict on top."""
        return await self.page.locator("#verdict").get_attribute("data-state")

    async def until(self, condition: str, seconds: float = 5, argument: object = None) -> None:
        """Wait until an expression of JavaScript is true of the page."""
        await self.page.wait_for_function(condition, arg=argument, timeout=seconds * 1000)


async def watch(context: BrowserContext) -> Watched:
    """Open an empty page and watch it from before its first request on."""
    watched = Watched(await context.new_page())
    watched.page.on("console", lambda message: watched.console.append(_said(message)))
    watched.page.on("pageerror", lambda error: watched.errors.append(str(error)))
    watched.page.on("request", lambda request: watched.requested.append(request.url))
    watched.page.on("requestfailed", lambda request: watched.failed.append(_failure(request)))
    watched.page.on("response", lambda answer: _note_status(watched, answer.url, answer.status))
    return watched


def _said(message: ConsoleMessage) -> str:
    return f"{message.type}: {message.text}"


def _failure(request: Request) -> str:
    return f"{request.url}: {request.failure}"


def _note_status(watched: Watched, url: str, status: int) -> None:
    if status >= 400:
        watched.failed.append(f"{url}: {status}")


def view(width: int = 1440, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return how a context looks at the page; a phone is 320 wide."""
    return {
        "viewport": {"width": width, "height": 900},
        "locale": "en-GB",
        "timezone_id": "Europe/Oslo",
        **more,
    }


LIGHT = view(color_scheme="light")
DARK = view(color_scheme="dark")
NARROW = view(320, color_scheme="light")
