# Two stages on one base, so that the virtual environment's interpreter is the same in both.
FROM python:3.11-slim AS build
ENV PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/cs-ingest
COPY requirements-build.txt requirements.txt /src/
RUN /opt/cs-ingest/bin/pip install --no-cache-dir --require-hashes -r /src/requirements-build.txt -r /src/requirements.txt
COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
RUN /opt/cs-ingest/bin/pip install --no-cache-dir --no-deps --no-build-isolation /src \
    && /opt/cs-ingest/bin/python -m compileall -q /opt/cs-ingest

FROM python:3.11-slim
ENV PATH=/opt/cs-ingest/bin:$PATH PYTHONDONTWRITEBYTECODE=1 CS_INGEST_LISTEN=0.0.0.0:8080
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin cs-ingest
COPY --from=build /opt/cs-ingest /opt/cs-ingest
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["cs-ingest", "probe"]
# The process handles SIGTERM itself: it drains, answers what is in flight, and exits with 0.
CMD ["cs-ingest", "serve"]
