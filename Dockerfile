# The web page and the API of the released model, or of a RUN mounted at /model: no TensorFlow inside.
# Build: docker build -t dermafuse:0.1.0 .
FROM python:3.11-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN python -m venv /opt/dermafuse \
    && /opt/dermafuse/bin/pip install --no-cache-dir --constraint constraints.txt ".[serve]"

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin dermafuse
COPY --from=build /opt/dermafuse /opt/dermafuse
ENV PATH=/opt/dermafuse/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    DERMAFUSE_CACHE=/tmp/dermafuse
USER 10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)"]
ENTRYPOINT ["dermafuse", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["--api-key-file", "/run/secrets/dermafuse_key"]
