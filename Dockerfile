# One image for the API, the worker, the migrations and the commands: docs/deploy/containers.md.
# The tag is exact. For the same bytes for ever, add the digest that `docker buildx imagetools inspect` shows.
FROM python:3.13.16-slim-trixie AS install
WORKDIR /build
COPY requirements.txt ./
# Wheels only: nothing that is downloaded runs while the image is built, and nothing has to be compiled.
RUN python -m venv --without-pip /venv \
    && python -m pip --python /venv/bin/python install --no-cache-dir --only-binary=:all: --require-hashes -r requirements.txt \
    # Without the packages' own test suites and what they were compiled from.
    && find /venv \( -type d \( -name tests -o -name testing \) -o -name '*.pyx' -o -name '*.pxd' -o -name '*.[ch]' \) -prune -exec rm -r {} +
WORKDIR /app
COPY alembic.ini pyproject.toml ./
COPY migrations migrations
COPY shared shared
COPY api api
COPY worker worker
# Root's, readable by every user whatever the modes in the checkout are, and compiled: the image is read-only.
RUN chmod -R u=rwX,go=rX . && python -m compileall -q .

FROM python:3.13.16-slim-trixie
LABEL org.opencontainers.image.title="collection-sync" \
      org.opencontainers.image.description="Keeps project_collections in step with collections." \
      org.opencontainers.image.version="0.2.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/python:3.13.16-slim-trixie"
RUN groupadd --system --gid 10001 app \
    && useradd --system --uid 10001 --gid app --no-create-home --home-dir /nonexistent app \
    # Where LOG_FILE may lie: a volume that is mounted there for the first time takes its owner from here.
    && install --directory --owner=app --group=app /var/log/collection-sync
COPY --from=install /venv /venv
COPY --from=install /app /app
WORKDIR /app
# Platforms choose the API's port with PORT. Where it is unset or empty, server and health check take DEFAULT_PORT.
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 DEFAULT_PORT=8000
# By number: an orchestrator can see that it is not root's. Nothing is written, so `docker run --read-only`.
USER 10001:10001
EXPOSE $DEFAULT_PORT
# The API's; no proxy that HTTP_PROXY names stands between. A worker has its own (`python -m worker --check`), and what
# ends by itself needs none.
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os; e = os.environ; c = h.HTTPConnection('127.0.0.1', int(e.get('PORT') or e['DEFAULT_PORT']), timeout=5); c.request('GET', '/readyz'); exit(c.getresponse().status != 200)"]
# An empty host is every address of IPv4 and IPv6; "::" would be IPv6 alone.
# Requests in hand are finished before it ends: 20 s is more than the longest statement may take.
CMD ["sh", "-c", "exec uvicorn api.main:app --host '' --port \"${PORT:-$DEFAULT_PORT}\" --no-access-log --timeout-graceful-shutdown 20"]
