"""Every Redis key, with its type. The Lua scripts build theirs in ``store/lua/_keys.lua``, from one root.

A workspace lives in one shard, and every key of a shard carries the shard's hash tag, so that a script
touches one node only. Ids never contain ``:`` (see :data:`app.models.ID_PATTERN`), which therefore separates.
"""

from __future__ import annotations

TRIGGER_SET_PARTS = ("definitions", "states", "due")  # the three keys that a replace swaps together

FINISHED_STATES = ("succeeded", "failed", "cancelled", "skipped", "missed")


class Keys:
    """The keys of one shard."""

    def __init__(self, shard: int = 0) -> None:
        self.tag = f"{{{shard}}}"
        self.prefix = f"cs:{self.tag}:"
        # HASH: serial (the last number given to a change), pulse (when a worker last called, ms),
        # takeover_after (ms), strays (queue entries that were none of ours). Every script is routed by it.
        self.root = f"{self.prefix}shard"
        # ZSET: workspace → the earliest slot in its own due index, ms
        self.due = f"{self.prefix}due"
        # ZSET: arq's queue: arq job id → ready time of a queued or retrying execution, lease expiry of a
        # running one, ms
        self.queue = f"{self.prefix}queue"
        # SET: the workspaces that exist
        self.workspaces = f"{self.prefix}workspaces"
        # Chores are ZSETs of what is to be done and when (ms); whoever takes one moves it a lease ahead.
        self.refills = f"{self.prefix}refills"  # workspace:trigger whose held slots run low or out
        self.clears = f"{self.prefix}clears"  # workspace with executions of removed triggers
        self.trims = f"{self.prefix}trims"  # workspace with finished executions that get too old
        # PUB/SUB channel: something became due earlier than a sleeping worker knows
        self.wake = f"{self.prefix}wake"

    def job_id(self, execution_id: str) -> str:
        """arq's id of an execution's job."""
        return f"{self.tag}:{execution_id}"

    def of(self, workspace: str, name: str) -> str:
        """A key of one workspace:

        ``meta``         HASH: revision, serial and reply of the last replace, max_concurrency
        ``definitions``  HASH: trigger → definition (msgpack)
        ``states``       HASH: trigger → what the ticker needs beside the due index (msgpack array:
                         born, version, position, after, held slots…)
        ``due``          ZSET: trigger → its next slot, ms
        ``errors``       HASH: trigger → why its next slot can't be computed
        ``admitted``     ZSET: execution queued or running in arq's queue → when it was made, ms
        ``backlog``      ZSET: execution that waits for a free place → its slot, ms
        ``retrying``     ZSET: execution that waits for its next attempt → when it was made, ms
        ``succeeded`` …  ZSET per final state: finished execution → when it finished, ms
        ``last``         HASH: trigger → its last slots (packed, see ``store/lua/_end.lua``)
        ``day:N``        HASH: trigger:what → count, for the UTC day N
        """
        return f"{self.prefix}w:{workspace}:{name}"

    def staged(self, workspace: str, serial: int, part: str) -> str:
        """A key of a trigger set that is being prepared: like the live one, and ``dry`` (SET of triggers)."""
        return self.of(workspace, f"stage:{serial}:{part}")

    def arq_job(self, execution_id: str) -> str:
        """STRING: an open execution, in arq's format."""
        return f"arq:job:{self.job_id(execution_id)}"

    def arq_in_progress(self, execution_id: str) -> str:
        """STRING: who runs an execution: token and start, see ``store/lua/claim_ready.lua``."""
        return f"arq:in-progress:{self.job_id(execution_id)}"

    def arq_result(self, execution_id: str) -> str:
        """STRING: a finished execution, in arq's format."""
        return f"arq:result:{self.job_id(execution_id)}"


def execution_id(workspace: str, trigger: str, slot_ms: int) -> str:
    """The id of a slot's execution: a function of the three, the same on every shard and after any loss."""
    return f"{workspace}:{trigger}:{slot_ms}"


def split_execution_id(execution: str) -> tuple[str, str, int]:
    """Workspace, trigger and slot of an execution id; raises ``ValueError`` when it is none."""
    workspace, trigger, slot = execution.split(":")
    return workspace, trigger, int(slot)
