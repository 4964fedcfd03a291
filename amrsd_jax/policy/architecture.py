"""Describes decoder-only transformers: sizes and options, presets, and counts of parameters and FLOPs."""

import dataclasses
import math
from collections.abc import Mapping

from amrsd_jax.config import LoraConfig
from amrsd_jax.names import nearest
from amrsd_jax.policy.rope import Llama3Scaling, RopeScaling, YarnScaling, parse_scaling


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A decoder; the defaults are those of Qwen3, and `families.FAMILIES` has the fields in which other families differ.

    Attributes:
      vocab_size: V, rows of the embedding, at least the tokenizer's length.
      width: D, size of the residual stream.
      layers: L, number of layers.
      heads, kv_heads, head_dim: number of query heads, number of key/value heads (divides the former), size of a head.
      ffn: inner size of the gated block; with experts, of each of them.
      experts, experts_per_token: number of gated blocks of a layer, and of those that a token passes through; 0 for one block.
      norm_topk: whether the weights of a token's experts are divided by their sum.
      qk_norm, qkv_bias: whether queries and keys are normalised; whether their projections and that of values have a bias.
      qk_norm_whole: whether a norm of queries or keys is over all heads together (Olmo 3) and not over each.
      norms: which side of attention and of the gated block is normalised: "pre", "post" (Olmo 3) or "both" (Gemma).
      norm_unit_offset: whether norms multiply by 1 + scale (Gemma).
      activation: of the gated block, "silu" or "gelu" (its tanh approximation).
      embed_scale: whether embeddings are multiplied by sqrt(D).
      query_pre_attn_scalar: scores are divided by its root, None for that of `head_dim`.
      attention_softcap, logit_softcap: c of c tanh(x / c), by which scores and logits are bounded (Gemma 2); None for no bound.
      sliding_window, full_every: layers attend to the last `sliding_window` positions, their own included, but each
        `full_every`-th layer to all; None for all layers to all positions.
      tied: whether the output projection is the transposed embedding.
      rope_theta, rope_scaling: rotary base; how its frequencies are scaled (linear, yarn, llama3), or None.
      sliding_rope_theta: rotary base of the layers with a window; None for `rope_theta`.
      sliding_rope_scaled: whether `rope_scaling` is of the layers with a window too (Gemma 2).
      nope_every: each such layer has no rotary embedding (SmolLM3); 0 for none.
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
    experts: int = 0
    experts_per_token: int = 0
    norm_topk: bool = True
    qk_norm: bool = True
    qkv_bias: bool = False
    qk_norm_whole: bool = False
    norms: str = "pre"
    norm_unit_offset: bool = False
    activation: str = "silu"
    embed_scale: bool = False
    query_pre_attn_scalar: int | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    sliding_window: int | None = None
    full_every: int = 1
    tied: bool = True
    rope_theta: float = 1e6
    rope_scaling: RopeScaling | None = None
    sliding_rope_theta: float | None = None
    sliding_rope_scaled: bool = False
    nope_every: int = 0
    norm_eps: float = 1e-6
    max_positions: int = 32768
    dtype: str = "float32"
    lora: LoraConfig | None = None

    def __post_init__(self):
        sizes = ("vocab_size", "width", "layers", "heads", "kv_heads", "head_dim", "ffn", "max_positions", "full_every")
        for field in (*sizes, "query_pre_attn_scalar", "sliding_window"):
            if (value := getattr(self, field)) is not None and value < 1:
                raise ValueError(f"architecture.{field} = {getattr(self, field)}: expected at least 1")
        if self.heads % self.kv_heads:
            raise ValueError(
                f"architecture.kv_heads = {self.kv_heads} does not divide architecture.heads = {self.heads}: "
                "each key/value head serves a whole number of query heads"
            )
        if self.head_dim % 2:
            raise ValueError(f"architecture.head_dim = {self.head_dim}: rotary embedding needs an even size")
        for field in ("rope_theta", "norm_eps", "sliding_rope_theta", "attention_softcap", "logit_softcap"):
            if (value := getattr(self, field)) is not None and not 0 < value < math.inf:
                raise ValueError(f"architecture.{field} = {getattr(self, field)}: expected a number above 0")
        if isinstance(self.rope_scaling, YarnScaling) and self.rope_theta <= 1:  # it divides by the logarithm
            raise ValueError(f"architecture.rope_theta = {self.rope_theta}: expected a number above 1 for yarn")
        choices = {"dtype": ("float32", "bfloat16"), "norms": ("pre", "post", "both"), "activation": ("silu", "gelu")}
        for field, known in choices.items():
            if (value := getattr(self, field)) not in known:
                raise ValueError(f"architecture.{field} = {value!r}: expected {' or '.join(map(repr, known))}")
        if not min(self.experts, 1) <= self.experts_per_token <= self.experts:
            raise ValueError(
                f"architecture.experts_per_token = {self.experts_per_token}: expected 1 to experts = {self.experts}, or 0 and 0"
            )
        if self.experts and self.lora and (blocks := {"gate", "up", "down"}.intersection(self.lora.projections)):
            raise ValueError(
                f"lora.targets = {self.lora.targets!r}: experts have no adapters; expected none of {', '.join(sorted(blocks))}"
            )
        if self.nope_every < 0:
            raise ValueError(f"architecture.nope_every = {self.nope_every}: expected at least 0")

    @property
    def longest_row(self) -> int:
        """The longest row that the model is meant for."""
        return self.rope_scaling.longest(self.max_positions) if self.rope_scaling else self.max_positions

    @property
    def windows(self) -> tuple[int | None, ...]:
        """The number of positions that each layer attends to, None for all."""
        return tuple(None if (i + 1) % self.full_every == 0 else self.sliding_window for i in range(self.layers))

    @property
    def ropes(self) -> tuple[tuple[float | None, RopeScaling | None], ...]:
        """The rotary base of each layer, None without rotary embedding, and its scaling."""
        whole = self.rope_theta, self.rope_scaling
        sliding = self.sliding_rope_theta or self.rope_theta, self.rope_scaling if self.sliding_rope_scaled else None
        ropes = [whole if window is None else sliding for window in self.windows]
        return tuple(
            (None, None) if self.nope_every and (i + 1) % self.nope_every == 0 else rope for i, rope in enumerate(ropes)
        )

    def parameters(self) -> int:
        """Returns the number of parameters without adapters; a tied head is counted once."""
        query, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = self.width * (2 * query + 2 * kv) + (query + 2 * kv) * self.qkv_bias
        attention += (query + kv if self.qk_norm_whole else 2 * self.head_dim) * self.qk_norm
        block = attention + self._gated(max(1, self.experts)) + (4 if self.norms == "both" else 2) * self.width
        return self.layers * block + self.width + self.vocab_size * self.width * (1 if self.tied else 2)

    def _gated(self, blocks: int) -> int:
        """Returns the number of parameters of a layer's router and of some gated blocks."""
        return 3 * self.width * self.ffn * blocks + self.width * self.experts

    def forward_flops(self, tokens: int, context: float) -> float:
        """Returns the FLOPs of a forward pass with logits at every token; a multiplication and an addition count as two.

        A training step costs three times as many.

        Args:
          tokens: number of tokens.
          context: mean number of positions that a token attends to; half the length for a full causal row. In layers with
            a window it is at most the window, which is a little too many for rows not much longer.
        """
        query, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        block = self.width * (2 * query + 2 * kv) + self._gated(max(1, self.experts_per_token))
        matmuls = 2 * (self.layers * block + self.vocab_size * self.width)
        attended = sum(context if window is None else min(context, window) for window in self.windows)
        return tokens * (matmuls + 4 * query * attended)


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
    "qwen3-30b-a3b": Architecture(
        151936, 2048, 48, 32, 4, 128, 768, experts=128, experts_per_token=8, tied=False, max_positions=40960
    ),
    "olmo-3-7b": Architecture(
        100278, 4096, 32, 32, 32, 128, 11008, norms="post", qk_norm_whole=True, sliding_window=4096, full_every=4, tied=False,
        rope_theta=5e5, rope_scaling=YarnScaling(8.0, 8192, 32.0, 1.0, 1.2079441541679836), max_positions=65536,
    ),
    "gemma-3-1b": Architecture(
        262144, 1152, 26, 4, 1, 256, 6912, norms="both", norm_unit_offset=True, activation="gelu", embed_scale=True,
        query_pre_attn_scalar=256, sliding_window=512, full_every=6, sliding_rope_theta=1e4,
    ),
    "smollm3-3b": Architecture(
        128256, 2048, 36, 16, 4, 128, 11008, qk_norm=False, nope_every=4, rope_theta=5e6, max_positions=65536
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
    "Qwen/Qwen3-30B-A3B": "qwen3-30b-a3b",
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
