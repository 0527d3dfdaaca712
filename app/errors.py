"""Everything that can go wrong on purpose, in one tree.

CronspaceError
├── InvalidSchedule        an expression or a zone that can't be used
├── ConfigError            a setting that can't be used: one line for the person who starts the process
├── DevError               `cronspace dev` can't start: one line, too
├── ClientError            a client command failed: one line, too
└── ApiError               carries an HTTP status and a stable code
    ├── InvalidRequest     400, with one entry per fault
    ├── Unauthorized       401, who calls is not known
    ├── Forbidden          403, the caller's scope does not suffice
    ├── ForeignPage        403, a page of another site called, where nobody has to authenticate
    ├── RequestTimeout     408, the request did not come in time
    ├── BodyTooLarge       413
    ├── HeadTooLarge       431
    ├── NotFound           404
    ├── MethodNotAllowed   405
    ├── ReplaceConflict    409, other changes of the workspace kept winning
    ├── ConfirmationRequired  409, a call would delete much
    ├── TriggerExists      409, a trigger of that id is there
    ├── WorkspaceErasing   409, the workspace is being erased
    ├── ExecutionFinished  409, what has ended can't be cancelled
    ├── NotDeadLetter      409, only dead letters are retried and deleted
    ├── AlreadyRetried     409, the dead letter was retried before
    ├── TooManySecrets     409, there are as many secrets as a workspace may have
    ├── SecretInUse        409, triggers use the secret that is to be deleted
    ├── TooManyKeys        409, there are as many API keys as there may be
    ├── TooManyTriggers    409, the set holds as many triggers as it may
    ├── SetTooLarge        409, the set's definitions take as many bytes as they may
    ├── TooManyRuns        409, open runs carry as many bytes of requests as they may
    ├── TooManyWorkspaces  409, there are as many workspaces as there may be
    ├── RevisionConflict   412, somebody else changed the set first
    ├── IdempotencyConflict  422, the key was used for another call
    ├── TooManyRequests    429, a rate limit of the API
    └── Unavailable        503, try again
        ├── NotConfirmed       the change is stored, but not on as many replicas as it has to be
        ├── IssuerUnavailable  the keys that tokens are checked with can't be had
        ├── SealError          a stored value can't be decrypted
        ├── WrongDeployment    what is stored has another number of shards, or a later format
        └── StoreUnavailable   Redis can't be reached or refuses to write
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import msgspec

# Of one input. Whoever sends more knows by then, and a small body can have millions, each with a message.
MOST_FAULTS = 1000
_LONGEST_NAME = 100  # characters


class CronspaceError(Exception):
    """The root; never raised itself."""


class InvalidSchedule(CronspaceError):
    """A schedule that can't be used; the message says which field and why."""


class ConfigError(CronspaceError):
    """A setting that can't be used; the message names it and says what to do."""


class DevError(CronspaceError):
    """``cronspace dev`` can't start; the message is the one line to print."""


class ClientError(CronspaceError):
    """A client command failed; the message is what the API says, or why it can't be reached."""


class Fault(msgspec.Struct, frozen=True, order=True):
    """One thing wrong with an input: where (``triggers[3].cron``; empty for the whole body) and what."""

    path: str
    message: str


