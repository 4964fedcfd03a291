"""Rotary position embedding, and the ways in which released models scale its frequencies to longer rows.

A scaling is written as `rope_parameters` or `rope_scaling` of a Hugging Face config.json, both when a model is read and in the
field `architecture.rope_scaling`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from amrsd_jax.names import nearest

ORIGINAL = "original_max_position_embeddings"


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """A change of the rotary frequencies; its subclasses are the kinds.

    Attributes:
      factor: by how much rows become longer.
    """

    kind: ClassVar[str]
    magnitude: ClassVar[float] = 1.0  # of cosines and sines
    factor: float

    def frequencies(self, frequency: Float[Array, " h"], theta: float) -> Float[Array, " h"]:
        """Returns the scaled frequencies of a head's h pairs, from theta^(-i/h)."""
        raise NotImplementedError

    def longest(self, max_positions: int) -> int:
        """Returns the longest row of a model whose config.json names `max_positions`."""
        return max_positions

    def json(self) -> dict[str, Any]:
        """Returns the scaling as config.json has it, without what is None."""
        fields = {_json_name(name): value for name, value in vars(self).items() if value is not None}
        return {"rope_type": self.kind, **fields}


@dataclasses.dataclass(frozen=True)
class LinearScaling(RopeScaling):
    """Position interpolation (arXiv 2306.15595): every frequency is divided by the factor."""

    kind = "linear"

    def frequencies(self, frequency, theta):
        return frequency / self.factor

    def longest(self, max_positions):
        return int(max_positions * self.factor)


@dataclasses.dataclass(frozen=True)
class Llama3Scaling(RopeScaling):
    """The scaling of Llama 3.1 and 3.2, in which `max_position_embeddings` is already the longer row.

    Long wavelengths are divided by the factor, short ones kept, and those between interpolated in 1/wavelength.
    """

    kind = "llama3"
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int

    def frequencies(self, frequency, theta):
        turns = self.original_max_positions * frequency / (2 * jnp.pi)
        keep = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        keep = jnp.clip(keep, 0.0, 1.0)
        return frequency * (keep + (1 - keep) / self.factor)


@dataclasses.dataclass(frozen=True)
class YarnScaling(RopeScaling):
    """YaRN (arXiv 2309.00071), with the names and defaults of `transformers`.

    Pairs that turn more than `beta_fast` times over the original length are kept, those that turn less than `beta_slow` times
    are divided by the factor, and those between interpolated linearly in the pair's number. Queries and keys are multiplied
    by a magnitude: `attention_factor`, by default 0.1 ln(factor) + 1.
    """

    kind = "yarn"
    original_max_positions: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True

    @property
    def magnitude(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        return 0.1 * math.log(self.factor) + 1 if self.factor > 1 else 1.0

    def frequencies(self, frequency, theta):
        size = 2 * len(frequency)

        def pair(turns: float) -> float:
            """Returns the number of the pair that turns so often over the original length."""
            return size * math.log(self.original_max_positions / (turns * 2 * math.pi)) / (2 * math.log(theta))

        low, high = pair(self.beta_fast), pair(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, size - 1)
        high += 0.001 * (low == high)
        scaled = jnp.clip((jnp.arange(len(frequency), dtype=jnp.float32) - low) / (high - low), 0.0, 1.0)
        return frequency / self.factor * scaled + frequency * (1 - scaled)

    def longest(self, max_positions):
        return max(max_positions, int(self.original_max_positions * self.factor))


KINDS = {kind.kind: kind for kind in (LinearScaling, Llama3Scaling, YarnScaling)}
# Fields of config.json that belong to the model and not to the scaling, or whose value changes nothing here.
_OTHER = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}


def _json_name(field: str) -> str:
    return ORIGINAL if field == "original_max_positions" else field


