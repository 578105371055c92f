"""The page put together: for a server, and as one file to keep or to mail."""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Final

from shared.page_headers import POLICY as STRICT
from shared.page_headers import written
from worker.dashboard import page
from worker.dashboard.page_state import PageState

# What would end a script in HTML, or a line in old JavaScript, as JSON may write it too.
ESCAPES: Final = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
POLICY: Final = {
    **STRICT,
    "style-src": "'self' 'unsafe-inline'",  # the charts' library styles its elements
    "img-src": "'self' data: blob:",
}


def to_json(page_state: PageState) -> str:
    """Return the page's state as JSON in ASCII, whatever a log made it hold."""
    return json.dumps(page_state, default=_fields, allow_nan=False, separators=(",", ":"))


def _fields(value: object) -> dict[str, object]:
    names: tuple[str, ...] = value.__slots__  # type: ignore[attr-defined]
    return {name: getattr(value, name) for name in names}


def served(page_state: PageState) -> str:
    """Return the page that takes its parts, and later states, from its server."""
    return _filled(
        {
            "style": '<link rel="stylesheet" href="style.css">',
            "plotly": '<script src="plotly.js" defer></script>',
            "script": '<script src="script.js" defer></script>',
            "snapshot": embedded("snapshot", to_json(page_state)),
        }
    )


def self_contained(page_state: PageState) -> str:
    """Return the page that needs nothing but a browser, and lets it load nothing."""
    script = page.script()
    return _filled(
        {
            "style": f"{sealed(script)}\n<style>{page.style()}</style>",
            "plotly": packed_plotly(),
            "script": inlined(script),
            "snapshot": embedded("snapshot", to_json(page_state)),
        }
    )


def sealed(script: str) -> str:
    """Return the tag that lets a page run this script and the charts' library, and load nothing."""
    hashes = " ".join(_hash(text) for text in (page.plotly(), page.unpacking(), script))
    policy = written(
        {**POLICY, "script-src": hashes, "style-src": "'unsafe-inline'", "connect-src": "'none'"}
    )
    return f'<meta http-equiv="Content-Security-Policy" content="{policy}">'


def packed_plotly() -> str:
    """Return the tags that hold the charts' library, packed, and run it."""
    packed = base64.b64encode(page.packed_plotly()).decode()
    return f'<script type="application/gzip" id="packed">{packed}</script>\n{inlined(page.unpacking())}'


def inlined(script: str) -> str:
    """Return the tag of a script that may stand in HTML; ours do as they are."""
    if "</script" in script.lower() or "<!--" in script:
        msg = "A script holds what would end it in HTML; it cannot be inlined."
        raise ValueError(msg)
    return f"<script>{script}</script>"


def embedded(name: str, data: str) -> str:
    """Return the tag of JSON that a script finds by its name, whatever texts it holds."""
    return f'<script type="application/json" id="{name}">{data.translate(ESCAPES)}</script>'


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _filled(tags: Mapping[str, str]) -> str:
    """Replace each placeholder of the template, which stands on a line of its own, by its tags."""
    lines = [tags.get(line.strip("{} "), line) if line.startswith("{{") else line for line in _template()]
    return "\n".join(lines) + "\n"


def _template() -> list[str]:
    return page.template().splitlines()
