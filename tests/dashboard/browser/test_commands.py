"""Commands on the page are copied as one types them, by pointer and by keys, wherever the page is opened."""

from pathlib import Path

import pytest
from playwright.async_api import Browser, Page

from tests.dashboard.browser.page_states import HOSTILE, hostile, rich
from tests.dashboard.browser.site import ADDRESS, serve
from tests.dashboard.browser.watching import LIGHT, Watched, watch
from worker.command_line.writing import write_page
from worker.dashboard.page_state import PageState
from worker.dashboard.rendering import self_contained

pytestmark = pytest.mark.asyncio(loop_scope="session")  # in which the browser lives

SHOW = "python -m worker.dead_letters show 1204991"
REPAIR = "python -m worker.audit --repair"
# What a browser without a secure context, or whose user refuses, has instead of the clipboard.
REFUSE = "Object.defineProperty(navigator, 'clipboard', {value: undefined})"
NOTE_COPIES = """
    window.copied = [];
    document.addEventListener('copy', () => window.copied.push(getSelection().toString()));
"""


async def _opened(browser: Browser, page_state: PageState, *scripts: str) -> Watched:
    context = await browser.new_context(**LIGHT, permissions=["clipboard-read", "clipboard-write"])
    for script in scripts:
        await context.add_init_script(script)
    await serve(context, page_state, charts=False)
    watched = await watch(context)
    await watched.page.goto(ADDRESS)
    return watched


async def _clipboard(page: Page) -> str:
    text: str = await page.evaluate("navigator.clipboard.readText()")
    return text


async def test_a_command_is_copied_by_keys_announced_and_nothing_moves(browser: Browser) -> None:
    watched = await _opened(browser, rich())
    button = watched.page.get_by_role("button", name=f"Copy {REPAIR}", exact=True)
    before = await watched.page.locator("#go-on").bounding_box()
    await button.focus()
    await watched.page.keyboard.press("Enter")
    await watched.until("() => document.getElementById('said').textContent !== ''")
    assert await watched.page.locator("#said").text_content() == f"Copied: {REPAIR}"
    assert await _clipboard(watched.page) == REPAIR
    assert await watched.page.locator("#go-on").bounding_box() == before
    assert await button.evaluate("button => button === document.activeElement")
    watched.assert_quiet()


async def test_every_command_on_the_page_has_its_button(browser: Browser) -> None:
    page = (await _opened(browser, rich())).page
    commands = page.locator("main code:visible").filter(has_text="python -m")
    assert await commands.count() >= 4
    for index in range(await commands.count()):
        text = await commands.nth(index).inner_text()
        assert await page.get_by_role("button", name=f"Copy {text}", exact=True).count() >= 1


async def test_without_a_clipboard_the_selection_is_copied_the_old_way(browser: Browser) -> None:
    watched = await _opened(browser, rich(), REFUSE, NOTE_COPIES)
    await watched.page.get_by_role("button", name=f"Copy {SHOW}").click()
    await watched.until("() => document.getElementById('said').textContent !== ''")
    assert await watched.page.evaluate("window.copied") == [SHOW]
    assert await watched.page.locator("#said").text_content() == f"Copied: {SHOW}"


async def test_where_nothing_may_be_copied_the_command_is_selected_and_the_reader_is_told(
    browser: Browser,
) -> None:
    watched = await _opened(browser, rich(), REFUSE, "document.execCommand = () => false")
    await watched.page.get_by_role("button", name=f"Copy {SHOW}").click()
    await watched.until("() => document.getElementById('said').textContent !== ''")
    assert "Selected, but not copied" in str(await watched.page.locator("#said").text_content())
    assert await watched.page.evaluate("getSelection().toString()") == SHOW


async def test_a_page_opened_as_a_file_copies_too(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    write_page(file, self_contained(rich()))
    context = await browser.new_context(**LIGHT)
    await context.add_init_script(NOTE_COPIES)
    watched = await watch(context)
    await watched.page.goto(file.as_uri())
    await watched.page.get_by_role("button", name=f"Copy {SHOW}").click()
    await watched.until("() => document.getElementById('said').textContent !== ''")
    assert await watched.page.locator("#said").text_content() == f"Copied: {SHOW}"
    watched.assert_quiet()


async def test_what_is_copied_is_what_is_seen(browser: Browser) -> None:
    page_state = hostile()
    page_state.go_on.reasons, page_state.verdict.next_steps = [], [f"python -m worker {HOSTILE}"]
    watched = await _opened(browser, page_state)
    await watched.page.locator("#go-on .copy").click()
    await watched.until("() => document.getElementById('said').textContent !== ''")
    copied = await _clipboard(watched.page)
    assert "⟨U+202E⟩" in copied
    assert not {"\u202e", "\u2028", "\n", "\r"} & set(copied)