def parse_scaling(values: Mapping[str, Any], max_positions: int, place: str) -> RopeScaling | None:
    """Returns the scaling that a section of config.json describes; None for none.

    Args:
      values: `rope_parameters` or `rope_scaling`.
      max_positions: `max_position_embeddings`, the original length of YaRN if the section does not name it.
      place: file and field, for messages.

    Raises:
      ValueError: no kind, or an unknown one, a field that is missing or that the kind does not have, or a wrong value.
    """
    kind = values.get("rope_type") or values.get("type")
    given = {name: value for name, value in values.items() if name not in _OTHER and value is not None}
    if kind == "default" or not (kind or given):
        return None
    if not isinstance(kind, str) or kind not in KINDS:  # None too: a factor alone would change nothing
        raise ValueError(f"{place}.rope_type = {kind!r}: not supported; {nearest(str(kind), KINDS)}")
    fields = {_json_name(field.name): field for field in dataclasses.fields(KINDS[kind])}
    if kind == "yarn":
        given = {ORIGINAL: max_positions} | given
    for name, value in given.items():
        if name not in fields:
            raise ValueError(f"{place}.{name} = {value!r}: {kind} has no such field; {nearest(name, fields)}")
        whole = fields[name].type in (int, bool)
        if whole and type(value) is not fields[name].type:
            raise ValueError(f"{place}.{name} = {value!r}: expected {fields[name].type.__name__}")
        if not whole and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{place}.{name} = {value!r}: expected a number")
        if not isinstance(value, bool) and not 0 < value < math.inf:
            raise ValueError(f"{place}.{name} = {value!r}: expected a number above 0")
    for name, field in fields.items():
        if name not in given and field.default is dataclasses.MISSING:
            raise ValueError(f"{place}.{name}: missing; {kind} needs it")
    if given["factor"] < 1:
        raise ValueError(f"{place}.factor = {given['factor']!r}: expected at least 1")
    if kind == "llama3" and not given["low_freq_factor"] < given["high_freq_factor"]:
        low = given["low_freq_factor"]
        raise ValueError(
            f"{place}.high_freq_factor = {given['high_freq_factor']!r}: expected more than low_freq_factor = {low!r}"
        )
    names = {name: field.name for name, field in fields.items()}
    return KINDS[kind](**{names[n]: float(v) if fields[n].type not in (int, bool) else v for n, v in given.items()})


def rotation(
    positions: Integer[Array, "*b T"],
    size: int,
    theta: float | None,
    scaling: RopeScaling | None = None,
    *,
    whole: bool = False,
) -> tuple[Float[Array, "*b T 1 h"], Float[Array, "*b T 1 h"]]:
    """Returns the cosines and sines that `rotate` applies to heads of `size` entries at the positions.

    Args:
      theta: base of the frequencies; None for layers without rotary embedding, whose heads are turned by an angle of 0.
      whole: whether they are given for all entries of a head, h = size, instead of its pairs, h = size / 2.
    """
    half = size // 2
    exponent = -jnp.arange(half, dtype=jnp.float32) / half
    frequency = jnp.zeros(half) if theta is None else theta**exponent
    if scaling is not None:
        frequency = scaling.frequencies(frequency, theta)
    angle = positions[..., None, None].astype(jnp.float32) * frequency
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    if scaling is not None and scaling.magnitude != 1:
        cos, sin = scaling.magnitude * cos, scaling.magnitude * sin
    if whole:
        cos, sin = jnp.concatenate([cos, cos], axis=-1), jnp.concatenate([-sin, sin], axis=-1)
    return cos, sin


def rotate(
    x: Float[Array, "B T N H"], rotation: tuple[Float[Array, "#B #T 1 h"], Float[Array, "#B #T 1 h"]]
) -> Float[Array, "B T N H"]:
    """Applies the rotary position embedding; entry i is paired with i + H/2, as in the released Qwen and Llama models.

    Cosines and sines of whole heads select a form for TPUs, whose vector unit would pad each half of a head to its full width.
    """
    cos, sin = rotation
    if cos.shape[-1] == x.shape[-1]:
        return _rotate_whole(x, cos, sin)
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


@jax.custom_vjp
def _rotate_whole(x, cos, sin):
    """Rotates whole heads; a product with a permutation, which is exact, puts each entry in its partner's place."""
    size = x.shape[-1]
    exchange = jnp.asarray(np.roll(np.eye(size), size // 2, axis=0), x.dtype)
    partner = jnp.matmul(x, exchange, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)
    return (x.astype(jnp.float32) * cos + partner * sin).astype(x.dtype)


def _rotate_back(angles, gradient):
    """Rotates the gradient by the negative angles: it is in x's dtype, in which the product is exact."""
    cos, sin = angles
    return _rotate_whole(gradient, cos, -sin), None, None


_rotate_whole.defvjp(lambda x, cos, sin: (_rotate_whole(x, cos, sin), (cos, sin)), _rotate_back)
