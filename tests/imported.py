"""Everything that the product imports, imported: what the server of `tests/forked.py` has behind it."""

import gc
import importlib
import pkgutil

# What uvicorn chooses by name when it starts.
SERVERS = (
    "uvicorn.main",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.httptools_impl",
)

for package in ("api", "shared", "worker"):
    for module in pkgutil.walk_packages([package], f"{package}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
for name in ("alembic.config", *SERVERS):
    importlib.import_module(name)
gc.collect()
gc.freeze()  # or each child's first collection would touch, and so copy, all of it
