"""An operator at the console, who has a keyboard."""

from dataclasses import dataclass

from tests.dashboard.browser.watching import Watched
from tests.processes import Running

TOKEN = "operators only"
STATE_IS = "state => document.getElementById('verdict').dataset.state === state"
SAYS = "([where, what]) => document.querySelector(where)?.innerText.replace(/\\s+/g, ' ').includes(what)"
# What has the focus, by what a reader of the screen calls it.
FOCUSED = """() => {
    const focused = document.activeElement;
    const label = focused.labels?.[0]?.textContent ?? focused.getAttribute('aria-label');
    return label ?? focused.textContent.trim();
}"""
IS_ALLOWED = "() => document.activeElement.getAttribute('aria-disabled') !== 'true'"
IS_ANSWERED = """() => !document.getElementById('desk').hidden
    || document.getElementById('refused').textContent !== ''"""
MOST_KEYS = 60


@dataclass
class Desk:
    """The console's page, where it is served, and the API that serves it."""

    watched: Watched
    address: str
    api: Running

    async def open(self) -> None:
        await self.watched.page.goto(f"{self.address}/admin/console")

    async def enter(self, name: str = "Zoë 山田", token: str = TOKEN) -> None:
        """Fill in the form by keyboard, and send it."""
        await self.reach("Name")
        await self.type(name)
        await self.reach("Administrators' token")
        await self.type(token)
        await self.press("Enter")
        await self.watched.until(IS_ANSWERED)

    async def reach(self, what: str) -> None:
        """Press Tab until that has the focus."""
        for _ in range(MOST_KEYS):
            if await self.watched.page.evaluate(FOCUSED) == what:
                return
            await self.press("Tab")
        reached = await self.watched.page.evaluate(FOCUSED)
        raise AssertionError(f"Tab does not reach {what!r}; it is at {reached!r}")

    async def act(self, what: str, confirmation: str) -> str:
        """Reach a button, press it and confirm; return what the page says was done."""
        await self.reach(what)
        await self.watched.until(IS_ALLOWED)
        await self.press("Enter")
        await self.reach(confirmation)
        await self.watched.page.evaluate("document.getElementById('done').replaceChildren()")
        await self.press("Enter")
        await self.watched.until("() => document.getElementById('done').textContent !== ''")
        return await self.watched.text("#done")

    async def press(self, key: str) -> None:
        await self.watched.page.keyboard.press(key)

    async def type(self, text: str) -> None:
        await self.watched.page.keyboard.insert_text(text)

    async def until_state(self, state: str) -> None:
        await self.watched.until(STATE_IS, state)

    async def until_says(self, where: str, what: str) -> None:
        await self.watched.until(SAYS, [where, what])
