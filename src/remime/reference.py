"""The reference of all configuration keys, generated from their schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from remime.layout import STAGE_KEYS
from remime.schema import VARIANTS, compose, variants


def documentation(schema: Mapping[str, Any]) -> str:
    """The reference of all keys as Markdown.

    Args:
        schema: the schema as it was loaded, with its references.
    """
    composed = compose(schema, {})
    out = [
        "# Configuration",
        "",
        "<!-- Generated from workflow/schemas/config.schema.yaml by `python -m remime.options --docs`. -->",
        "",
        schema["description"].strip(),
        "",
    ]
    sections = composed["properties"]
    single = {name: part for name, part in sections.items() if part["type"] != "object"}
    out += ["## General", "", *_table(single), ""]
    for name, part in sections.items():
        if part["type"] != "object":
            continue
        out += [f"## `{name}`", "", part["description"], ""]
        if name in VARIANTS:
            out += _variants(schema, name)
        elif "properties" not in part:
            out += [*_table(part["additionalProperties"]["properties"]), ""]
        else:
            out += [*_table(part["properties"]), ""]
    return "\n".join(out).rstrip() + "\n"


def _variants(schema: Mapping[str, Any], section: str) -> list[str]:
    key, place = VARIANTS[section]
    described: Any = schema["$defs"]
    for part in place:
        described = described[part]
    out = []
    for name, variant in variants(schema, section).items():
        required = variant["required"]
        own = [k for k in variant["properties"] if k not in STAGE_KEYS and k != key]
        properties = {k: variant["properties"][k] for k in own}
        out += [f"### `{key}: {name}`", "", described[name]["description"], ""]
        out += [*_table(properties, required=required), ""]
    return out


def _table(properties: Mapping[str, Any], *, required: Sequence[str] = ()) -> list[str]:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, part in _leaves(properties):
        default = (
            "required" if name in required or "default" not in part else f"`{json.dumps(part['default'])}`"
        )
        rows.append(f"| `{name}` | {_type(part)} | {default} | {_escape(part['description'])} |")
    return rows


def _leaves(properties: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, part in properties.items():
        if part.get("properties"):
            yield from _leaves(part["properties"], f"{prefix}{name}.")
        else:
            yield prefix + name, part


def _type(part: Mapping[str, Any]) -> str:
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    kinds = part["type"] if isinstance(part["type"], list) else [part["type"]]
    text = " or ".join(kinds)
    if kinds == ["array"]:
        items = part.get("items", {})
        text = f"list of {_type(items)}" if items else "list"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {part[word]}" for word, sign in signs.items() if word in part]
    return f"{text}, {', '.join(bounds)}" if bounds else text


def _escape(text: str) -> str:
    return text.strip().replace("|", "\\|").replace("\n", " ")
