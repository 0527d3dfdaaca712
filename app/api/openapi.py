"""The API's document: OpenAPI 3.1, made from the operations and their types, so that it can't drift."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec.inspect import type_info

from app import __version__
from app.api.operations import Noun, Operation, in_order
from app.api.problems import Problem
from app.auth.callers import SCOPES
from app.config import Settings
from app.errors import (
    ApiError,
    Forbidden,
    ForeignPage,
    IssuerUnavailable,
    NotFound,
    StoreUnavailable,
    TooManyRequests,
    Unauthorized,
)
from app.formats import FORMATS

JSON = dict[str, Any]

_REF = "#/components/{}/{}"
_SCHEME = "bearer"
_TITLE = "Cronspace"
_ABOUT = """\
A scheduler of HTTP requests, per workspace.

A workspace declares its whole set of triggers. Each trigger has a schedule and a request; each slot of the
schedule becomes an execution, and an execution makes attempts until one succeeds.

**Input** is JSON, whatever its content type. Unknown fields and parameters are refused, with the nearest
valid name. Moments are RFC 3339 with an offset; in a query, `+` is written `%2B`. Lists in a query have
commas between their items. Every `GET` answers `HEAD`, too.

**Errors** are problem documents (RFC 9457) with a stable `code`; `errors` has one entry per fault of the
input.

**Formats** of strings beside the usual ones:
"""


def document_of(nouns: Sequence[Noun], settings: Settings | None = None) -> JSON:
    """The whole document, ready for JSON. With ``settings`` it tells what these add: who may call, and how
    often; without, it is that of an API that is open to everybody.
    """
    settings = settings or Settings()
    operations = [operation for noun in nouns for operation in noun.operations]
    schemas = _Schemas(operations)
    responses: JSON = {}
    paths: dict[str, JSON] = {}
    for operation in operations:
        item = paths.setdefault(operation.path, {})
        item[operation.method.lower()] = _operation(operation, schemas, responses, settings)
    return {
        "openapi": "3.1.0",
        "info": {"title": _TITLE, "version": __version__, "description": _about(settings)},
        "tags": [
            {"name": tag, "description": description}
            for tag, description in {noun.tag: noun.description for noun in reversed(nouns)}.items()
        ][::-1],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.components.items())),
            "responses": dict(sorted(responses.items())),
            **({"securitySchemes": {_SCHEME: _scheme(settings)}} if has_auth(settings) else {}),
        },
    }


def has_auth(settings: Settings) -> bool:
    """Whether callers have to say who they are."""
    return settings.auth in ("tokens", "jwt")


def _scheme(settings: Settings) -> JSON:
    what = "An API key" if settings.auth == "tokens" else "A JSON Web Token, or an API key"
    scopes = "\n".join(f"- `{scope}`: {about}" for scope, about in SCOPES.items())
    told = f"{what}. Its scope decides what can be done; each includes those before it:\n\n{scopes}"
    return {"type": "http", "scheme": "bearer", "description": told}


def _about(settings: Settings) -> str:
    """What is said of the API as a whole."""
    formats = "\n".join(f"- `{name}`: {meaning}" for name, meaning in FORMATS.items())
    told = [_ABOUT + "\n" + formats]
    if has_auth(settings):
        told.append(
            "**Authentication** is the header `Authorization: Bearer …`. " + _scheme(settings)["description"]
        )
        told.append("A workspace that is not the caller's is 404, like one that does not exist.")
    return "\n\n".join(told)


class _Schemas:
    """The schemas of all types that the operations name."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        answers: set[Any] = {Problem}
        inputs: set[Any] = set()
        lifted: set[type[msgspec.Struct]] = set()  # their fields stand as parameters
        for operation in operations:
            answers.update(operation.answers)
            lifted.add(operation.query.struct)
            lifted.update({operation.headers.struct} if operation.headers else ())
            inputs.update(field.hint for field in operation.in_path.values())
            inputs.update({operation.body} if operation.body else ())
        types = [*answers, *inputs, *lifted]
        template = _REF.format("schemas", "{name}")
        refs, components = msgspec.json.schema_components(types, ref_template=template)
        self._refs = dict(zip(types, refs, strict=True))
        self._lifted = {struct: components.pop(struct.__name__)["properties"] for struct in lifted}
        self.components = components
        sent = set(_reached(answers))
        for struct in sent & set(_reached(inputs)):
            if _has_defaults(struct):
                raise TypeError(f"{struct.__name__} has defaults: it can't be both input and answer")
        for struct in sent:
            _close_answer(struct, components[struct.__name__])
        for one in {*sent, *_reached(inputs), *_reached(lifted)} - lifted:
            if issubclass(one, Enum):
                components[one.__name__]["enum"] = [member.value for member in one]
        for schema in [*components.values(), *self._refs.values(), *self._lifted.values()]:
            _tidy(schema)

    def of(self, hint: Any) -> JSON:
        """The schema of a type: a reference where it has a name."""
        return dict(self._refs[hint])

    def parameters(self, struct: type[msgspec.Struct]) -> dict[str, JSON]:
        """The schemas of a Struct's fields by their names."""
        return {name: dict(schema) for name, schema in self._lifted[struct].items()}


