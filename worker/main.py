"""The worker's composition root: the arq jobs and their settings, and the process around them."""

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
from arq.connections import ArqRedis, RedisSettings
from arq.worker import func

from shared.logs.setup import configure_logging
from shared.planner import BATCHES
from shared.postgres.advice import advice_on
from shared.postgres.database import create_engine, refuse_wrong_pooler
from shared.process.streams import open_closed
from shared.redis.client import open_pool, open_redis
from shared.redis.deployment import UNLEARNED, Deployment, learned_names
from shared.redis.doorbell import DRAIN_JOB, from_json, to_json
from shared.settings import Settings, SettingsError, load_settings, refuse
from shared.tracing import Tracing
from worker.capture.counting import CaptureUpkeep
from worker.dead_letters.upkeep import LetterUpkeep
from worker.doorbell.arq_worker import WakeableWorker
from worker.drainer import CONNECTIONS, Drainer
from worker.duties import CONNECTIONS as DUTIES_CONNECTIONS
from worker.duties import Duties
from worker.going_back import LossUpkeep
from worker.idempotency import KeyUpkeep
from worker.shadow import ShadowUpkeep
from worker.telemetry.metrics import WorkerMetrics
from worker.tombstones import TombstoneUpkeep
from worker.vitals.health import HEALTH_SECONDS, own_health_key
from worker.vitals.heartbeat import Heart
from worker.vitals.own_name import own_name
from worker.vitals.presence import Presence
from worker.vitals.runs import RunWatch
from worker.vitals.snapshot_holders import SnapshotWatch

logger = structlog.get_logger(__name__)

JOB_TIMEOUT_SECONDS = 30
COMPLETION_WAIT_SECONDS = 10
POLL_SECONDS = 0.5
NO_QUEUE = "collection_sync:none"  # of arq's; `WakeableWorker` asks for the name, and reads its queue itself

# A batch that a crash of the server takes back is pending again, whole: its commit need not wait for
# the disk.
TAKEN_BACK_WHOLE = {"synchronous_commit": "off"}
# A session that holds a row of the target delays that row's event, and no others: see settle.py.
NOT_HELD_UP = {"lock_timeout": "2s"}


async def drain_outbox(ctx: dict[str, Any]) -> None:
    """Start a drain of everything pending; it is not the job's, so no timeout of arq cuts it off.

    Arq's own worker runs it, and once more when the job is gone: a ring that came meanwhile queued none.
    """
    ctx["drainer"].wake("doorbell")


async def start(ctx: dict[str, Any]) -> None:
    """Log that the worker begins; arq calls it once.

    Raises:
        MetricsPortError: its metrics cannot be served.
        PoolerError: its sessions would not be what they must be.

    """
    configure_logging("worker", ctx["log_file"], sys.stdout)
    await refuse_wrong_pooler(ctx["engines"][0])
    ctx["tracing"].start()
    if ctx["metrics"] is not None:
        ctx["metrics_server"] = ctx["metrics"].serve(*ctx["metrics_address"])
    ctx["duties"].start()
    logger.info("worker_started", worker=own_name(), pid=os.getpid(), health_key=ctx["health_key"])


async def start_or_refuse(ctx: dict[str, Any]) -> None:
    """Do the same for arq's own command, which would print a traceback."""
    try:
        await start(ctx)
    except SettingsError as error:
        refuse(error)


async def stop(ctx: dict[str, Any]) -> None:
    """Finish what is in hand, close the database and log that the worker ended; arq calls it once."""
    await asyncio.gather(ctx["drainer"].stop(), ctx["duties"].stop())
    for engine in ctx["engines"]:
        await engine.dispose()
    await ctx["bell"].aclose()
    if "metrics_server" in ctx:
        await asyncio.to_thread(ctx["metrics_server"].shutdown)
        ctx["metrics_server"].server_close()
    ctx["tracing"].stop()
    logger.info("worker_stopped", worker=own_name(), pid=os.getpid())


