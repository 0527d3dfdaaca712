"""The only code that talks to Redis: one function per operation, domain objects in and out.

Redis is authoritative for everything. ``Shard`` is the handle; the modules beside it hold the operations:
``triggers`` (replace and read a set), ``ticking`` (fire and refill), ``queue`` (claim, renew, finish),
``executions`` (reads), ``upkeep`` (clearing and trimming), ``replicas`` (confirming writes), ``server`` (what
Redis it is). ``connection`` finds the primary.
"""

from app.store.connection import connect
from app.store.shard import Shard

__all__ = ["Shard", "connect"]
