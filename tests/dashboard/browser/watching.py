"""A browser's page, and everything that it says, asks for and fails to get."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import BrowserContext, ConsoleMessage, Page, Request

from tests.processes import HANG_SECONDS

PAGE_ASKS_SECONDS = 0.7  # after an answer
HANG_MS = HANG_SECONDS * 1000
# Counts the questions of which the page has not read an answer yet.
COUNT_QUESTIONS = """
    window.unanswered = 0;
    const ask = window.fetch;
    window.fetch = async (...question) => {
        window.unanswered++;
        try {
            const answer = await ask(...question);
            const text = await answer.text();
            answer.text = async () => text;
            return answer;
        } finally {
            window.unanswered--;
        }
    };
"""


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

    async def until(self, condition: str, argument: object = None) -> None:
        """Wait until an expression of JavaScript is true of the page."""
        await self.page.wait_for_function(condition, arg=argument)

    async def answered(self) -> None:
        """Wait until the page has an answer to what it asked for, or knows that it gets none."""
        await self.until("() => window.unanswered === 0")


async def watch(context: BrowserContext) -> Watched:
    """Open an empty page and watch it from before its first request on."""
    context.set_default_timeout(HANG_MS)
    await context.add_init_script(COUNT_QUESTIONS)
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
