"""A JSON schema put to work: composed for one configuration, its defaults filled in, its errors explained.

Entries such as a dataset have keys that depend on one of their own values (``source``, ``method``). The
schema file keeps those variants under ``$defs``; :func:`compose` merges the right ones in, so that each entry
has one closed list of keys and an unknown one is refused by name.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

# section: (the key that decides, where the variants lie below $defs)
VARIANTS = {
    "datasets": ("source", ("sources",)),
    "inverters": ("method", ("methods", "inverters")),
    "models": ("method", ("methods", "models")),
}
_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping of keys",
    "null": "null",
}

_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}


def default_schema() -> Path:
    """``workflow/schemas/config.schema.yaml`` of this checkout, else of the working directory."""
    relative = Path("workflow/schemas/config.schema.yaml")
    own = Path(__file__).resolve().parents[2] / relative
    return own if own.is_file() else relative


def load_schema(path: str | Path | None = None) -> dict[str, Any]:
    """Read the schema file."""
    # Not at the top: only validation needs it, and it comes with Snakemake.
    import yaml

    return yaml.safe_load(Path(path or default_schema()).read_text(encoding="utf-8"))


def merge(base: Any, over: Any) -> Any:
    """``over`` laid over ``base``: mappings are merged key by key, everything else is replaced."""
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return copy.deepcopy(over)
    result = copy.deepcopy(dict(base))
    for key, value in over.items():
        result[key] = merge(result[key], value) if key in result else copy.deepcopy(value)
    return result


def resolve(node: Any, root: Mapping[str, Any]) -> Any:
    """A part of the schema without references; what stands beside a reference is merged over it."""
    if isinstance(node, list):
        return [resolve(item, root) for item in node]
    if not isinstance(node, Mapping):
        return node
    own = {key: resolve(value, root) for key, value in node.items() if key != "$ref"}
    if "$ref" not in node:
        return own
    target: Any = root
    for part in node["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return merge(resolve(target, root), own)


def variants(schema: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The variants of a section's entries by the value that chooses them, resolved and complete."""
    key, place = VARIANTS[section]
    found: Any = schema["$defs"]
    for part in place:
        found = found[part]
    names = sorted(found)
    entry = resolve(schema["properties"][section]["additionalProperties"], schema)
    entry["properties"][key]["enum"] = names
    for stage in set(entry["properties"]) & set(schema["properties"]):
        entry["properties"][stage] = _without_defaults(entry["properties"][stage])
    result = {}
    for name in names:
        variant = merge(entry, {k: v for k, v in resolve(found[name], schema).items() if k != "required"})
        variant["required"] = [*entry.get("required", []), *found[name].get("required", [])]
        result[name] = {**variant, "type": "object", "additionalProperties": False}
    return result


def _without_defaults(node: Any) -> Any:
    """A branch that overrides another one: nothing is filled in where it is silent."""
    if not isinstance(node, Mapping):
        return node
    return {key: _without_defaults(value) for key, value in node.items() if key != "default"}


