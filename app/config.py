"""The settings: one table, read from the environment once, checked at the start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, get_args, get_type_hints

import msgspec
from msgspec import Meta

from app.egress import parse_ports, parse_rules
from app.errors import ConfigError
from app.sealing import parse_keys

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(gt=0)]


SENTINEL_SCHEMES = ("redis+sentinel://", "rediss+sentinel://")
CLUSTER_SCHEMES = ("redis+cluster://", "rediss+cluster://")
REDIS_SCHEMES = ("redis://", "rediss://", "unix://", *SENTINEL_SCHEMES, *CLUSTER_SCHEMES)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings with their defaults; :data:`HELP` explains each, :func:`env_of` names it."""

    redis_url: str = "redis://127.0.0.1:6379/0"
    redis_ca_file: str = ""
    redis_check_name: bool = True
    shards: Annotated[int, Meta(ge=1, le=1024)] = 1
    worker_shards: str = ""
    wait_replicas: Count = 0
    wait_replicas_seconds: Annotated[float, Meta(gt=0, le=4)] = 1.0
    host: str = "127.0.0.1"
    port: Port = 3000
    log_level: str = "INFO"
    log_format: str = "auto"
    statistics_seconds: Annotated[float, Meta(ge=0)] = 60.0
    metrics: str = "public"
    metrics_workspaces: Annotated[int, Meta(ge=0, le=1000)] = 0
    traces: bool = False
    echo: bool = False

    auth: str = ""
    auth_none_anywhere: bool = False
    allowed_hosts: str = ""
    admin_key: str = ""
    max_api_keys: Positive = 1000
    key_cache_seconds: Annotated[float, Meta(ge=0, le=300)] = 5.0
    jwt_secret: str = ""
    jwt_jwks: str = ""
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_leeway_seconds: Annotated[float, Meta(ge=0, le=300)] = 30.0
    jwt_workspaces_claim: str = "workspaces"
    jwt_scope_claim: str = "scope"
    docs: str = "public"
    trusted_proxies: str = ""
    rate_limit_key: Count = 0
    rate_limit_workspace: Count = 0
    keep_audit: Positive = 10_000
    encryption_keys: str = ""

    on_data_loss: str = "hold"
    data_loss_tolerance_seconds: Annotated[float, Meta(ge=0)] = 10.0
    max_clock_jump_seconds: Annotated[float, Meta(ge=0)] = 60.0
    state_dir: str = ""

    worker_port: Port = 0
    max_jobs: Positive = 100
    workers_on_duty: Positive = 3
    max_concurrency: Count = 10
    max_rate: Annotated[float, Meta(ge=0, le=100_000)] = 0.0
    max_concurrency_per_host: Count = 0
    worker_name: str = ""
    lease_seconds: Annotated[float, Meta(ge=1)] = 15.0
    grace_seconds: Annotated[float, Meta(ge=0)] = 8.0
    poll_seconds: Annotated[float, Meta(gt=0, le=60)] = 1.0
    look_ahead_seconds: Seconds = 60.0
    start_deadline_seconds: Seconds = 60.0
    fire_batch: Annotated[int, Meta(ge=1, le=1000)] = 500
    claim_batch: Annotated[int, Meta(ge=1, le=1000)] = 100
    max_backlog: Count = 100_000
    max_takeovers: Positive = 10
    max_catch_up: Positive = 1000
    max_backfill: Positive = 1000

    egress_allow: str = ""
    egress_deny: str = ""
    egress_ports: str = ""
    egress_ca_file: str = ""

    max_triggers: Positive = 10_000
    max_set_bytes: Positive = 67_108_864
    max_kept_bytes: Positive = 67_108_864
    max_timeout_seconds: Annotated[float, Meta(gt=0, le=3600)] = 3600.0
    max_workspaces: Count = 0
    max_secrets: Count = 100
    max_secret_bytes: Annotated[int, Meta(ge=16, le=1_048_576)] = 4096
    max_body_bytes: Positive = 8_388_608
    max_head_bytes: Annotated[int, Meta(ge=1024)] = 65_536
    receive_seconds: Seconds = 30.0
    confirm_delete_share: Annotated[float, Meta(ge=0, le=1)] = 0.0
    snippet_bytes: Count = 4096
    max_response_bytes: Count = 1_048_576

    keep_succeeded_seconds: Positive = 86_400
    keep_succeeded: Count = 100
    keep_failed: Count = 1000
    keep_days: Positive = 90
    keep_timings_days: Positive = 90
    keep_slots: Count = 50
    keep_runs: Positive = 50
    keep_revisions: Positive = 20


