"""The systems that are compared, each by its own documentation. These modules run in its environment.

A module of a system is a `benchmarks.peers.systems.system.System`. But for the system itself, asyncpg and
uvloop, what runs in a peer's environment imports only the standard library and its neighbours here.
"""