def arq_settings(settings: Settings) -> dict[str, Any]:
    """Return the arguments of arq's `Worker` but for the connection to Redis. Does no I/O."""
    engine = create_engine(
        settings,
        application_name="collection-sync worker",
        pool_size=CONNECTIONS,
        statement_timeout_seconds=30,
        session=BATCHES | TAKEN_BACK_WHOLE | NOT_HELD_UP,
    )
    duties_engine = create_engine(
        settings,
        application_name="collection-sync duties",
        pool_size=DUTIES_CONNECTIONS,
        statement_timeout_seconds=30,
    )
    presence = Presence(duties_engine, own_name())
    snapshots = SnapshotWatch(duties_engine)
    metrics = WorkerMetrics() if settings.worker_metrics_port else None
    deployment = Deployment.of(duties_engine)
    drainer = Drainer(engine, presence, [metrics] if metrics else [])
    heart = Heart(
        duties_engine,
        own_name(),
        watch=metrics.observe_heartbeat if metrics else None,
        others=[engine],
    )
    bell = open_redis(settings.redis_url.get_secret_value())
    health_key = own_health_key(settings)
    return {
        "functions": [func(drain_outbox, name=DRAIN_JOB, timeout=JOB_TIMEOUT_SECONDS, keep_result=0)],
        "after_job_end": drain_outbox,
        "queue_name": NO_QUEUE,
        "on_startup": start,
        "on_shutdown": stop,
        "ctx": {
            "engines": (engine, duties_engine),
            "bell": bell,
            "drainer": drainer,
            "deployment": deployment,
            "heart": heart,
            "duties": Duties(
                duties_engine,
                bell,
                drainer=drainer,
                deployment=deployment,
                presence=presence,
                heart=heart,
                letters=LetterUpkeep(duties_engine, settings.dead_letter_retention_days),
                tombstones=TombstoneUpkeep(duties_engine, settings.dead_letter_retention_days),
                keys=KeyUpkeep(duties_engine),
                shadow=ShadowUpkeep(duties_engine),
                captured=CaptureUpkeep(duties_engine, metrics.writes_captured if metrics else None),
                losses=LossUpkeep(duties_engine),
                snapshots=snapshots,
                runs=RunWatch(duties_engine, snapshots, metrics.observe_runs) if metrics else None,
            ),
            "metrics": metrics,
            "metrics_address": (settings.worker_metrics_host, settings.worker_metrics_port),
            "tracing": Tracing("worker"),
            "log_file": settings.log_file,
            "health_key": health_key,
        },
        "keep_result": 0,  # a kept result makes arq refuse the next job of the same id
        "job_timeout": JOB_TIMEOUT_SECONDS,
        "job_completion_wait": COMPLETION_WAIT_SECONDS,
        "poll_delay": POLL_SECONDS,
        "max_jobs": 4,
        "health_check_key": health_key,
        "health_check_interval": HEALTH_SECONDS,
        "job_serializer": to_json,
        "job_deserializer": from_json,
        "log_results": False,
    }


def __getattr__(name: str) -> dict[str, Any]:
    """Offer `WorkerSettings` to `arq worker.main.WorkerSettings`, reading the environment only then.

    That command runs arq's stock worker: it ends when Redis does and wakes by polling a queue, whose name
    only PostgreSQL knows.
    """
    if name != "WorkerSettings":
        raise AttributeError(name)
    open_closed()  # before arq makes its loop
    try:
        settings = load_settings(Settings)
        with ThreadPoolExecutor(1) as apart:  # arq's command has a loop of its own
            names = apart.submit(asyncio.run, learned_names(settings)).result()
    except SettingsError as error:
        refuse(error)
    except UNLEARNED as error:
        why = advice_on(error) or f"PostgreSQL does not answer ({type(error).__name__})."
        sys.exit(f"The name of the queue is not known: {why}")
    return {
        **arq_settings(settings),
        "on_startup": start_or_refuse,
        "redis_settings": RedisSettings.from_dsn(settings.redis_url.get_secret_value()),
        "queue_name": names.queue,
    }


def build_worker(settings: Settings, arguments: dict[str, Any]) -> WakeableWorker:
    """Make the worker of `python -m worker` from the arguments of `arq_settings`. Does no I/O."""
    url = settings.redis_url.get_secret_value()
    return WakeableWorker(
        drainer=arguments["ctx"]["drainer"],
        heart=arguments["ctx"]["heart"],
        deployment=arguments["ctx"]["deployment"],
        listener=open_redis(url),
        redis_pool=ArqRedis(
            open_pool(url),
            job_serializer=to_json,
            job_deserializer=from_json,
            default_queue_name=NO_QUEUE,
        ),
        **arguments,
    )


async def serve(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT; the batch in hand is finished first."""
    worker = build_worker(settings, arq_settings(settings))
    try:
        await worker.async_run()
    finally:
        await worker.close()
