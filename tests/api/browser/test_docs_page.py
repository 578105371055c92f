"""`/docs` in a real browser that reaches nothing but the API."""

from urllib.parse import urlsplit

import httpx
from playwright.async_api import Browser, Route

from tests.dashboard.browser.watching import LIGHT, watch
from tests.processes import environment, running_api


async def test_without_a_network_it_lists_every_operation_and_tries_one(
    own_browser: Browser, database_url: str, redis_url: str
) -> None:
    async with running_api(environment(database_url, redis_url)) as (_, url):
        async with httpx.AsyncClient() as client:
            document = (await client.get(f"{url}/openapi.json")).json()
        context = await own_browser.new_context(**LIGHT)

        async def cut_off(route: Route) -> None:
            await (route.continue_() if route.request.url.startswith(url) else route.abort())

        await context.route("**", cut_off)
        watched = await watch(context)
        await watched.page.goto(f"{url}/docs")
        operations = watched.page.locator(".opblock")
        await operations.first.wait_for()
        expected = sorted(
            f"{method} {path}" for path, methods in document["paths"].items() for method in methods
        )
        shown = [
            f"{(await one.locator('.opblock-summary-method').inner_text()).lower()}"
            f" {await one.locator('.opblock-summary-path').get_attribute('data-path')}"
            for one in await operations.all()
        ]
        assert sorted(shown) == expected
        assert document["info"]["version"] in await watched.text(".info .title")
        await watched.page.locator("#operations-health-healthz, #operations-default-healthz").click()
        await watched.page.get_by_role("button", name="Try it out").click()
        await watched.page.get_by_role("button", name="Execute").click()
        await watched.page.locator(".live-responses-table").get_by_text('"alive"').wait_for()
        watched.assert_quiet()
        assert watched.hosts() == {urlsplit(url).netloc}
        await context.close()
