"""What a page of ours lets the browser do: load what its own server has, and nothing beyond its need."""

from collections.abc import Mapping
from typing import Final

POLICY: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
}


def written(policy: Mapping[str, str]) -> str:
    """Return the policy as Content-Security-Policy takes it."""
    return "; ".join(f"{name} {value}" for name, value in policy.items())


def page_headers(policy: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a page under this policy: it stands in no frame, no other site hears of it."""
    return {
        "Content-Security-Policy": written({**policy, "frame-ancestors": "'none'"}),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