HELP: dict[str, str] = {
    "redis_url": (
        "Redis: redis://[user:password@]host:port/db, rediss://… with TLS, or unix:///path?db=0; by Sentinel"
        " redis+sentinel://[user:password@]host:26379,host:26379/mymaster/db, where"
        " ?sentinel_username=…&sentinel_password=… are for the sentinels themselves; a Redis Cluster by some"
        " of its nodes redis+cluster://[user:password@]host:port,host:port; both with rediss+… for TLS"
    ),
    "redis_ca_file": "File of CA certificates for rediss://; empty: the system's",
    "redis_check_name": (
        "1: with TLS, Redis's certificate has to have the host name or address that is connected to; of a"
        " cluster and of Sentinel the one that they announce. 0: any certificate of the authority will do"
    ),
    "shards": (
        "Shards that workspaces are spread over, each with a hash tag of its own; the same in every process."
        " `cronspace reshard` changes it where workspaces are stored"
    ),
    "worker_shards": "Shards that a worker serves, such as 0-3,7; empty: all",
    "wait_replicas": (
        "Replicas of Redis that have to have a change before the API acknowledges it; 0: none has to"
    ),
    "wait_replicas_seconds": "How long they are waited for; then the answer is 503, stored but not confirmed",
    "host": "Address that the API listens on; 0.0.0.0 for all",
    "port": "Port of the API; 0 takes a free one",
    "log_level": "DEBUG, INFO, WARNING, ERROR or CRITICAL",
    "log_format": "json (an object a line), text, or auto: text in a terminal, json elsewhere",
    "statistics_seconds": (
        "How often a worker logs what it did (checks, executions, failures, last times); 0: never"
    ),
    "metrics": (
        "Who may see /metrics of API and workers: public, authenticated (who may call the API and see all"
        " workspaces; of a worker: API keys) or off"
    ),
    "metrics_workspaces": (
        "How many workspaces, the first by id, have figures of their own in /metrics; 0: none"
    ),
    "traces": "Export OpenTelemetry traces, as the OTEL_* variables say; needs `pip install cronspace[otel]`",
    "echo": "Serve /echo, which answers with the request it got: a target to try things",
    "auth": (
        "Who may call the API: tokens (API keys), jwt (JSON Web Tokens, and API keys), or none (everybody)."
        " Has to be chosen for `cronspace api`; `cronspace dev` has none"
    ),
    "auth_none_anywhere": (
        "Let CRONSPACE_AUTH=none listen on other addresses than loopback: everybody who can reach them"
        " may do everything"
    ),
    "allowed_hosts": (
        "Names, comma-separated, beside localhost and addresses, that the API may be called by with"
        " CRONSPACE_AUTH=none: cronspace.internal, .example.com (all below it), * (any, and then web pages"
        " may read what it answers)"
    ),
    "admin_key": (
        "The first key: scope admin, all workspaces; at least 24 random characters, such as from"
        " `openssl rand -hex 32`. Empty: there is none"
    ),
    "max_api_keys": "API keys that there may be at once",
    "key_cache_seconds": (
        "How long the other API processes may go on taking a key that was deleted; 0: ask Redis every time"
    ),
    "jwt_secret": "Secret of HS256 tokens, at least 32 bytes; empty: none are taken",
    "jwt_jwks": (
        "File or https:// URL of the JWK set that RS256 and ES256 tokens are checked with; empty: none are"
        " taken"
    ),
    "jwt_issuer": "The `iss` that tokens have to have; required with a JWK set",
    "jwt_audience": "The `aud` that tokens have to have; required with a JWK set",
    "jwt_leeway_seconds": "How far the issuer's clock and ours may differ",
    "jwt_workspaces_claim": "The claim with the caller's workspaces: a list of ids, or *",
    "jwt_scope_claim": (
        "The claim with the caller's scope: read, operate, write or admin; other words in it are passed over"
    ),
    "docs": "Who may see /docs and /openapi.json: public, authenticated (who may call the API) or off",
    "trusted_proxies": (
        "Addresses and networks, comma-separated, of proxies whose X-Forwarded-For is believed"
    ),
    "rate_limit_key": (
        "Calls a minute of one API key (or token's subject; with no authentication, address); 0: no bound"
    ),
    "rate_limit_workspace": "Calls a minute on one workspace, of all callers together; 0: no bound",
    "keep_audit": "How many changes the audit of a workspace keeps, and that of what belongs to none; about",
    "encryption_keys": (
        "Keys, comma-separated, each base64 of 32 random bytes, such as from `openssl rand -base64 32`: the"
        " first encrypts URLs, header values, payloads and secrets in Redis, all decrypt. Empty: they are"
        " stored as they are"
    ),
    "on_data_loss": (
        "What happens when Redis was emptied or rolled back: hold (nothing is fired until an admin resumes)"
        " or continue"
    ),
    "data_loss_tolerance_seconds": (
        "A shorter time that Redis lost is logged and recorded, and never holds firing: a failover or a crash"
        " may lose the last second"
    ),
    "max_clock_jump_seconds": (
        "A longer jump of Redis's clock holds firing until the clock is back or an admin resumes; 0: never"
    ),
    "state_dir": (
        "Folder in which each host keeps what it saw of Redis last, so that a loss is noticed although every"
        " process restarted; empty: in memory only"
    ),
    "worker_port": "Port of a worker's /live, /ready and /metrics, at the address CRONSPACE_HOST; 0: none",
    "max_jobs": "Requests at once in one worker",
    "workers_on_duty": (
        "Workers that look for work all the time, for each shard; the others when there is more than these"
        " have places for"
    ),
    "max_concurrency": "Executions at once of one workspace over all workers; 0: no bound",
    "max_rate": (
        "Requests a second of one workspace over all workers, evenly spread; fractions such as 0.5 are fine;"
        " 0: no bound"
    ),
    "max_concurrency_per_host": (
        "Requests at once to one target host, of all workspaces and workers of a shard together; more wait."
        " 0: no bound"
    ),
    "worker_name": "Name in the records of attempts; empty: host name and process id",
    "lease_seconds": "After this time a dead worker's executions are taken over",
    "grace_seconds": "What running requests get to finish when a worker stops",
    "poll_seconds": "Longest sleep of a worker between two looks",
    "look_ahead_seconds": "How far ahead slots are computed and held in Redis (two are held at least)",
    "start_deadline_seconds": "A slot found later than this is recorded as missed instead of being sent",
    "fire_batch": "Slots that one call of the fire script handles",
    "claim_batch": "Executions that one call of the claim script takes",
    "max_backlog": (
        "Executions that may wait for a place in one workspace, and (1,000 at least) for a time, as retries"
        " do; more are skipped"
    ),
    "max_takeovers": "Workers that one execution may lose before it fails (a request that kills its worker)",
    "max_catch_up": "Missed slots that are caught up at most, of one trigger after an outage; the newest",
    "max_backfill": "Executions that one backfill or bulk retry makes at most",
    "egress_allow": (
        "Hosts and networks that requests may go to although their addresses are not public, comma-separated:"
        " 10.0.0.0/8, hooks.internal, .svc.cluster.local (all below it), * (everything)"
    ),
    "egress_deny": "Hosts and networks that no request may go to; *: all that the allow list does not name",
    "egress_ports": "Ports that requests may go to, comma-separated; empty: all",
    "egress_ca_file": "File of CA certificates that targets are held against; empty: the system's",
    "max_triggers": "Triggers that a workspace's set may hold",
    "max_set_bytes": (
        "Bytes that the definitions of a workspace's set may take, as they are stored; and what leads back to"
        " former revisions, of which the oldest go"
    ),
    "max_kept_bytes": (
        "Bytes of the requests of their own that open runs and retries of a workspace may carry; and of those"
        " that its dead letters keep, of which the oldest go"
    ),
    "max_timeout_seconds": (
        "Longest time-out of an attempt: a longer one is refused, and one that is stored already is cut to it"
    ),
    "max_workspaces": "Workspaces that there may be; 0: no bound",
    "max_secrets": "Named secrets that a workspace may have",
    "max_secret_bytes": "Largest value of a named secret",
    "max_body_bytes": "Largest request body that the API reads",
    "max_head_bytes": "Largest URL and headers, together, that is read",
    "receive_seconds": "How long the API waits for the head of a request, and then for its body",
    "confirm_delete_share": (
        "A replace that deletes more than this share of a set (0 to 1) needs ?confirm=true; 0: never"
    ),
    "snippet_bytes": "What is kept of a target's response",
    "max_response_bytes": "What is read of a target's response before the connection is closed",
    "keep_succeeded_seconds": "How long succeeded, cancelled, skipped and missed executions are kept",
    "keep_succeeded": (
        "How many succeeded, and how many cancelled, skipped and missed executions a workspace keeps"
    ),
    "keep_failed": "How many failed executions (dead letters) a workspace keeps",
    "keep_days": "How many days the daily counters are kept",
    "keep_timings_days": (
        "How many of these days have durations and latenesses, which take most of the ledger's memory"
    ),
    "keep_slots": "How many of its last slots each trigger remembers",
    "keep_runs": "How many runs of exceptional slots the ledger keeps of each trigger",
    "keep_revisions": "How many revisions of its set each workspace keeps",
}


