"""The list as it is without the view: `uvicorn benchmarks.list_twins:straight`.

It is the product but for what it asks: its rows come straight from `collections`.
"""

from fastapi import FastAPI

import api.main
from api import listing
from api.access import IS_KNOWN

SHOWN = listing.SHOWN.replace("research_context AS description", "description")
STRAIGHT = f"""
    SELECT {SHOWN}
    FROM collections AS listed
    WHERE project_id = $1 AND is_active AND (SELECT {IS_KNOWN})
    {listing.ORDERED}
"""  # noqa: S608 - constants


def __getattr__(name: str) -> FastAPI:
    """Make the twin when a server asks for it."""
    if name != "straight":
        raise AttributeError(name)
    listing.LIST = STRAIGHT
    app: FastAPI = api.main.app
    return app
