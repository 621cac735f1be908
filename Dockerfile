# Built by `docker build -t roomscribe .`; how to run it is in README.md.

FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY . .
# The Makefile's own set-up, at the path the runtime stage has: a venv cannot be moved.
RUN VENV=/opt/roomscribe EDITABLE=no LOCKED=yes PYTHON=/usr/local/bin/python3 .ci/setup

FROM python:3.12-slim
COPY --from=build /opt/roomscribe /opt/roomscribe
RUN useradd --uid 10001 --user-group --home-dir /data --no-create-home --shell /usr/sbin/nologin roomscribe \
    && install -d -o roomscribe -g roomscribe -m 0750 /data
# In a container loopback would reach nobody: it asks for AUTH__SECRET.
ENV PATH=/opt/roomscribe/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SERVER__HOST=0.0.0.0 \
    SERVER__PORT=8080 \
    DATA_DIR=/data
WORKDIR /data
VOLUME /data
EXPOSE 8080
USER roomscribe
HEALTHCHECK --interval=10s --timeout=4s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, ssl, sys; s = ssl.create_default_context(); s.check_hostname = False; s.verify_mode = ssl.CERT_NONE; tls = os.environ.get('SERVER__TLS') or b'--tls' in open('/proc/1/cmdline', 'rb').read(); at = ('127.0.0.1', int(os.environ['SERVER__PORT'])); c = http.client.HTTPSConnection(*at, timeout=3, context=s) if tls else http.client.HTTPConnection(*at, timeout=3); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
# SIGTERM flushes the finals within 5 s, inside the 10 s that docker stop waits.
CMD ["roomscribe"]
