"""What each variable of the environment is for, by the name of its field in `shared.settings`.

`--help` and the fields' descriptions are made of this, so it imports nothing.
"""

SETTINGS = {
    "database_url": "PostgreSQL: postgres:// or postgresql://, as libpq takes it.",
    "database_pooler": "`transaction` where DATABASE_URL leads to a pooler such as PgBouncer.",
    "redis_url": "Redis or Valkey, the doorbell between API and worker. May be away.",
    "log_file": "Write this process's JSON log lines here too.",
    "read_only_mode": "Answer every write with 403.",
    "gateway_token": "When set, requests must carry it: User-ID alone proves nothing.",
    "admin_token": "Opens the admin routes to requests that carry it; they are closed without.",
    "shadow_share": "Of all lists, how many are compared from both sides in the phases that compare: 0 to 1.",
    "dead_letter_retention_days": "Days after which a closed dead letter is removed, and an idle tombstone.",
    "phase_writers_seconds": "So long nobody was seen writing past the outbox, before the phase is advanced.",
    "phase_in_sync_seconds": "So long audits found no drift, before lists are compared.",
    "phase_lists_compared": "Lists that are compared without a mismatch before reads are moved.",
    "worker_metrics_port": "Serve the worker's metrics to Prometheus on this port.",
    "worker_metrics_host": "The address to serve them on; 127.0.0.1 unless set.",
}
PHASE = {name: meaning for name, meaning in SETTINGS.items() if name.startswith("phase_")}
WORKER = {
    name: meaning
    for name, meaning in SETTINGS.items()
    if name not in {"read_only_mode", "gateway_token", "admin_token", "shadow_share", *PHASE}
}
COMMANDS = {
    "database_url": SETTINGS["database_url"],
    "database_pooler": SETTINGS["database_pooler"],
    "log_file": SETTINGS["log_file"],
    "redis_url": "Redis or Valkey, to wake the workers at once. Not required.",
}
# Those of `python -m worker.phase`.
TURNS = COMMANDS | PHASE
