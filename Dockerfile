# One image for the API, the worker, the migrations and the commands.
FROM python:3.13-slim-bookworm AS install
COPY requirements.txt .
# Wheels only: nothing that is downloaded runs while the image is built.
RUN python -m venv --without-pip /venv \
    && pip --python /venv/bin/python install --no-cache-dir --only-binary=:all: --require-hashes -r requirements.txt
WORKDIR /app
COPY alembic.ini pyproject.toml ./
COPY migrations migrations
COPY shared shared
COPY api api
COPY worker worker
# Root's, readable by everybody whatever the modes in the checkout are, and compiled: the image is read-only.
RUN chmod -R u=rwX,go=rX . && python -m compileall -q .

FROM python:3.13-slim-bookworm
RUN groupadd --system --gid 10001 app \
    && useradd --system --uid 10001 --gid app --no-create-home --home-dir /nonexistent app \
    # Where LOG_FILE may lie: a volume that is mounted there for the first time takes its owner from here.
    && install --directory --owner=app --group=app /var/log/collection-sync
COPY --from=install /venv /venv
COPY --from=install /app /app
WORKDIR /app
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# By number: an orchestrator can see that it is not root's. Nothing is written, so `docker run --read-only`.
USER 10001:10001
EXPOSE 8000
CMD ["uvicorn", "api.main:app", "--host", "0.0.0.0", "--port", "8000", "--no-access-log"]
