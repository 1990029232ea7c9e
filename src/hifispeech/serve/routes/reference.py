"""`/docs`: the OpenAPI description as one plain page, without scripts and without anything from elsewhere."""

import json
import re
from collections.abc import Iterator
from html import escape
from typing import Any

STYLE = "/static/style.css"


def reference_page(openapi: dict[str, Any]) -> str:
    """HTML of an OpenAPI description."""
    info = openapi["info"]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(info['title'])} API</title>",
        f'<link rel="stylesheet" href="{STYLE}"></head><body><main>',
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])}</p>",
        '<p>Machine-readable: <a href="/openapi.json">/openapi.json</a>. '
        "Streams: <code>WS /v1/stream?rate=8000&amp;channels=1&amp;format=s16le</code>.</p>",
    ]
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            parts += _operation(openapi, method.upper(), path, operation)
    return "".join([*parts, "</main></body></html>"])


def _operation(openapi: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<section><h2><code>{method} {escape(path)}</code></h2>"
    yield f"<p>{_text(operation.get('description', ''))}</p>"
    if parameters := operation.get("parameters"):
        yield "<h3>Parameters</h3><ul>"
        for item in parameters:
            schema = item.get("schema", {})
            values = " | ".join(map(str, schema.get("enum", []))) or schema.get("type", "")
            default = f", default {schema['default']}" if "default" in schema else ""
            text = _text(item.get("description", ""))
            yield f"<li><code>{escape(item['name'])}</code> ({escape(values + default)}): {text}</li>"
        yield "</ul>"
    if body := operation.get("requestBody"):
        kinds = ", ".join(f"<code>{escape(kind)}</code>" for kind in body["content"])
        yield f"<h3>Body</h3><p>{kinds}</p>"
    yield "<h3>Answers</h3><ul>"
    for status, answer in operation["responses"].items():
        yield f"<li><strong>{escape(status)}</strong> {escape(answer.get('description', ''))}"
        example = _example(openapi, answer)
        yield (
            f"<pre>{escape(json.dumps(example, indent=2))}</pre></li>"
            if example and status < "300"
            else "</li>"
        )
    yield "</ul></section>"


def _text(markdown: str) -> str:
    """HTML of a line of Markdown, of which the descriptions use code spans only."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(markdown))


def _example(openapi: dict[str, Any], answer: dict[str, Any]) -> Any:
    """Of a JSON answer, from the examples of its fields."""
    schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
    return _value(openapi, schema)


def _value(openapi: dict[str, Any], schema: dict[str, Any]) -> Any:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _value(openapi, openapi["components"]["schemas"][name])
    if schema.get("examples"):
        return schema["examples"][0]
    if schema.get("type") == "object":
        return {key: _value(openapi, inner) for key, inner in schema.get("properties", {}).items()}
    if schema.get("type") == "array":
        return [_value(openapi, schema.get("items", {}))]
    return schema.get("default")
