"""The only code that talks to Redis: one function per operation, domain objects in and out.

Redis is authoritative for everything. ``Shard`` is the handle; the modules beside it hold the operations:
``triggers`` (replace and read a set), ``ticking`` (fire and refill), ``queue`` (claim, renew, finish),
``executions`` (reads), ``upkeep`` (clearing and trimming).
"""

from app.store.shard import Shard, connect

__all__ = ["Shard", "connect"]
