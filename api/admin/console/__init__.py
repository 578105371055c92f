"""The console: a page without data, which asks the administrators' routes for all that it shows and does."""

from importlib.resources import files

# In this order, as one: a file may use what another declares, and only the last does anything by itself.
SCRIPTS = ("elements", "server", "acts", "sections", "cutover", "page")


def html() -> str:
    return _text("page.html")


def style() -> str:
    return _text("style.css")


def script() -> str:
    """Return all scripts as one classic script that declares nothing global."""
    parts = "\n".join(_text(f"scripts/{name}.js") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n\n{parts}}})();\n'


def _text(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
