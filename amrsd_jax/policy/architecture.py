"""Describes decoder-only transformers: sizes and options, presets, and counts of parameters and FLOPs."""

import dataclasses
import math
from collections.abc import Mapping

from amrsd_jax.config import LoraConfig
from amrsd_jax.names import nearest
from amrsd_jax.policy.rope import Llama3Scaling, RopeScaling, YarnScaling, parse_scaling


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A decoder of the Qwen3 family; `qk_norm=False` with `qkv_bias=True` is Qwen2.5, both False is Llama 3.

    Attributes:
      vocab_size: V, rows of the embedding, at least the tokenizer's length.
      width: D, size of the residual stream.
      layers: L, number of layers.
      heads, kv_heads, head_dim: number of query heads, number of key/value heads (divides the former), size of a head.
      ffn: inner size of the SwiGLU block.
      qk_norm, qkv_bias: whether queries and keys are normalised; whether their projections and that of values have a bias.
      tied: whether the output projection is the transposed embedding.
      rope_theta, rope_scaling: rotary base; how its frequencies are scaled (linear, yarn, llama3), or None.
      norm_eps: epsilon of the RMS norms.
      max_positions: longest row that the model was trained on, before scaling except for llama3; see `longest_row`.
      dtype: compute dtype, "float32" or "bfloat16"; trainable parameters are always float32.
      lora: adapters or None. With adapters the other parameters are frozen and kept in the compute dtype.

    Raises:
      ValueError: naming the field, its value and what was expected.
    """

    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    qk_norm: bool = True
    qkv_bias: bool = False
    tied: bool = True
    rope_theta: float = 1e6
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-6
    max_positions: int = 32768
    dtype: str = "float32"
    lora: LoraConfig | None = None

    def __post_init__(self):
        for field in ("vocab_size", "width", "layers", "heads", "kv_heads", "head_dim", "ffn", "max_positions"):
            if getattr(self, field) < 1:
                raise ValueError(f"architecture.{field} = {getattr(self, field)}: expected at least 1")
        if self.heads % self.kv_heads:
            raise ValueError(
                f"architecture.kv_heads = {self.kv_heads} does not divide architecture.heads = {self.heads}: "
                "each key/value head serves a whole number of query heads"
            )
        if self.head_dim % 2:
            raise ValueError(f"architecture.head_dim = {self.head_dim}: rotary embedding needs an even size")
        for field in ("rope_theta", "norm_eps"):
            if not 0 < getattr(self, field) < math.inf:
                raise ValueError(f"architecture.{field} = {getattr(self, field)}: expected a number above 0")
        if isinstance(self.rope_scaling, YarnScaling) and self.rope_theta <= 1:  # it divides by the logarithm
            raise ValueError(f"architecture.rope_theta = {self.rope_theta}: expected a number above 1 for yarn")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"architecture.dtype = {self.dtype!r}: expected 'float32' or 'bfloat16'")

    @property
    def longest_row(self) -> int:
        """The longest row that the model is meant for."""
        return self.rope_scaling.longest(self.max_positions) if self.rope_scaling else self.max_positions

    def parameters(self) -> int:
        """Returns the number of parameters without adapters; a tied head is counted once."""
        query, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = self.width * (2 * query + 2 * kv)
        attention += (query + 2 * kv) * self.qkv_bias + 2 * self.head_dim * self.qk_norm
        block = attention + 3 * self.width * self.ffn + 2 * self.width
        return self.layers * block + self.width + self.vocab_size * self.width * (1 if self.tied else 2)

    def forward_flops(self, tokens: int, context: float) -> float:
        """Returns the FLOPs of a forward pass with logits at every token; a multiplication and an addition count as two.

        A training step costs three times as many.

        Args:
          tokens: number of tokens.
          context: mean number of positions that a token attends to; half the length for a full causal row.
        """
        query, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        block = self.width * (2 * query + 2 * kv) + 3 * self.width * self.ffn
        matmuls = 2 * (self.layers * block + self.vocab_size * self.width)
        return tokens * (matmuls + 4 * self.layers * query * context)


_LLAMA3_ROPE = Llama3Scaling(32.0, 1.0, 4.0, 8192)

PRESETS = {
    # For the embedded tasks: its warm-up takes about two minutes on two CPU cores.
    "tiny": Architecture(128, 128, 3, 4, 2, 32, 384, rope_theta=1e4),
    # A random model with the vocabulary of Qwen3, for trying a config on real rows.
    "qwen3-5m": Architecture(151936, 32, 2, 2, 1, 16, 96),
    # The released configurations.
    "qwen3-0.6b": Architecture(151936, 1024, 28, 16, 8, 128, 3072, max_positions=40960),
    "qwen3-1.7b": Architecture(151936, 2048, 28, 16, 8, 128, 6144, max_positions=40960),
    "qwen3-4b": Architecture(151936, 2560, 36, 32, 8, 128, 9728, max_positions=40960),
    "qwen3-8b": Architecture(151936, 4096, 36, 32, 8, 128, 12288, tied=False, max_positions=40960),
    "qwen3-32b": Architecture(151936, 5120, 64, 64, 8, 128, 25600, tied=False, max_positions=40960),
    "qwen2.5-7b": Architecture(
        152064, 3584, 28, 28, 4, 128, 18944, qk_norm=False, qkv_bias=True, tied=False
    ),
    "llama-3.2-1b": Architecture(
        128256, 2048, 16, 32, 8, 64, 8192,
        qk_norm=False, rope_theta=5e5, rope_scaling=_LLAMA3_ROPE, norm_eps=1e-5, max_positions=131072,
    ),
}  # fmt: skip

# Hub ids whose config.json equals a preset (a test compares them), so that they need no network.
HUB_PRESETS = {
    "Qwen/Qwen3-0.6B": "qwen3-0.6b",
    "Qwen/Qwen3-1.7B": "qwen3-1.7b",
    "Qwen/Qwen3-4B": "qwen3-4b",
    "Qwen/Qwen3-8B": "qwen3-8b",
    "Qwen/Qwen2.5-7B-Instruct": "qwen2.5-7b",
    "meta-llama/Llama-3.2-1B": "llama-3.2-1b",
}


def preset(name: str, **changes) -> Architecture:
    """Returns the preset of that name with fields replaced.

    Raises:
      ValueError: unknown name or field, with the nearest valid one.
    """
    if name not in PRESETS:
        raise ValueError(f"model = {name!r}: {nearest(name, PRESETS)}")
    return change(PRESETS[name], **changes)


def change(architecture: Architecture, **changes) -> Architecture:
    """Returns the architecture with fields replaced; `rope_scaling` may be as config.json has it.

    Raises:
      ValueError: unknown field, with the nearest valid one, or sizes that contradict each other.
    """
    known = {field.name for field in dataclasses.fields(Architecture)}
    for field in changes:
        if field not in known:
            raise ValueError(f"architecture.{field}: no such field; {nearest(field, known)}")
    if isinstance(scaling := changes.get("rope_scaling"), Mapping):
        positions = changes.get("max_positions", architecture.max_positions)
        changes["rope_scaling"] = parse_scaling(scaling, positions, "architecture.rope_scaling")
    return dataclasses.replace(architecture, **changes)
