"""The five voices of a migration: page, console, `worker.status`, its `--json`, and its exit status."""

import asyncio
import contextlib
import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import asyncpg
import httpx
from playwright.async_api import Page

from tests.console.desk import Desk
from tests.dashboard.browser.watching import Watched
from tests.dashboard.scripted import quick_worker
from tests.forked import run
from tests.processes import HANG_SECONDS, Running

PICTURES = os.environ.get("PICTURES")
LOOKS = {"desktop": (1440, "light"), "dark": (1440, "dark"), "phone": (390, "light")}
ON_THE_PAGE = """() => [
    document.getElementById('verdict').dataset.state,
    [...document.querySelectorAll('#go-on-reasons code')].map(it => it.textContent),
    document.getElementById('go-on-answer').textContent === 'Yes',
    document.getElementById('verdict-title').textContent,
    document.getElementById('verdict-detail').textContent]"""
ON_THE_CONSOLE = """() => [
    document.getElementById('verdict').dataset.state,
    [...document.querySelectorAll('#steps code')].map(it => it.textContent),
    !document.getElementById('well').hidden,
    document.getElementById('verdict-title').textContent,
    document.getElementById('verdict-detail').textContent]"""
NUMBER = re.compile(r"\d[\d:,.]*\d|\d")


@dataclass(frozen=True)
class Voice:
    """What one of them says. steps: commands, as one types them. sentence: what it says beyond the title."""

    word: str
    steps: list[str]
    is_well: bool
    title: str
    sentence: str


@dataclass
class Life:
    """One migration with its processes, and a browser with a tab for the page and one for the console."""

    env: dict[str, str]
    sql: asyncpg.Connection
    api: httpx.AsyncClient
    page: Watched
    console: Desk

    async def agree(self, word: str, on_the_page: str | None = None) -> str:
        """Wait until all say this word, with the same commands and in the same words; return the sentence.

        Args:
            word: of the verdict.
            on_the_page: its own word, where a log cannot know what the database does.

        """
        began = time.monotonic()
        while wrong := _disagreement(said := await self.hear(), word, on_the_page):
            assert time.monotonic() - began < HANG_SECONDS, (wrong, said)
            await asyncio.sleep(0.1)
        await self._take_pictures(on_the_page or word)
        return said["json"].sentence

    async def hear(self) -> dict[str, Voice]:
        """Return what each says now; what the exit status says is what is_well is in a terminal."""
        page, console, plain, machine = await asyncio.gather(
            self.page.page.evaluate(ON_THE_PAGE),
            self.console.watched.page.evaluate(ON_THE_CONSOLE),
            self.status(),
            self.status("--json"),
        )
        answer = json.loads(machine.stdout)
        word, title, sentence = answer["verdict"], answer["title"], answer["sentence"]
        return {
            "page": Voice(*page),
            "console": Voice(*console),
            "terminal": _in_a_terminal(word, title, plain),
            "json": Voice(word, answer["next_steps"], answer["may_go_on"], title, sentence),
            "exit status": Voice(word, answer["next_steps"], machine.returncode == 0, title, sentence),
        }

    async def status(self, *words: str) -> CompletedProcess[str]:
        return await asyncio.to_thread(run, ["-m", "worker.status", *words], self.env, timeout=HANG_SECONDS)

    async def type(self, *words: str, status: int = 0) -> None:
        """Run `python WORDS` to its end."""
        done = await asyncio.to_thread(run, list(words), self.env, timeout=HANG_SECONDS)
        assert done.returncode == status, done.stdout + done.stderr

    async def describe(self, name: str, text: str) -> None:
        """Change the description of a collection as its user does."""
        answer = await self.api.put(f"/projects/p1/collections/{name}", json={"description": text})
        assert answer.is_success, answer.text

    @contextlib.asynccontextmanager
    async def worker(self) -> AsyncIterator[Running]:
        """Let one live while the block lasts, and end in good order."""
        async with quick_worker(self.env) as worker:
            yield worker
            if worker.process.poll() is None:
                worker.signal(signal.SIGTERM)
                assert await worker.exit_code() == 0

    async def _take_pictures(self, name: str) -> None:
        if PICTURES:
            for tab, page in (("page", self.page.page), ("console", self.console.watched.page)):
                await _picture(page, Path(PICTURES), f"{name}-{tab}")


def _in_a_terminal(word: str, title: str, done: CompletedProcess[str]) -> Voice:
    sentence, *lines = done.stdout.splitlines()
    steps = [line.strip() for line in lines[1 : lines.index("")]] if lines[0] == "Next:" else []
    return Voice(word, steps, done.returncode == 0, title, sentence)


def _disagreement(said: dict[str, Voice], word: str, on_the_page: str | None) -> str | None:
    """Return the voice that says something else."""
    steps, title = said["json"].steps, _without_numbers(said["json"].title)
    sentence = _without_numbers(said["json"].sentence)
    for name, voice in said.items():
        if name == "page" and on_the_page is not None:
            if (voice.word, voice.is_well) != (on_the_page, False):
                return name
            continue
        if (voice.word, voice.steps, voice.is_well) != (word, steps, word == "in_sync"):
            return name
        if _without_numbers(voice.title) != title or not sentence.endswith(_without_numbers(voice.sentence)):
            return name
    return None


def _without_numbers(sentence: str) -> str:
    """Return it without what moves on between two looks."""
    return NUMBER.sub("#", sentence).lower()


async def _picture(page: Page, directory: Path, name: str) -> None:
    for look, (width, scheme) in LOOKS.items():
        await page.set_viewport_size({"width": width, "height": 900})
        await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        await page.screenshot(path=directory / f"{name}-{look}.png", full_page=True)
