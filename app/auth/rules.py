"""What the settings have to be before the API may serve."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from app.auth.addresses import parse_networks
from app.config import Settings
from app.errors import ConfigError

_LEAST_ADMIN_KEY = 24  # characters
_LEAST_SECRET = 32  # bytes: RFC 7518, 3.2


def check(settings: Settings) -> list[str]:
    """Raise :class:`ConfigError` for what may not serve; returns warnings, one a line."""
    parse_networks(settings.trusted_proxies)
    _check_admin_key(settings.admin_key)
    match settings.auth:
        case "none":
            return _check_none(settings)
        case "tokens":
            if not settings.admin_key:
                return [
                    "CRONSPACE_ADMIN_KEY is not set: only API keys that were made before can call the API"
                ]
        case "jwt":
            _check_jwt(settings)
        case _:
            raise ConfigError(
                "CRONSPACE_AUTH is not set: choose tokens (API keys), jwt, or none (everybody may do"
                " everything; on loopback only)"
            )
    return []


def is_loopback(host: str) -> bool:
    """Whether a host is this machine and nothing else."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_none(settings: Settings) -> list[str]:
    if is_loopback(settings.host):
        return [f"AUTHENTICATION IS OFF: every user of this machine may do everything ({settings.host})"]
    if not settings.auth_none_anywhere:
        raise ConfigError(
            f"CRONSPACE_AUTH=none goes with a loopback address, not with {settings.host}: set"
            " CRONSPACE_AUTH=tokens, or CRONSPACE_AUTH_NONE_ANYWHERE=1 where something in front authenticates"
        )
    return [f"AUTHENTICATION IS OFF: EVERYBODY who can reach {settings.host} may do everything"]


def _check_admin_key(key: str) -> None:
    if key and len(key) < _LEAST_ADMIN_KEY:
        raise ConfigError(
            f"CRONSPACE_ADMIN_KEY has {len(key)} characters: use at least {_LEAST_ADMIN_KEY} random ones,"
            " such as from `openssl rand -hex 32`"
        )
    if not all("!" <= one <= "~" for one in key):
        raise ConfigError("CRONSPACE_ADMIN_KEY has to be printable ASCII without spaces")


def _check_jwt(settings: Settings) -> None:
    if not settings.jwt_secret and not settings.jwt_jwks:
        raise ConfigError("CRONSPACE_AUTH=jwt needs CRONSPACE_JWT_JWKS or CRONSPACE_JWT_SECRET")
    if settings.jwt_secret and len(settings.jwt_secret.encode()) < _LEAST_SECRET:
        raise ConfigError(f"CRONSPACE_JWT_SECRET has to have at least {_LEAST_SECRET} bytes (RFC 7518)")
    if not settings.jwt_jwks:
        return
    if not settings.jwt_issuer or not settings.jwt_audience:
        # Who issues for us issues for others, too: without both, a token for another service would do here.
        raise ConfigError("CRONSPACE_JWT_JWKS needs CRONSPACE_JWT_ISSUER and CRONSPACE_JWT_AUDIENCE")
    url = urlsplit(settings.jwt_jwks)
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        raise ConfigError("CRONSPACE_JWT_JWKS: keys are fetched by https://, not by http://")
    if url.scheme not in ("http", "https") and not Path(settings.jwt_jwks).is_file():
        raise ConfigError("CRONSPACE_JWT_JWKS is neither a file nor an https:// URL")
