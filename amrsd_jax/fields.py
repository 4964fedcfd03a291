"""Describes the fields of a config in lines of text: those that exist, and those of one run."""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from amrsd_jax.config import Config, base
from amrsd_jax.sections import Section

_TYPES = {"integer": "int", "number": "float", "string": "str", "boolean": "bool", "array": "tuple", "null": "None"}
_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def every_field(section: Section | None = None, place: str = "") -> Iterator[str]:
    """Yields lines on every field: the flag with its default, type and bounds, and its meaning."""
    section = section or Config()
    schema = type(section).model_json_schema()["properties"]
    for name, field in type(section).model_fields.items():
        value, flag = getattr(section, name), f"{place}{name}"
        if isinstance(value, Section):
            about = field.description or type(value).__doc__.splitlines()[0]
            yield from ("", f"{flag}: {about}", *every_field(value, f"{flag}."))
        elif isinstance(value, dict):
            yield from (f"  --config.{flag}.NAME=VALUE", f"      {field.description}")
        else:
            yield from (f"  --config.{flag}={value!r}    {_type(schema[name])}", f"      {field.description}")


def _type(schema: dict[str, Any]) -> str:
    """Returns the type and the bounds that a field's JSON schema states."""
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(map(repr, schema["enum"]))
    kind = schema.get("type", "any")
    return " ".join(
        [_TYPES.get(kind, kind), *(f"{sign} {schema[key]}" for key, sign in _BOUNDS.items() if key in schema)]
    )


def of_run(edited: ConfigDict, config: Config) -> Iterator[str]:
    """Yields a line on every field of a validated config, with a star where the config that the user edited sets another value.

    Args:
      edited: the config before it was validated.
      config: the same config, validated: what is left to the rule or task is filled in.
    """
    chosen, defaults = flatten(edited.to_dict()), flatten(base().to_dict())
    for field, value in flatten(config.model_dump()).items():
        default = defaults.get(field)
        star = field in chosen and chosen[field] != default
        was = f"    (default {default!r})" if star and field in defaults else ""
        yield f"{'*' if star else ' '} {field} = {value!r}{was}"


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of nested dictionaries by their keys, joined by dots."""
    flat = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
