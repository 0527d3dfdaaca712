"""The only code that talks to Redis: one function per operation, domain objects in and out.

Redis is authoritative for everything. ``Shard`` is the handle of what belongs to a workspace, ``Shards`` has
all of them, and the modules beside them hold the operations:
``triggers`` (replace and edit a set), ``ticking`` (fire and refill), ``queue`` (claim, renew, finish),
``executions`` (reads), ``upkeep`` (clearing and trimming), ``replicas`` (confirming writes), ``server`` (what
Redis it is). ``connection`` finds the primary, ``cluster`` a shard's.
"""

from app.store.connection import connect
from app.store.shard import Shard
from app.store.shards import Shards, open_shards

__all__ = ["Shard", "Shards", "connect", "open_shards"]
