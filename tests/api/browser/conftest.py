"""The browser that the dashboard's tests start, for the API's own pages."""

from tests.dashboard.browser import conftest as browser

chromium, own_browser = browser.chromium, browser.own_browser

__all__ = ["chromium", "own_browser"]