def nearest(name: str, valid: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The valid name that was meant, None where none is near. A long text is none misspelt, and comparing it
    would take seconds.
    """
    near = difflib.get_close_matches(name, valid, n=1, cutoff=cutoff) if len(name) <= _LONGEST_NAME else []
    return near[0] if near else None


def unknown_name(name: str, valid: Sequence[str], what: str = "field") -> str:
    """The message for a name that does not exist, with the nearest valid one; ``what`` it is a name of."""
    near = next((one for one in valid if name and one.startswith(name)), None) or nearest(name, valid)
    if near:
        return f"unknown {what}; did you mean {near!r}?"
    if valid:
        return f"unknown {what}; the {what}s are {', '.join(sorted(valid))}"
    return f"unknown {what}; there are none here"


def malformed(body: bytes, error: Exception) -> Fault:
    """The fault of a body that is no JSON, with what its decoder said."""
    if not body:
        return Fault("", "the body is empty: expected JSON")
    return Fault("", f"malformed JSON: {str(error).removeprefix('JSON is malformed: ')}")


class ApiError(CronspaceError):
    """An error that a caller of the API sees as a problem document (RFC 9457).

    The first sentence of a subclass says when it is raised: the API's document quotes it.
    """

    status = 500
    code = "internal_error"
    title = "Internal error"
    sends: ClassVar[Mapping[str, str]] = {}  # headers that go with it → what they say

    def __init__(self, detail: str, faults: list[Fault] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = faults or []
        self.headers: dict[str, str] = {}


class InvalidRequest(ApiError):
    """The input is not valid; `errors` has one entry per fault."""

    status = 400
    code = "invalid_request"
    title = "Invalid request"


class Unauthorized(ApiError):
    """The call has no credentials, or none that are good."""

    status = 401
    code = "unauthorized"
    title = "Not authenticated"
    sends: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": "How to authenticate (RFC 6750)."}

    def __init__(self, detail: str, *, given: bool) -> None:
        """``given``: there were credentials, but no good ones."""
        super().__init__(detail)
        wrong = ', error="invalid_token"' if given else ""
        self.headers = {"www-authenticate": f'Bearer realm="cronspace"{wrong}'}


class Forbidden(ApiError):
    """The caller's scope or workspaces do not suffice for the call."""

    status = 403
    code = "forbidden"
    title = "Not allowed"
    sends: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": "The scope that is needed (RFC 6750)."}

    def __init__(self, detail: str, scope: str) -> None:
        super().__init__(detail)
        challenge = f'Bearer realm="cronspace", error="insufficient_scope", scope="{scope}"'
        self.headers = {"www-authenticate": challenge}


class ForeignPage(ApiError):
    """A web page of another site, or under another name, called an API that asks nobody who they are."""

    status = 403
    code = "foreign_page"
    title = "Called by another site"


class RequestTimeout(ApiError):
    """The body of the request took longer than the server waits for it."""

    status = 408
    code = "request_timeout"
    title = "The request came too slowly"
    sends: ClassVar[Mapping[str, str]] = {"Connection": "Always `close`."}

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.headers = {"connection": "close"}


class HeadTooLarge(ApiError):
    """The URL and the headers of the request are larger than the server reads."""

    status = 431
    code = "head_too_large"
    title = "URL and headers too large"


class BodyTooLarge(ApiError):
    """The body is larger than the server reads."""

    status = 413
    code = "body_too_large"
    title = "Body too large"


class NotFound(ApiError):
    """There is nothing of that name."""

    status = 404
    code = "not_found"
    title = "Not found"


class MethodNotAllowed(ApiError):
    """The path exists, but not with this method; `Allow` has those that do."""

    status = 405
    code = "method_not_allowed"
    title = "Method not allowed"


class ReplaceConflict(ApiError):
    """Other changes of the workspace kept coming between; try again."""

    status = 409
    code = "replace_conflict"
    title = "Replaced by others at the same time"


class ConfirmationRequired(ApiError):
    """The call would delete more than the server does unasked; repeat it with `confirm` as `detail` says."""

    status = 409
    code = "confirmation_required"
    title = "Confirmation required"


class TriggerExists(ApiError):
    """The workspace has a trigger of that id; take another one, or put it with its id in the path."""

    status = 409
    code = "trigger_exists"
    title = "Trigger exists"


class WorkspaceErasing(ApiError):
    """The workspace is being erased; try again in a moment."""

    status = 409
    code = "workspace_erasing"
    title = "Workspace is being erased"


class ExecutionFinished(ApiError):
    """The execution has ended: there is nothing left to cancel."""

    status = 409
    code = "execution_finished"
    title = "Execution has ended"


class NotDeadLetter(ApiError):
    """The execution is no dead letter: only what failed for good can be retried and deleted."""

    status = 409
    code = "not_a_dead_letter"
    title = "Not a dead letter"


class AlreadyRetried(ApiError):
    """The dead letter was retried before; `Location` is the execution that did."""

    status = 409
    code = "already_retried"
    title = "Retried before"
    sends: ClassVar[Mapping[str, str]] = {"Location": "The execution that retried it."}

    def __init__(self, detail: str, location: str) -> None:
        super().__init__(detail)
        self.headers = {"location": location}


class TooManyKeys(ApiError):
    """There are as many API keys as there may be; delete some first."""

    status = 409
    code = "too_many_keys"
    title = "Too many API keys"


class TooManySecrets(ApiError):
    """The workspace has as many secrets as it may have; delete one first."""

    status = 409
    code = "too_many_secrets"
    title = "Too many secrets"


class SecretInUse(ApiError):
    """Triggers use the secret; with `force=true` it is deleted all the same."""

    status = 409
    code = "secret_in_use"
    title = "Secret in use"


class TooManyTriggers(ApiError):
    """The set holds as many triggers as it may; delete some first."""

    status = 409
    code = "too_many_triggers"
    title = "Too many triggers"


class SetTooLarge(ApiError):
    """The definitions of the set take as many bytes as they may; delete some, or make payloads smaller."""

    status = 409
    code = "set_too_large"
    title = "Set too large"


class TooManyRuns(ApiError):
    """Open runs and retries carry as many bytes of requests of their own as they may; let some end."""

    status = 409
    code = "too_many_runs"
    title = "Too many runs"


class TooManyWorkspaces(ApiError):
    """There are as many workspaces as there may be; erase one first."""

    status = 409
    code = "too_many_workspaces"
    title = "Too many workspaces"


class RevisionConflict(ApiError):
    """The set is at another revision than `If-Match` says; read it again."""

    status = 412
    code = "revision_conflict"
    title = "Another revision"


class IdempotencyConflict(ApiError):
    """The idempotency key was used for another call within the last 24 hours; take a new one."""

    status = 422
    code = "idempotency_conflict"
    title = "Idempotency key used before"


class TooManyRequests(ApiError):
    """The caller, or everybody in the workspace together, calls too often; wait as `Retry-After` says."""

    status = 429
    code = "too_many_requests"
    title = "Too many requests"
    sends: ClassVar[Mapping[str, str]] = {
        "Retry-After": "Seconds to wait before trying again.",
        "RateLimit-Policy": "The limits: `q` requests in `w` seconds.",
        "RateLimit": "What is left of each: `r` requests, and all of them again in `t` seconds.",
    }

    def __init__(self, detail: str, headers: Mapping[str, str]) -> None:
        super().__init__(detail)
        self.headers = dict(headers)


class Unavailable(ApiError):
    """What a call needs can't be had at the moment; ``retry_after`` tells when to try again, in seconds.
    Never raised itself.
    """

    status = 503
    retry_after: ClassVar[int]
    sends: ClassVar[Mapping[str, str]] = {"Retry-After": "Seconds to wait before trying again."}

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.headers = {"retry-after": str(self.retry_after)}


class IssuerUnavailable(Unavailable):
    """The keys that tokens are checked with can't be fetched from their issuer; try again."""

    code = "issuer_unavailable"
    title = "The issuer of tokens is not available"
    retry_after = 5


class SealError(Unavailable):
    """A stored value can't be decrypted: `CRONSPACE_ENCRYPTION_KEYS` lacks its key."""

    code = "encryption_key_missing"
    title = "A stored value can't be decrypted"
    retry_after = 60  # a person has to mend it


class WrongDeployment(Unavailable):
    """What is stored has another number of shards than this process, is just being moved to another one, or
    has a later format; `detail` says what to do.
    """

    code = "wrong_deployment"
    title = "What is stored is for other settings"
    retry_after = 5  # somebody is at it, or has to be


class NotConfirmed(Unavailable):
    """The change is stored and in force, but too few replicas of Redis have confirmed it, so that a failover
    may lose it.
    """

    code = "not_confirmed"
    title = "Stored, not confirmed"
    retry_after = 5

    def __init__(self, cause: str) -> None:
        super().__init__(
            f"The change is stored and in force, but it is not confirmed: {cause}. A failover of Redis may"
            " lose it. Look in a moment whether it is still there; a replace, or a call with the same"
            " idempotency key, can simply be repeated: what is stored is only confirmed then."
        )


class StoreUnavailable(Unavailable):
    """Redis can't be reached or refuses to write; try again."""

    code = "store_unavailable"
    title = "Redis is not available"
    retry_after = 1
