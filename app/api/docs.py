"""The document as a page: rendered here from the document itself, without scripts and without a network."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator
from html import escape
from importlib.resources import files
from typing import Any
from urllib.parse import quote

JSON = dict[str, Any]

# What stands for a string in an example, by its format.
_SAMPLES = {
    "cron": "*/5 * * * *",
    "time-zone": "Europe/Berlin",
    "http-url": "https://example.com/hook",
    "date-time": "2026-01-31T09:00:00Z",
}
_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "default": "default {}",
}

_UNSAID = (("default", ""), ("minLength", 1), ("minItems", 1))


def page_of(document: JSON) -> str:
    """The whole page."""
    return _Page(document).html()


class _Page:
    def __init__(self, document: JSON) -> None:
        self._document = document
        self._schemas: JSON = document["components"]["schemas"]
        self._responses: JSON = document["components"]["responses"]
        bodies = (one.get("requestBody") for item in document["paths"].values() for one in item.values())
        self._inputs = self._reached(bodies)

    def html(self) -> str:
        info = self._document["info"]
        title = f"{escape(info['title'])} API"
        style = (files("app.api") / "docs.css").read_text()
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
            '<a class="skip" href="#main">Skip to the content</a>\n'
            f'<nav aria-label="Contents">{self._contents(title)}</nav>\n<main id="main">\n'
            f"<header><h1>{title} <small>{escape(info['version'])}</small></h1>{_prose(info['description'])}"
            "<p>The examples take the address of the API from <code>CRONSPACE_URL</code>, such as"
            " <code>http://127.0.0.1:3000</code>. This page in a form for programs:"
            ' <a href="openapi.json">openapi.json</a>.</p></header>\n'
            f"{''.join(self._tag(tag) for tag in self._document['tags'])}"
            f"{self._types()}</main>\n</body>\n</html>\n"
        )

    def _reached(self, roots: Iterable[Any]) -> set[str]:
        """The named types that something is made of."""
        waiting, names = list(roots), set()
        while waiting:
            part = waiting.pop()
            if isinstance(part, dict):
                if "$ref" in part and _name(part) not in names:
                    names.add(_name(part))
                    waiting.append(self._schemas[_name(part)])
                waiting += part.values()
            elif isinstance(part, list):
                waiting += part
        return names

    def _operations(self, tag: str) -> Iterator[tuple[str, str, JSON]]:
        """Path, method and operation."""
        for path, item in self._document["paths"].items():
            for method, operation in item.items():
                if tag in operation["tags"]:
                    yield path, method.upper(), operation

    def _contents(self, title: str) -> str:
        parts = [f'<a class="home" href="#main">{title}</a>']
        for tag in self._document["tags"]:
            links = (
                f'<li><a href="#{one["operationId"]}">{_method(method)} {escape(_spaced(one))}</a></li>'
                for _, method, one in self._operations(tag["name"])
            )
            parts.append(f'<h2><a href="#tag-{tag["name"]}">{escape(tag["name"])}</a></h2>')
            parts.append(f"<ul>{''.join(links)}</ul>")
        names = "".join(f'<li><a href="#type-{name}">{name}</a></li>' for name in self._schemas)
        return "".join([*parts, f'<h2><a href="#types">types</a></h2><ul>{names}</ul>'])

    def _tag(self, tag: JSON) -> str:
        operations = "".join(self._operation(*one) for one in self._operations(tag["name"]))
        return (
            f'<section id="tag-{tag["name"]}" class="tag"><h2>{escape(tag["name"].capitalize())}</h2>'
            f"{_prose(tag['description'])}{operations}</section>\n"
        )

    def _operation(self, path: str, method: str, operation: JSON) -> str:
        id_ = operation["operationId"]
        body = operation.get("requestBody")
        return (
            f'<article id="{id_}" aria-labelledby="{id_}-title">'
            f'<h3 id="{id_}-title"><a href="#{id_}">{escape(operation["summary"])}</a></h3>'
            f'<p class="call">{_method(method)} <code>{_path(path)}</code></p>'
            f"{_prose(operation.get('description', ''))}"
            f"{self._parameters(operation.get('parameters', []))}{self._body(body)}"
            f"<h4>Answers</h4>{self._answers(operation['responses'])}"
            f"<h4>Example</h4><pre><code>{escape(self._curl(path, method, operation))}</code></pre>"
            "</article>\n"
        )

    def _parameters(self, parameters: list[JSON]) -> str:
        rows = (
            (
                f"<code>{escape(one['name'])}</code>{_needed(one['required'])}",
                f"{escape(one['in'])}",
                self._type(one["schema"]) + _limits(one["schema"]),
                _inline(one.get("description", "")),
            )
            for one in parameters
        )
        table = _table(("Name", "In", "Type", "Meaning"), rows)
        return f"<h4>Parameters</h4>{table}" if parameters else ""

    def _body(self, body: JSON | None) -> str:
        if body is None:
            return ""
        schema = body["content"]["application/json"]["schema"]
        needed = "" if body["required"] else " It may be left out."
        return f"<h4>Body</h4><p>{self._type(schema)} in JSON.{needed}</p>"

    def _answers(self, responses: JSON) -> str:
        rows = []
        for status, given in responses.items():
            response = self._responses[_name(given)] if "$ref" in given else given
            types = " or ".join(self._answered(one["schema"]) for one in response["content"].values())
            headers = "".join(
                f'<p class="small"><code>{escape(name)}</code>: {_inline(one["description"])}</p>'
                for name, one in response.get("headers", {}).items()
            )
            kind = "good" if int(status) < 400 else "bad"
            rows.append(
                (
                    f'<span class="status {kind}">{status}</span>',
                    types,
                    _inline(response["description"]) + headers,
                )
            )
        return _table(("Status", "Type", "Meaning"), rows)

    def _answered(self, schema: JSON) -> str:
        """The type of an answer, with the codes that an error may have."""
        if "allOf" not in schema:
            return self._type(schema)
        shown, told = schema["allOf"]
        codes = " ".join(f"<code>{escape(code)}</code>" for code in told["properties"]["code"]["enum"])
        return f"{self._type(shown)} {codes}"

    def _types(self) -> str:
        shown = "".join(self._named(name, schema) for name, schema in self._schemas.items())
        return f'<section id="types" class="tag"><h2>Types</h2>{shown}</section>\n'

    def _named(self, name: str, schema: JSON) -> str:
        head = (
            f'<article id="type-{name}" aria-labelledby="type-{name}-title">'
            f'<h3 id="type-{name}-title"><a href="#type-{name}">{name}</a></h3>'
            f"{_prose(schema.get('description', ''))}"
        )
        if "properties" not in schema:
            return f"{head}<p>{self._type(schema)}{_limits(schema)}</p></article>\n"
        required = schema.get("required", ())
        mark = _needed if name in self._inputs else _always
        rows = (
            (
                f"<code>{escape(field)}</code>{mark(field in required)}",
                self._type(one) + _limits(one),
                _inline(one.get("description", "")),
            )
            for field, one in schema["properties"].items()
        )
        return f"{head}{_table(('Field', 'Type', 'Meaning'), rows)}</article>\n"

    def _type(self, schema: JSON) -> str:
        """A type in words, with links."""
        if "$ref" in schema:
            name = _name(schema)
            return f'<a href="#type-{name}">{name}</a>'
        if "anyOf" in schema:
            return " or ".join(self._type(one) for one in schema["anyOf"])
        if "const" in schema:
            return f"<code>{escape(json.dumps(schema['const']))}</code>"
        if "enum" in schema:
            return " | ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
        kind = schema.get("type", "any JSON value")
        if isinstance(kind, list):
            return "any JSON value"
        if kind == "array":
            return f"array of {self._type(schema.get('items', {}))}"
        if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
            return f"object of {self._type(schema['additionalProperties'])}"
        return escape(str(schema.get("format", kind) if kind == "string" else kind))

    def _curl(self, path: str, method: str, operation: JSON) -> str:
        given = {one["name"]: one for one in operation.get("parameters", ())}
        for name, one in given.items():
            path = path.replace(f"{{{name}}}", quote(str(self._sample(one["schema"], name)), safe=":"))
        query = "&".join(
            f"{name}={quote(str(self._sample(one['schema'], name)))}"
            for name, one in given.items()
            if one["in"] == "query" and one["required"]
        )
        lines = ["curl" if method == "GET" else f"curl -X {method}"]
        lines[0] += f' "$CRONSPACE_URL{path}{"?" + query if query else ""}"'
        if operation.get("security"):
            lines.append('-H "Authorization: Bearer $CRONSPACE_KEY"')
        body = operation.get("requestBody")
        if body is not None:
            sample = self._sample(body["content"]["application/json"]["schema"], "")
            lines.append("-H 'content-type: application/json'")
            lines.append(f"-d {shlex.quote(json.dumps(sample, indent=2))}")
        return " \\\n  ".join(lines)

    def _sample(self, schema: JSON, name: str) -> Any:
        """A value that fits a schema."""
        if "$ref" in schema:
            return self._sample(self._schemas[_name(schema)], name)
        for word in ("examples", "enum"):
            if word in schema:
                return schema[word][0]
        if "const" in schema:
            return schema["const"]
        if "anyOf" in schema:
            return self._sample(schema["anyOf"][0], name)
        match schema.get("type"):
            case "object":
                needed = schema.get("required", ())
                return {field: self._sample(schema["properties"][field], field) for field in needed}
            case "array":
                return [self._sample(schema.get("items", {}), name)]
            case "boolean":
                return True
            case "integer" | "number":
                return schema.get("default", schema.get("minimum", 1))
        return _SAMPLES.get(schema.get("format", ""), schema.get("default", name))


def _name(reference: JSON) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _spaced(operation: JSON) -> str:
    return str(operation["operationId"]).replace("_", " ")


def _method(method: str) -> str:
    return f'<span class="method {method.lower()}">{method}</span>'


def _path(path: str) -> str:
    return re.sub(r"(\{\w+\})", r"<em>\1</em>", escape(path).replace("/", "/<wbr>"))


def _needed(required: bool) -> str:
    return ' <span class="needed">required</span>' if required else ""


def _always(sent: bool) -> str:
    return "" if sent else ' <span class="needed">sometimes</span>'


def _limits(schema: JSON) -> str:
    said = list(_said(schema))
    return f'<p class="small">{", ".join(said)}</p>' if said else ""


def _said(schema: JSON) -> Iterator[str]:
    for option in schema.get("anyOf", ()):
        yield from _said(option)
    for name, words in _BOUNDS.items():
        if schema.get(name) is not None and (name, schema[name]) not in _UNSAID:
            yield words.format(escape(json.dumps(schema[name], ensure_ascii=False)))
    if "pattern" in schema:
        yield f"<code>{escape(schema['pattern'])}</code>"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f'<th scope="col">{one}</th>' for one in heads)
    lines = []
    for first, *cells in rows:
        rest = "".join(f"<td>{cell}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{first}</th>{rest}</tr>')
    return (
        '<div class="wide" tabindex="0" role="group"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _prose(text: str) -> str:
    """Paragraphs, lists, `code` and **strong**: what the descriptions are written with."""
    parts = []
    for block in filter(None, re.split(r"\n\s*\n", text.strip())):
        if block.startswith("- "):
            items = (f"<li>{_inline(item)}</li>" for item in re.split(r"\n?^- ", block, flags=re.M) if item)
            parts.append(f"<ul>{''.join(items)}</ul>")
        else:
            parts.append(f"<p>{_inline(block)}</p>")
    return "".join(parts)


def _inline(text: str) -> str:
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