def _reached(hints: Iterable[Any]) -> Iterator[type]:
    """The Structs and enumerations that types are made of."""
    waiting: list[Any] = [type_info(hint) for hint in hints]
    seen: set[type] = set()
    while waiting:
        node = waiting.pop()
        named = getattr(node, "cls", None)
        if named is not None:
            if named in seen:
                continue
            seen.add(named)
            yield named
        waiting += [field.type for field in getattr(node, "fields", ())]
        waiting += getattr(node, "types", ())
        below = (getattr(node, name, None) for name in ("type", "item_type", "key_type", "value_type"))
        waiting += [one for one in below if one is not None]


def _has_defaults(named: type) -> bool:
    return issubclass(named, msgspec.Struct) and not all(f.required for f in msgspec.structs.fields(named))


def _close_answer(named: type, schema: JSON) -> None:
    """An answer has all its fields, but for those that may be UNSET, and no others."""
    if not issubclass(named, msgspec.Struct):
        return
    schema["required"] = [f.encode_name for f in msgspec.structs.fields(named) if f.default is not UNSET]
    schema["additionalProperties"] = False
    for one in schema["properties"].values():
        one.pop("default", None)


def _tidy(schema: Any) -> None:
    """Python's patterns as JSON schema's, and nothing that says nothing."""
    if isinstance(schema, list):
        for one in schema:
            _tidy(one)
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("pattern"), str):
        schema["pattern"] = schema["pattern"].removesuffix("\\Z").removesuffix("$") + "$"
    if isinstance(schema.get("anyOf"), list):
        _lift(schema)
    if schema.get("required") == []:
        del schema["required"]
    if isinstance(schema.get("title"), str):
        del schema["title"]
    if isinstance(schema.get("description"), str):
        schema["description"] = inspect.cleandoc(schema["description"])
    if "enum" in schema and all(isinstance(value, str) for value in schema["enum"]):
        schema["type"] = "string"
    for one in schema.values():
        _tidy(one)


def _lift(schema: JSON) -> None:
    """What the alternatives of a field say about it is said of the field."""
    told = [one.pop("description") for one in schema["anyOf"] if "description" in one]
    if told:
        schema.setdefault("description", " Or: ".join(told))
    examples = [example for one in schema["anyOf"] for example in one.pop("examples", ())]
    if examples:
        schema.setdefault("examples", examples)


def _operation(operation: Operation, schemas: _Schemas, responses: JSON, settings: Settings) -> JSON:
    shown: JSON = {"tags": [operation.tag], "operationId": operation.name, "summary": operation.summary}
    told = [operation.description] if operation.description else []
    if has_auth(settings):
        guarded = operation.scope != "open"
        told.append(f"Scope: `{operation.scope}`." if guarded else "No authentication is needed.")
        shown |= {"security": [{_SCHEME: []}] if guarded else []}
        shown |= {"x-scope": operation.scope} if guarded else {}
    if told:
        shown["description"] = "\n\n".join(told)
    parameters = [
        *(
            _parameter("path", name, schemas.of(field.hint), True)
            for name, field in operation.in_path.items()
        ),
        *_parameters("query", operation.query.struct, schemas),
        *(_parameters("header", operation.headers.struct, schemas) if operation.headers else ()),
    ]
    if parameters:
        shown["parameters"] = parameters
    if operation.body is not None:
        content = {"application/json": {"schema": schemas.of(operation.body)}}
        shown["requestBody"] = {"required": operation.body_required, "content": content}
    shown["responses"] = {str(status): _answer(operation, status, schemas) for status in operation.statuses}
    for status, errors in _by_status(_met(operation, settings)):
        reference = _error(errors, responses)
        own = shown["responses"].get(str(status))
        shown["responses"][str(status)] = _either(own, reference, responses) if own else reference
    return shown


