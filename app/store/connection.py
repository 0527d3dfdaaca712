"""Connections to Redis: one server, or the primary that Sentinel names; after a failover always the new one.

A server that turns out to be a read-only replica was a primary until a failover. Its connection is closed,
and the next one goes where the primary is now: by Sentinel, or where the name in ``REDIS_URL`` leads.

What is marked for the type checker is of two kinds: functions for which redis-py has no types, and mixins
that name what the connection beside them has.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from msgspec import Struct
from redis.asyncio import Redis
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import parse_url as parse_plain_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import ExponentialBackoff
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from app.config import SENTINEL_SCHEMES, Settings
from app.errors import ConfigError

T = TypeVar("T")

NO_HOSTS = (
    "no hosts and ports can be told in it; in a user or password / ? # [ @ : are %2F %3F %23 %5B %40 %3A"
)

_SENTINEL_PORT = 26379
_CONNECT_SECONDS, _REPLY_SECONDS, _SENTINEL_SECONDS = 3.0, 5.0, 1.0
_PATIENCE_SECONDS = 5.0  # after which a command is not tried again
# Redis 6 wraps what a command within a script met: "ERR Error running script …: -READONLY You can't write …".
_NOT_PRIMARY = re.compile(r"(\A|-)(READONLY|MASTERDOWN) ")


def client_options() -> dict[str, Any]:
    """How patient a client is."""
    return {
        "socket_connect_timeout": _CONNECT_SECONDS,
        "socket_timeout": _REPLY_SECONDS,
        "retry": _Patience(ExponentialBackoff(cap=0.5, base=0.02), 3),
        "retry_on_error": [ConnectionError, TimeoutError, BusyLoadingError],
    }


def tls_options(settings: Settings) -> dict[str, Any]:
    """What the server's certificate is held against."""
    if not settings.redis_url.startswith("rediss"):
        return {}
    authority = {"ssl_ca_certs": settings.redis_ca_file} if settings.redis_ca_file else {}
    return {"ssl_check_hostname": settings.redis_check_name, **authority}


def connect(settings: Settings) -> Redis:
    """A client for ``REDIS_URL``.

    A command is repeated when its connection breaks, although it may have run: every script of ours is safe
    to run twice with the same arguments. Raises :class:`ConfigError` for a URL that can't be read.
    """
    url = settings.redis_url
    options, tls = client_options(), tls_options(settings)
    try:
        if url.startswith(SENTINEL_SCHEMES):
            return Redis.from_pool(_sentinel_pool(parse_sentinel_url(url), options, tls))
        split_url(url)
        options |= tls | parse_plain_url(url)
        class_ = _CLASSES[options.pop("connection_class", Connection)]
        pool = Pool(connection_class=class_, **options)
        pool.make_connection()  # type: ignore[no-untyped-call]  # not connected yet: only to see what it refuses
    except TypeError as error:
        unknown = str(error).rpartition(" ")[2]  # "… an unexpected keyword argument 'foo'"
        raise ConfigError(f"REDIS_URL can't be read: {unknown} is none of its parameters") from None
    except (RedisError, ValueError) as error:
        raise ConfigError(f"REDIS_URL can't be read: {error}") from error
    return Redis.from_pool(pool)


def split_url(url: str) -> SplitResult:
    """The parts of a URL; raises ``ValueError``. urllib's own error repeats some: of a password with a ``/``,
    what stands before that is taken for the port.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError(NO_HOSTS) from None
    return parts


def without_login(url: str) -> str:
    """A ``REDIS_URL`` that :func:`connect` took, without user and password. Not by urllib, which refuses
    passwords that connections take, and repeats them.
    """
    scheme, _, rest = url.partition("://")
    authority, slash, rest = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{rest}"


def address_of(url: str) -> str:
    """The same for people: without parameters, too, which may hold the sentinels' password."""
    return re.split(r"[?#]", without_login(url), maxsplit=1)[0]


class SentinelUrl(Struct, frozen=True):
    """``redis+sentinel://[user:password@]host[:port],host[:port]/primary[/database][?sentinel_…]``."""

    sentinels: list[tuple[str, int]]
    primary: str  # the name that the sentinels know it by
    database: int
    login: dict[str, str]  # username and password, at Redis
    sentinel_login: dict[str, str]  # the same at the sentinels
    tls: bool


