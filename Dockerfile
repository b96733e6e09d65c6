# syntax=docker/dockerfile:1
# Targets: api (serves REST and the dashboard, no torch in it) and worker (trains; CPU and CUDA).

FROM node:22-slim AS dashboard
WORKDIR /build/frontend
COPY frontend/package.json frontend/package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY frontend ./
RUN npm run build

FROM python:3.13-slim AS source
WORKDIR /opt/clipwise
COPY pyproject.toml README.md LICENSE ./
COPY core core
COPY api api
COPY worker worker
COPY migrations migrations

FROM python:3.13-slim AS runtime
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The shared volume takes its owner from this folder when it is first mounted.
RUN useradd --uid 10001 --create-home clipwise \
    && install --directory --owner clipwise --group clipwise /var/lib/clipwise /var/lib/clipwise/artifacts
WORKDIR /var/lib/clipwise

FROM runtime AS api
COPY --from=source /opt/clipwise /opt/clipwise
COPY --from=dashboard /build/api/clipwise_api/dashboard /opt/clipwise/api/clipwise_api/dashboard
RUN pip install '/opt/clipwise[api]'
USER clipwise
EXPOSE 8470
CMD ["clipwise", "api"]

FROM runtime AS worker
ARG TORCH_INDEX_URL=""
COPY --from=source /opt/clipwise /opt/clipwise
RUN pip install torch ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} \
    && pip install '/opt/clipwise[worker]'
USER clipwise
CMD ["clipwise", "worker"]
