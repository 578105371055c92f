# One image for the API, the worker, the migrations and the commands.
FROM python:3.13-slim-bookworm AS install
COPY requirements.txt .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r requirements.txt

FROM python:3.13-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home app
COPY --from=install /venv /venv
WORKDIR /app
COPY alembic.ini pyproject.toml ./
COPY migrations migrations
COPY shared shared
COPY api api
COPY worker worker
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER app
EXPOSE 8000
CMD ["uvicorn", "api.main:app", "--host", "0.0.0.0", "--port", "8000", "--no-access-log"]