def parse_sentinel_url(url: str) -> SentinelUrl:
    """Read a Sentinel URL; raises ``ValueError``, whose message does not repeat the URL."""
    scheme, _, rest = url.partition("://")
    authority, _, tail = rest.partition("/")
    path, _, query = tail.partition("?")
    userinfo, _, hosts = authority.rpartition("@")
    user, _, password = userinfo.partition(":")
    name, _, database = path.partition("/")
    if not name:
        raise ValueError("after the sentinels comes the name of the primary: host1,host2/mymaster")
    if database and not (database.isascii() and database.isdigit()):
        raise ValueError("after the name of the primary comes the number of the database: /mymaster/0")
    sentinel_login = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in ("sentinel_username", "sentinel_password"):
            raise ValueError(f"{key!r} is none of its parameters: sentinel_username, sentinel_password")
        sentinel_login[key.removeprefix("sentinel_")] = value
    login = {"username": unquote(user), "password": unquote(password)}
    return SentinelUrl(
        sentinels=[_address(host) for host in hosts.split(",")],
        primary=unquote(name),
        database=int(database or 0),
        login={part: value for part, value in login.items() if value},
        sentinel_login=sentinel_login,
        tls=scheme.startswith("rediss"),
    )


def _address(host: str) -> tuple[str, int]:
    parts = split_url(f"//{host}")
    if not parts.hostname:
        raise ValueError("each sentinel is host or host:port, with commas between")
    return parts.hostname, parts.port or _SENTINEL_PORT


def _sentinel_pool(url: SentinelUrl, options: dict[str, Any], tls: dict[str, Any]) -> _SentinelPool:
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        url.sentinels,
        sentinel_kwargs={
            "socket_connect_timeout": _SENTINEL_SECONDS,
            "socket_timeout": _SENTINEL_SECONDS,
            **({"ssl": True, **tls} if url.tls else {}),
            **url.sentinel_login,
        },
    )
    return _SentinelPool(  # type: ignore[no-untyped-call]
        url.primary,
        sentinels,
        connection_class=_SentinelTLSConnection if url.tls else _SentinelConnection,
        db=url.database,
        **url.login,
        **tls,
        **options,
    )


class _Patience(Retry):
    """Tries again a few times, but not when that has taken long already: callers wait for an answer, even if
    it is that there is none.
    """

    async def call_with_retry(self, do: Callable[[], Awaitable[T]], fail: Callable[[RedisError], Any]) -> T:
        begun, failures = time.monotonic(), 0
        while True:
            try:
                return await do()
            except self._supported_errors as error:
                failures += 1
                await fail(error)
                if failures > self._retries or time.monotonic() - begun >= _PATIENCE_SECONDS:
                    raise
                await asyncio.sleep(self._backoff.compute(failures))


class ToPrimary:
    """A connection that closes when its server turns out to be no primary (any more)."""

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)  # type: ignore[misc]
        except ResponseError as error:
            if not isinstance(error, ReadOnlyError) and not _NOT_PRIMARY.search(str(error)):
                raise
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]
            raise ConnectionError("this Redis is a read-only replica") from error


class _TcpConnection(ToPrimary, Connection):
    pass


class _TLSConnection(ToPrimary, SSLConnection):
    pass


class _UnixConnection(ToPrimary, UnixDomainSocketConnection):
    pass


_CLASSES: dict[type, type] = {
    Connection: _TcpConnection,
    SSLConnection: _TLSConnection,
    UnixDomainSocketConnection: _UnixConnection,
}


class _BySentinel(ToPrimary):
    """A connection to the primary that Sentinel names at that moment."""

    async def connect(self) -> None:
        # The library's own would retry within its retries.
        if not self.is_connected:  # type: ignore[attr-defined]
            self.host, self.port = await self.connection_pool.get_master_address()  # type: ignore[attr-defined]
            await super(SentinelManagedConnection, self).connect()  # type: ignore[misc]

    async def on_connect(self) -> None:
        """A sentinel may not know yet that the primary it names was demoted: ask that one itself."""
        await super().on_connect()  # type: ignore[misc]
        await self.send_command("ROLE")  # type: ignore[attr-defined]
        try:
            role = await self.read_response()
        except NoPermissionError:
            return
        if role[0] != b"master":
            raise ConnectionError("the primary that Sentinel names is a replica")


class _SentinelConnection(_BySentinel, SentinelManagedConnection):
    pass


class _SentinelTLSConnection(_BySentinel, SentinelManagedSSLConnection):
    pass


class Pool(ConnectionPool):
    async def get_connection(self, *_: Any, **__: Any) -> Any:
        """A connection that is there. The library's own lets one at a time connect, so that where Redis
        hangs each who waits for a connection waits for all before, too.
        """
        connection = self.get_available_connection()  # type: ignore[no-untyped-call]
        try:
            await self.ensure_connection(connection)
        except BaseException:
            await self.release(connection)
            raise
        return connection


class _SentinelPool(Pool, SentinelConnectionPool):
    async def release(self, connection: Any) -> None:
        """A connection that was in use while the primary changed leads to the former one."""
        if self.master_address not in (None, (connection.host, connection.port)):
            await connection.disconnect(nowait=True)
        await super().release(connection)

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close connections; at the end (all of them) those to the sentinels, too."""
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.aclose()
