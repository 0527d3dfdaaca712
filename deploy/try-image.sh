#!/usr/bin/env bash
# Builds the image and starts it for real, without a registry and without Docker: Debian's buildah builds over a base that
# mmdebstrap makes under the name that the Dockerfile asks for. Then a worker and the API run from it as uid 1000 with a
# read-only root, no capabilities and no shell, beside a Redis of this machine, and a trigger has to fire.
#
#   apt-get install --no-install-recommends buildah mmdebstrap redis-server     # and run this as root
#
# PIP_CONF names a pip.conf for the build, where pip needs one; KEEP=1 leaves the images in FOLDER. EXTRAS='[otel]' builds
# the image that can trace, and has API and worker do it.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${FOLDER:-$(mktemp -d)}
started=()
mounted=""
finish() {
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" || true; done
  if [ -n "$mounted" ]; then umount --recursive "$mounted" || true; fi
  if [ -z "${KEEP:-}" ]; then rm -rf --one-file-system "$folder"; fi
}
trap finish EXIT

b() { buildah --root "$folder/images" --runroot "$folder/run" --storage-driver vfs "$@"; }
base=$(sed -n 's/^ARG PYTHON=//p' Dockerfile)
suite=${base##*-}

# The base: Debian with its Python, where python:slim has one. It lacks nothing that the Dockerfile uses.
if ! b images --quiet "$base" >/dev/null 2>&1; then
  mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates,tzdata \
    --customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python3"' \
    "$suite" "$folder/base.tar"
  container=$(b from scratch)
  b add --quiet "$container" "$folder/base.tar" / >/dev/null
  b config --env PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  b commit --quiet "$container" "$base" >/dev/null
  rm "$folder/base.tar"
fi

secret=()
if [ -n "${PIP_CONF:-}" ]; then secret=(--secret "id=pip.conf,src=$PIP_CONF"); fi
# The certificates of this machine are there for the build, and not in the image.
b build --quiet --isolation chroot --format docker --build-arg "EXTRAS=${EXTRAS:-}" "${secret[@]}" -v /etc/ssl/certs:/etc/ssl/certs:ro \
  -t cronspace . >/dev/null

container=$(b from --pull-never cronspace)
mounted=$(b mount "$container")
echo "image: $(du -sm "$mounted/opt/cronspace" | cut -f1) MB of ours on a base of $(b images --format '{{.Size}}' "$base")"
if [ -e "$mounted/etc/pip.conf" ]; then echo "the build left a pip.conf in the image" >&2; exit 1; fi

# What a container runtime does, as far as it matters here.
mount --bind "$mounted" "$mounted"
mount --bind /proc "$mounted/proc"
mount --bind /dev "$mounted/dev"
for shell in "$mounted"/usr/bin/{sh,dash,bash}; do rm -f "$shell"; done
mount -o remount,bind,ro "$mounted"
config() { # FIELD: its values, one a line
  b inspect "$container" | python3 -c '
import json, sys
found = json.load(sys.stdin)["Docker"]["config"][sys.argv[1]]
found = found["Test"][1:] if isinstance(found, dict) else found
print(found if isinstance(found, str) else "\n".join(found))' "$1"
}
user=$(config User)
mapfile -t environment < <(config Env)
mapfile -t entrypoint < <(config Entrypoint)
mapfile -t health < <(config Healthcheck)
[ "$user" = 1000:1000 ]
inside() { # NAME=VALUE … COMMAND …
  exec env -i "${environment[@]}" chroot "$mounted" setpriv --reuid "${user%:*}" --regid "${user#*:}" \
    --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs env "$@"
}

port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
api=$(port) worker=$(port) redis=$(port)
key=$(head -c 24 /dev/urandom | base64)
redis-server --port "$redis" --bind 127.0.0.1 --dir "$folder" --save "" --appendonly yes --maxmemory-policy noeviction \
  >/dev/null &
started+=($!)
common=("REDIS_URL=redis://127.0.0.1:$redis/0" CRONSPACE_HOST=127.0.0.1)
case ${EXTRAS:-} in *otel*) common+=(CRONSPACE_TRACES=1 OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:9) ;; esac
of_api=("${common[@]}" "PORT=$api" CRONSPACE_AUTH=tokens "CRONSPACE_ADMIN_KEY=$key" CRONSPACE_ECHO=1)
of_worker=("${common[@]}" "CRONSPACE_WORKER_PORT=$worker" CRONSPACE_EGRESS_ALLOW=127.0.0.0/8)
inside "${of_api[@]}" "${entrypoint[@]}" api &
started+=($!)
inside "${of_worker[@]}" "${entrypoint[@]}" worker &
started+=($!)

begun=$(date +%s%N)
eventually() { # COMMAND …: until it succeeds, for half a minute
  for _ in $(seq 300); do if "$@" >/dev/null 2>&1; then return; fi; sleep 0.1; done
  echo "not within 30 s:" >&2
  "$@"
}
healthy() { (inside "$@"); }
eventually healthy "${of_api[@]}" "${health[@]}"
eventually healthy "${of_worker[@]}" "${health[@]}"
echo "API and worker are healthy after $((($(date +%s%N) - begun) / 1000000)) ms"
(inside "${entrypoint[@]}" --version)
(inside python -c '
import os
assert os.getuid() == os.getgid() == 1000 and not os.path.exists("/bin/sh")
assert "CapBnd:\t0000000000000000" in open("/proc/self/status").read()
assert os.stat("/var/lib/cronspace").st_uid == 1000 != os.stat("/var/lib").st_uid
assert not any(os.access(path, os.W_OK) for path in ("/", "/tmp", "/opt/cronspace", "/var/tmp"))')

ask() { curl -fsS -H "Authorization: Bearer $key" "$@"; }
workspace="127.0.0.1:$api/api/workspaces/try"
ask "$workspace/triggers" >/dev/null \
  -d "{\"triggers\": [{\"cron\": \"* * * * * *\", \"url\": \"http://127.0.0.1:$api/echo\", \"method\": \"GET\"}]}"
fired() { ask "$workspace/executions?state=succeeded" | grep -q '"state":"succeeded"'; }
eventually fired
echo "a trigger fired"
for pid in "${started[@]:1}"; do
  kill -TERM "$pid"
  wait "$pid" || [ $? = 143 ] # uvicorn ends by the signal that it was told to stop by
done
started=("${started[0]}")
echo "API and worker stopped on SIGTERM: all is well"