def compose(schema: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of one configuration, without references or choices.

    Entries that do not say of which kind they are, or wrongly, are only checked for that.
    """
    result = resolve({k: v for k, v in schema.items() if k != "$defs"}, schema)
    for section, (key, _) in VARIANTS.items():
        entries = config.get(section)
        known = variants(schema, section)
        unclear = {
            "type": "object",
            "required": [key],
            "properties": {key: {"type": "string", "enum": list(known)}},
        }
        properties = {}
        for name, entry in entries.items() if isinstance(entries, Mapping) else ():
            chosen = entry.get(key) if isinstance(entry, Mapping) else None
            properties[name] = known.get(chosen, unclear) if isinstance(chosen, str) else unclear
        result["properties"][section]["properties"] = properties
        del result["properties"][section]["additionalProperties"]
    return result


def fill(schema: Mapping[str, Any], value: Any) -> Any:
    """A valid value with the defaults of all missing keys, and with whole numbers as such (4 for 4.0)."""
    if schema.get("type") == "integer" and isinstance(value, float):
        return int(value)
    if not isinstance(value, Mapping):
        return copy.deepcopy(value)
    parts, others = schema.get("properties", {}), schema.get("additionalProperties")
    others = others if isinstance(others, Mapping) else {}
    result = {key: fill(parts.get(key, others), item) for key, item in value.items()}
    for key, part in parts.items():
        if key not in result and "default" in part:
            result[key] = fill(part, part["default"])
    return result


def dotted(path: Iterable[object]) -> str:
    """``datasets.mine.shards``; list positions in brackets."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "the configuration"


def suggest(value: object, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for a near miss, else nothing."""
    close = difflib.get_close_matches(str(value), list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def listed(names: Iterable[object]) -> str:
    """Names for a message."""
    return ", ".join(str(name) for name in names) or "none"


def find_problems(schema: Mapping[str, Any], value: Any) -> list[str]:
    """What a composed schema has against a value: key, value, what is allowed and the fix of each problem."""
    # Not at the top: only validation needs it, and it comes with Snakemake.
    from jsonschema import Draft202012Validator

    errors = sorted(
        Draft202012Validator(schema).iter_errors(value), key=lambda e: [str(p) for p in e.absolute_path]
    )
    # A missing key is reported once per missing key, each time with all of them.
    return list(dict.fromkeys(problem for error in errors for problem in _explain(error)))


def _explain(error: Any) -> list[str]:
    path, value, rule = list(error.absolute_path), error.instance, error.validator_value
    where, allowed = dotted(path), f"{dotted(path)}: {error.instance!r}"
    match error.validator:
        case "additionalProperties":
            known = list(error.schema.get("properties", {}))
            extra = [key for key in value if key not in known]
            return [
                f"{dotted([*path, key])}: unknown key; allowed: {listed(known)}{suggest(key, known)}"
                for key in extra
            ]
        case "required":
            missing = [key for key in rule if key not in value]
            return [f"{dotted([*path, key])}: is missing; {_wanted(error.schema, key)}" for key in missing]
        case "type":
            return [f"{allowed} is {_kind(value)}; allowed: {_types(rule)}{_number_hint(rule, value)}"]
        case "enum":
            return [f"{allowed} is not known; allowed: {listed(rule)}{suggest(value, map(str, rule))}"]
        case "const":
            return [f"{allowed} is not allowed; it must be {rule!r}"]
        case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum":
            return [f"{allowed} is out of range; allowed: {_BOUNDS[error.validator]} {rule}"]
        case "minItems" | "minLength" | "minProperties":
            return [f"{where}: is empty; name at least {rule}"]
        case "uniqueItems":
            return [f"{where}: names something twice ({listed(value)}); name it once"]
        case "pattern":
            meaning = error.schema.get("description", f"it must match {rule}")
            return [f"{where}: {value!r} is not allowed; {meaning}"]
    return [f"{where}: {error.message}"]


def _wanted(schema: Mapping[str, Any], key: str) -> str:
    part = schema.get("properties", {}).get(key, {})
    if "enum" in part:
        return f"allowed: {listed(part['enum'])}"
    return f"it is {_types(part.get('type', 'string'))}: {part.get('description', key)}"


def _types(rule: str | Sequence[str]) -> str:
    return " or ".join(_TYPES[name] for name in ([rule] if isinstance(rule, str) else rule))


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return _TYPES["boolean"]
    kinds = {str: "string", int: "integer", float: "number", Mapping: "object", list: "array"}
    return _TYPES[next((name for kind, name in kinds.items() if isinstance(value, kind)), "null")]


def _number_hint(rule: str | Sequence[str], value: object) -> str:
    if not isinstance(value, str) or not {"number", "integer"} & set(
        [rule] if isinstance(rule, str) else rule
    ):
        return ""
    try:
        number = float(value)
    except ValueError:
        return ""
    # YAML 1.1 takes 1e-4 for text; with a point it is a number.
    return f"; write {number:.1e}" if "e" in value.lower() else "; write it without quotes"