def env_of(name: str) -> str:
    """The environment variable of a setting."""
    return _UNPREFIXED.get(name, f"CRONSPACE_{name.upper()}")


_UNPREFIXED = {"redis_url": "REDIS_URL", "port": "PORT"}  # platforms give them under these names

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off", ""}
CHOICES = {
    "auth": ("", "tokens", "jwt", "none"),
    "docs": ("public", "authenticated", "off"),
    "on_data_loss": ("hold", "continue"),
    "metrics": ("public", "authenticated", "off"),
    "log_format": ("auto", "json", "text"),
}
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def load_settings(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Read the environment; ``overrides`` win. Raises :class:`ConfigError` for what can't be used."""
    environ = os.environ if environ is None else environ
    known = {env_of(name): name for name in HELP}
    for env in environ:
        if env.startswith("CRONSPACE_") and env not in known and env not in RESERVED:
            near = get_close_matches(env, known, n=1, cutoff=0.8)
            hint = f"did you mean {near[0]}?" if near else "see .env.example for all of them"
            raise ConfigError(f"unknown setting {env}: {hint}")
    values: dict[str, Any] = {}
    hints = get_type_hints(Settings, include_extras=True)
    for env, name in known.items():
        if env in environ:
            values[name] = _read(env, environ[env], hints[name])
    settings = Settings(**{**values, **overrides})
    if settings.log_level not in LOG_LEVELS:
        raise ConfigError(
            f"CRONSPACE_LOG_LEVEL is {settings.log_level!r}: use one of {', '.join(LOG_LEVELS)}"
        )
    for name, choices in CHOICES.items():
        if getattr(settings, name) not in choices:
            shown = " or ".join(filter(None, choices))
            raise ConfigError(f"{env_of(name)} is {getattr(settings, name)!r}: use {shown}")
    if not settings.redis_url.startswith(REDIS_SCHEMES):
        raise ConfigError(f"REDIS_URL must begin with one of {', '.join(REDIS_SCHEMES)}")
    for name, parse in (
        ("egress_allow", parse_rules),
        ("egress_deny", parse_rules),
        ("egress_ports", parse_ports),
        ("encryption_keys", parse_keys),
        ("worker_shards", lambda text: parse_numbers(text, settings.shards)),
    ):
        try:
            parse(getattr(settings, name))
        except ValueError as error:
            raise ConfigError(f"{env_of(name)}: {error}") from error
    return settings


# Set for the client commands; not settings of the product.
RESERVED = frozenset({"CRONSPACE_URL", "CRONSPACE_KEY"})


def parse_numbers(text: str, size: int) -> list[int]:
    """The shards of ``CRONSPACE_WORKER_SHARDS``, ascending: those named, or all; raises ``ValueError``."""
    found: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise ValueError(f"{part!r} is neither a number nor a range such as 0-3")
        begin, end = int(first), int(last or first)
        if begin > end:
            raise ValueError(f"{part!r} runs backwards: write {end}-{begin}")
        if end >= size:
            raise ValueError(
                f"there is no shard {max(begin, size)}: CRONSPACE_SHARDS is {size}, and they count from 0"
            )
        found.update(range(begin, end + 1))
    return sorted(found) or list(range(size))


def _read(env: str, text: str, hint: Any) -> Any:
    base = get_args(hint)[0] if get_args(hint) else hint
    if base is str:
        return text
    if base is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise ConfigError(f"{env} is {text!r}: use 1 or 0")
    try:
        return msgspec.convert(text, hint, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{env} is {text!r}: it must be {_wanted(hint)}") from error


def _wanted(hint: Any) -> str:
    """What a number has to be, in words."""
    base, bounds = get_args(hint)
    what = "a whole number" if base is int else "a number"
    if bounds.le is None:
        return f"{what} above {bounds.gt}" if bounds.gt is not None else f"{what}, {bounds.ge} or more"
    return f"{what} {f'above {bounds.gt}' if bounds.gt is not None else f'from {bounds.ge}'} to {bounds.le}"
