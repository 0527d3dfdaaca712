"""A workspace's trigger set: the four calls whose shapes other programs rely on."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.api.problems import json_response
from app.clock import rfc3339
from app.config import Settings
from app.errors import BodyTooLarge, Fault, InvalidRequest
from app.inputs import TriggerInput
from app.masking import MASK, mask_headers, unmask_headers
from app.models import Definition
from app.store import Shard
from app.store import triggers as store
from app.validation import check_workspace_id, parse_replace


async def replace_triggers(request: Request) -> Response:
    """Put the body's set in the place of the workspace's own."""
    shard, workspace = _target(request)
    body = await _read_body(request, shard.settings)
    inputs = await asyncio.to_thread(parse_replace, body, shard.settings)  # a large one takes a while
    ids = [str(index) if given.id is None else given.id for index, given in enumerate(inputs)]
    definitions = await _unmask(shard, workspace, ids, inputs)
    done = await store.replace(shard, workspace, list(zip(ids, definitions, strict=True)))
    return json_response(
        {
            "success": True,
            "workspace_id": workspace,
            "removed": done.removed,
            "added": done.added,
            "jobs": [
                {**_job(workspace, id_, definition), "next_run_at": _time(slot)}
                for id_, definition, slot in zip(ids, definitions, done.next_slots, strict=True)
            ],
            "revision": done.revision,
            "changes": done.changes,
        }
    )


async def list_triggers(request: Request) -> Response:
    """The whole set, in the order in which it was declared."""
    shard, workspace = _target(request)
    current = await store.read(shard, workspace)
    jobs = []
    for trigger in current.triggers:
        definition = trigger.definition
        job = {
            **_job(workspace, trigger.id, definition),
            "next_run_at": _time(trigger.next_slot),
            "headers": mask_headers(definition.headers),
            "timeout_seconds": definition.timeout_seconds,
            "max_retries": definition.max_retries,
        }
        if definition.payload:
            job["payload"] = msgspec.Raw(definition.payload)
        if trigger.error:
            job["error"] = trigger.error
        jobs.append(job)
    return json_response(
        {
            "success": True,
            "workspace_id": workspace,
            "count": len(jobs),
            "jobs": jobs,
            "revision": current.revision,
        }
    )


async def delete_triggers(request: Request) -> Response:
    """Empty the set."""
    shard, workspace = _target(request)
    done = await store.replace(shard, workspace, [])
    return json_response(
        {
            "success": True,
            "workspace_id": workspace,
            "removed": done.removed,
            "revision": done.revision,
            "changes": done.changes,
        }
    )


def _target(request: Request) -> tuple[Shard, str]:
    workspace = request.path_params["workspace"]
    check_workspace_id(workspace)
    return request.app.state.shard, workspace


def _job(workspace: str, id_: str, definition: Definition) -> dict[str, Any]:
    """The part of a trigger that every answer has; ids and names in the form that clients expect."""
    return {
        "jobId": f"{workspace}:{id_}",
        "jobName": f"{workspace}-trigger-{id_}",
        "cron": definition.cron,
        "url": definition.url,
        "method": definition.method,
        "id": id_,
        "name": definition.name or None,
        "timezone": definition.timezone,
        "enabled": definition.enabled,
    }


def _time(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)


async def _unmask(
    shard: Shard, workspace: str, ids: list[str], inputs: list[TriggerInput]
) -> list[Definition]:
    """The definitions, with what an answer had masked taken from what is stored."""
    definitions = [given.to_definition() for given in inputs]
    masked = [index for index, one in enumerate(definitions) if MASK in one.headers.values()]
    stored = await store.read_definitions(shard, workspace, [ids[index] for index in masked])
    faults = []
    for index, known in zip(masked, stored, strict=True):
        headers, strange = unmask_headers(
            definitions[index].headers, None if known is None else known.headers
        )
        message = "a masked value stands for a stored one, and here none is stored"
        faults += [Fault(f"triggers[{index}].headers[{name!r}]", message) for name in strange]
        definitions[index] = msgspec.structs.replace(definitions[index], headers=headers)
    if faults:
        raise InvalidRequest("The body has masked values that stand for nothing; nothing was stored.", faults)
    return definitions


async def _read_body(request: Request, settings: Settings) -> bytes:
    limit = settings.max_body_bytes
    too_large = BodyTooLarge(f"The body is larger than {limit} bytes (CRONSPACE_MAX_BODY_BYTES).")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    parts = bytearray()
    async for chunk in request.stream():
        parts += chunk
        if len(parts) > limit:
            raise too_large
    return bytes(parts)


_PATH = "/api/workspaces/{workspace}/triggers"

routes = [
    Route(_PATH, replace_triggers, methods=["POST", "PUT"]),
    Route(_PATH, list_triggers, methods=["GET"]),
    Route(_PATH, delete_triggers, methods=["DELETE"]),
]