def _either(own: JSON, reference: JSON, responses: JSON) -> JSON:
    """An answer and an error that share a status: the content type tells them apart."""
    error = responses[reference["$ref"].rpartition("/")[2]]
    return {
        **own,
        "description": f"{own['description']} Or: {error['description']}",
        "content": {**own["content"], **error["content"]},
    }


def _met(operation: Operation, settings: Settings) -> list[type[ApiError]]:
    """The errors that a call can meet: its own, and those of the gate before it (``app/api/auth.py``)."""
    found = list(operation.errors)
    if operation.scope == "open":
        return found
    if has_auth(settings):
        found += [Unauthorized, StoreUnavailable]  # keys lie in Redis
        if "workspace_id" in operation.in_path:
            found.append(NotFound)
        asks_for_more = operation.scope != "read" or "reveal" in operation.query.names
        if asks_for_more or settings.auth == "jwt":  # a token may have no scope at all
            found.append(Forbidden)
    else:
        found.append(ForeignPage)
    if settings.auth == "jwt" and settings.jwt_jwks:
        found.append(IssuerUnavailable)
    if settings.rate_limit_key or (settings.rate_limit_workspace and "workspace_id" in operation.in_path):
        found.append(TooManyRequests)
    return in_order(found)


def _parameters(where: str, struct: type[msgspec.Struct], schemas: _Schemas) -> Iterator[JSON]:
    properties = schemas.parameters(struct)
    for field in msgspec.structs.fields(struct):
        name = field.encode_name.replace("_", "-").title() if where == "header" else field.encode_name
        yield _parameter(where, name, properties[field.encode_name], field.required)


def _parameter(where: str, name: str, schema: JSON, required: bool) -> JSON:
    """A parameter. It is given or left out, never null."""
    shown: JSON = {"name": name, "in": where}
    if "description" in schema:
        shown["description"] = schema.pop("description")
    options = [one for one in schema.pop("anyOf", ()) if one != {"type": "null"}]
    if len(options) == 1:
        schema = {**options[0], **schema}
    if schema.get("default", UNSET) is None:
        del schema["default"]
    if schema.get("type") == "array":  # its items are separated by commas
        shown |= {"style": "form", "explode": False} if where == "query" else {"style": "simple"}
        schema.setdefault("minItems", 1)
    if where == "path" and schema.get("type") == "string" and "pattern" not in schema:
        schema.setdefault("minLength", 1)
    return {**shown, "required": required, "schema": schema}


def _answer(operation: Operation, status: int, schemas: _Schemas) -> JSON:
    about = [inspect.getdoc(one) or HTTPStatus(status).phrase for one in operation.answers]
    refs = [schemas.of(one) for one in operation.answers]
    schema = {"anyOf": refs} if len(refs) > 1 else refs[0]
    shown: JSON = {
        "description": " Or: ".join(one.partition("\n")[0] for one in about),
        "content": {"application/json": {"schema": schema}},
    }
    if operation.answer_headers:
        shown["headers"] = _headers(operation.answer_headers)
    return shown


def _headers(described: Any) -> JSON:
    return {name: {"description": about, "schema": {"type": "string"}} for name, about in described.items()}


def _by_status(errors: Iterable[type[ApiError]]) -> Iterator[tuple[int, list[type[ApiError]]]]:
    found: dict[int, list[type[ApiError]]] = {}
    for error in errors:
        found.setdefault(error.status, []).append(error)
    yield from found.items()


def _error(errors: list[type[ApiError]], responses: JSON) -> JSON:
    """A reference to the answer for errors that share a status."""
    name = "Or".join(error.__name__ for error in errors)
    told = {"status": {"const": errors[0].status}, "code": {"enum": [error.code for error in errors]}}
    schema = {"allOf": [{"$ref": _REF.format("schemas", Problem.__name__)}, {"properties": told}]}
    response: JSON = {
        "description": " Or: ".join(inspect.getdoc(error) or error.title for error in errors),
        "content": {"application/problem+json": {"schema": schema}},
    }
    sent = {header: about for error in errors for header, about in error.sends.items()}
    if sent:
        response["headers"] = _headers(sent)
    responses[name] = response
    return {"$ref": _REF.format("responses", name)}
