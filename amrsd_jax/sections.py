"""Defines what a section of the config is, how users edit one, and what is said where a field is wrong."""

import types
import typing
from typing import Annotated, Any

import ml_collections
import pydantic
from ml_collections.config_dict import placeholder
from pydantic import Field

from amrsd_jax.names import nearest

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class ConfigError(ValueError):
    """A field of the config is wrong; the message names it, its value and what was expected."""


class Section(pydantic.BaseModel):
    """A part of the config. It is frozen, refuses unknown fields, and converts no value but an integer to a float."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def section(cls: type[Section]) -> Any:
    """Returns a field that holds a section with its defaults."""
    return Field(default_factory=cls)


def open_section(description: str) -> Any:
    """Returns a field that holds arguments by name; `validate` checks them against their task, rule, section or record."""
    return Field(default_factory=dict, description=description)


def editable(model: Section) -> ml_collections.ConfigDict:
    """Returns a section's values in the form that config files and flags edit."""
    config = ml_collections.ConfigDict()
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, Section):
            value = editable(value)
        elif isinstance(value, dict):
            value = ml_collections.ConfigDict(value)
        elif value is None:
            value = placeholder(_optional_type(field.annotation))
        config[name] = value
    return config


def _optional_type(annotation: Any) -> type:
    """Returns the type T of T | None, or of Annotated[T, ...] | None."""
    inner = next(kind for kind in typing.get_args(annotation) if kind is not types.NoneType)
    return typing.get_args(inner)[0] if typing.get_origin(inner) is Annotated else inner


def parse(model: type[Section], values: dict[str, Any], place: str = "") -> Section:
    """Returns values validated as a section of type `model`.

    Args:
      place: field of the config that holds the values, for messages.

    Raises:
      ConfigError: a line for each wrong field, with its value and what was expected.
    """
    try:
        return model.model_validate(values)
    except pydantic.ValidationError as error:
        raise ConfigError("\n".join(_explain(model, place, one) for one in error.errors())) from None


def _explain(model: type[Section], place: str, error: dict[str, Any]) -> str:
    """Returns one line about one wrong field."""
    location = [str(part) for part in error["loc"]]
    field, value = ".".join(filter(None, [place, *location])), error["input"]
    if error["type"] == "extra_forbidden":
        known = _fields(model, location[:-1])
        expected = nearest(location[-1], known) if known else "it has none"
        return f"{field} = {value!r}: no such field; {expected}"
    if error["type"] == "literal_error":
        choices = typing.get_args(_fields(model, location[:-1])[location[-1]].annotation)
        return f"{field} = {value!r}: {nearest(value, filter(None, choices))}"
    if error["type"] == "missing":
        return f"{field}: missing; start the config from amrsd_jax.config.base()"
    if error["type"] == "value_error":  # one of the validators above; a section's names the field that is wrong
        message = error["msg"].removeprefix("Value error, ")
        return f"{field}.{message}" if isinstance(value, dict) else f"{field} = {value!r}: {message}"
    return f"{field} = {value!r}: {error['msg'].replace('Input should be', 'expected')}"


def _fields(model: type[Section], location: list[str]) -> dict[str, pydantic.fields.FieldInfo]:
    """Returns the fields of the section at a location; those of a benchmark for any name below `benchmarks`."""
    for part in location:
        field = model.model_fields.get(part)
        if field is None:
            continue  # the name of a benchmark
        kinds = [field.annotation, *typing.get_args(field.annotation)]
        model = next((k for k in kinds if isinstance(k, type) and issubclass(k, Section)), model)
    return model.model_fields
