"""What became of the slots."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.api.problems import json_response
from app.clock import rfc3339
from app.errors import Fault, InvalidRequest, NotFound
from app.models import Attempt, Execution, State, is_id
from app.store import executions as store
from app.validation import check_workspace_id

_MOST, _USUAL = 500, 50
_PARAMETERS = ("state", "trigger", "cursor", "limit")


async def list_executions(request: Request) -> Response:
    """Executions, newest first: ``?state=&trigger=&limit=&cursor=``."""
    workspace = request.path_params["workspace"]
    check_workspace_id(workspace)
    state, trigger, limit = _filters(request)
    try:
        page = await store.list_newest(
            request.app.state.shard,
            workspace,
            state=state,
            trigger=trigger,
            limit=limit,
            cursor=request.query_params.get("cursor"),
        )
    except ValueError as error:
        raise InvalidRequest("The cursor is not valid.", [Fault("cursor", str(error))]) from error
    return json_response(
        {
            "success": True,
            "workspace_id": workspace,
            "count": len(page.executions),
            "executions": [_shown(execution) for execution in page.executions],
            "next_cursor": page.next_cursor,
        }
    )


async def get_execution(request: Request) -> Response:
    """One execution with every attempt."""
    workspace, id_ = request.path_params["workspace"], request.path_params["execution"]
    check_workspace_id(workspace)
    execution = await store.get(request.app.state.shard, workspace, id_)
    if execution is None:
        raise NotFound(
            f"There is no execution {id_!r} in {workspace!r}: its id is wrong, or it is kept no more."
        )
    attempts = [_attempt(number, one) for number, one in enumerate(execution.attempts, 1)]
    return json_response(
        {"success": True, "workspace_id": workspace, "execution": {**_shown(execution), "attempts": attempts}}
    )


def _filters(request: Request) -> tuple[State | None, str | None, int]:
    query = request.query_params
    faults = [
        Fault(name, f"unknown parameter; the parameters are {', '.join(_PARAMETERS)}")
        for name in query
        if name not in _PARAMETERS
    ]
    state = query.get("state")
    if state is not None and state not in set(State):
        faults.append(Fault("state", f"{state!r} is not one of {', '.join(State)}"))
    trigger = query.get("trigger")
    if trigger is not None and not is_id(trigger):
        faults.append(Fault("trigger", "not an id"))
    limit = query.get("limit", str(_USUAL))
    if not (limit.isascii() and limit.isdigit() and len(limit) < 9 and 1 <= int(limit) <= _MOST):
        faults.append(Fault("limit", f"a whole number from 1 to {_MOST}"))
    if faults:
        raise InvalidRequest("The query is not valid.", faults)
    return State(state) if state else None, trigger, int(limit)


def _shown(execution: Execution) -> dict[str, Any]:
    last = execution.attempts[-1] if execution.attempts else None
    started = execution.started
    ended = last.started + last.duration if last and execution.finished is not None else None
    return {
        "id": execution.id,
        "trigger_id": execution.trigger,
        "state": execution.state,
        "reason": execution.reason,
        "scheduled_at": rfc3339(execution.slot),
        "queued_at": _time(execution.queued),
        "started_at": _time(started),
        "finished_at": _time(execution.finished),
        "next_attempt_at": _time(execution.next_attempt),
        "lateness_ms": None if started is None else max(0, started - execution.slot),
        "duration_ms": None if ended is None or started is None else ended - started,
        "attempt_count": len(execution.attempts),
        "status": last.status or None if last else None,
        "error": _error(last) if last else None,
        "worker": execution.worker,
    }


def _attempt(number: int, attempt: Attempt) -> dict[str, Any]:
    return {
        "attempt": number,
        "started_at": rfc3339(attempt.started),
        "finished_at": rfc3339(attempt.started + attempt.duration),
        "duration_ms": attempt.duration,
        "status": attempt.status or None,
        "error": _error(attempt),
        "response_snippet": attempt.snippet or None,
        "worker": attempt.worker,
    }


def _error(attempt: Attempt) -> dict[str, str] | None:
    return {"kind": attempt.kind, "message": attempt.message} if attempt.kind else None


def _time(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)


_PATH = "/api/workspaces/{workspace}/executions"

routes = [
    Route(_PATH, list_executions, methods=["GET"]),
    Route(_PATH + "/{execution}", get_execution, methods=["GET"]),
]
