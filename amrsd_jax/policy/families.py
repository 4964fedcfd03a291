"""Translates between config.json of the supported model families and `Architecture`, and names their tensors."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from amrsd_jax.policy.architecture import Architecture
from amrsd_jax.policy.rope import parse_scaling
from amrsd_jax.policy.tokenizer import Tokenizer

SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclasses.dataclass(frozen=True)
class Family:
    """A `model_type` of `transformers`.

    Attributes:
      model: its class there.
      fields: the fields of `Architecture` that are the same in all its models and are not the defaults.
      options: the fields that its config.json chooses, of those that not every family has.
      tied: whether its head is tied where config.json does not say.
      full_every: layers of a period of which the last has no window, where config.json does not say; 0 without windows.
      local_theta: rotary base of layers with a window, where config.json does not say; None for that of all layers.
      softcaps: bounds of scores and logits where config.json has no such field.
    """

    model: str
    fields: dict[str, Any]
    options: tuple[str, ...] = ()
    tied: bool = False
    full_every: int = 0
    local_theta: float | None = None
    softcaps: tuple[float | None, float | None] = None, None


_WINDOWS = ("sliding_window", "full_every", "sliding_rope_theta")
_GEMMA = dict(norms="both", norm_unit_offset=True, activation="gelu", embed_scale=True)
_GEMMA_OPTIONS = ("sliding_window", "full_every", "query_pre_attn_scalar", "logit_softcap")
FAMILIES = {
    "qwen2": Family("Qwen2ForCausalLM", dict(qk_norm=False, qkv_bias=True)),
    "qwen3": Family("Qwen3ForCausalLM", {}),
    "llama": Family("LlamaForCausalLM", dict(qk_norm=False)),
    "qwen3_moe": Family("Qwen3MoeForCausalLM", {}, ("experts", "experts_per_token", "norm_topk")),
    "smollm3": Family("SmolLM3ForCausalLM", dict(qk_norm=False), ("nope_every",), tied=True),
    "olmo3": Family("Olmo3ForCausalLM", dict(norms="post", qk_norm_whole=True), _WINDOWS, full_every=4),
    "gemma2": Family(
        "Gemma2ForCausalLM", dict(_GEMMA, qk_norm=False, sliding_rope_scaled=True), (*_GEMMA_OPTIONS, "attention_softcap"),
        tied=True, full_every=2, softcaps=(50.0, 30.0),
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM", _GEMMA, (*_GEMMA_OPTIONS, "sliding_rope_theta"), tied=True, full_every=6, local_theta=1e4
    ),
}  # fmt: skip
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Architecture)}
_DISTINCTIVE = {name for family in FAMILIES.values() for name in (*family.fields, *family.options)}

_ACTIVATIONS = {"silu": "silu", "gelu": "gelu_pytorch_tanh"}  # here and there
# Settings of these families that the transformer does not implement, each with the only value that is accepted.
_FIXED = dict(attention_bias=False, mlp_bias=False, use_sliding_window=False, quantization_config=None,
              partial_rotary_factor=1.0, use_bidirectional_attention=False)  # fmt: skip

# Path of a parameter in a layer: its name in a checkpoint, where kernels are transposed; {} is the number of an expert.
LAYER_TENSORS = {
    "attention_norm/scale": "input_layernorm.weight",
    "query/kernel": "self_attn.q_proj.weight",
    "query/bias": "self_attn.q_proj.bias",
    "key/kernel": "self_attn.k_proj.weight",
    "key/bias": "self_attn.k_proj.bias",
    "value/kernel": "self_attn.v_proj.weight",
    "value/bias": "self_attn.v_proj.bias",
    "output/kernel": "self_attn.o_proj.weight",
    "query_norm/scale": "self_attn.q_norm.weight",
    "key_norm/scale": "self_attn.k_norm.weight",
    "attention_post_norm/scale": "post_attention_layernorm.weight",
    "ffn_norm/scale": "pre_feedforward_layernorm.weight",
    "gate/kernel": "mlp.gate_proj.weight",
    "up/kernel": "mlp.up_proj.weight",
    "down/kernel": "mlp.down_proj.weight",
    "ffn_post_norm/scale": "post_feedforward_layernorm.weight",
    "router/kernel": "mlp.gate.weight",
    "expert_gate/kernel": "mlp.experts.{}.gate_proj.weight",
    "expert_up/kernel": "mlp.experts.{}.up_proj.weight",
    "expert_down/kernel": "mlp.experts.{}.down_proj.weight",
}
EMBED_AND_HEAD_TENSORS = {
    "embed/embedding": "model.embed_tokens.weight",
    "final_norm/scale": "model.norm.weight",
    "head/kernel": "lm_head.weight",
}


def layer_tensors(c: Architecture) -> dict[str, str]:
    """Returns `LAYER_TENSORS` with the names that the tensors have in this architecture."""
    if c.norms == "pre":  # these families say what the norm before the block follows
        return LAYER_TENSORS | {"ffn_norm/scale": "post_attention_layernorm.weight"}
    return LAYER_TENSORS


# ---------------------------------------------------------------- reading


def read(c: dict[str, Any]) -> Architecture:
    """Returns the architecture that the object of a config.json describes.

    Raises:
      ValueError: a field is absent, wrong, or of a model that the transformer does not implement.
    """
    name, family = _family(c)

    def size(field: str, default: int | None = None) -> int:
        value = default if c.get(field) is None else c[field]
        if value is None:
            raise ValueError(f"no {field}")
        if type(value) is not int or value < 1:
            raise ValueError(f"{field} = {value!r}: expected an integer of at least 1")
        return value

    heads, layers, tied = size("num_attention_heads"), size("num_hidden_layers"), c.get("tie_word_embeddings")
    if not isinstance(tied := family.tied if tied is None else tied, bool):
        raise ValueError(f"tie_word_embeddings = {tied!r}: expected true or false")
    options: dict[str, Any] = {}
    if "query_pre_attn_scalar" in family.options:
        options["query_pre_attn_scalar"] = size("query_pre_attn_scalar", 256)
        options |= _softcaps(c, family)
    if family.full_every:
        period = _full_every(c, family, layers)
        if period > 1 and c.get("sliding_window", 4096) is None:
            raise ValueError("sliding_window = None: expected an integer of at least 1, since layers have a window")
        options |= dict(sliding_window=size("sliding_window", 4096), full_every=period)
    else:
        _check_layer_types(c, ["full_attention"] * layers)
    if "experts" in family.options:
        options |= _experts(c, size)
    if "nope_every" in family.options:
        options["nope_every"] = _nope_every(c, layers)
    return Architecture(
        vocab_size=size("vocab_size"),
        width=size("hidden_size"),
        layers=layers,
        heads=heads,
        kv_heads=size("num_key_value_heads", heads),
        head_dim=size("head_dim", 256 if name.startswith("gemma") else size("hidden_size") // heads),
        ffn=size("moe_intermediate_size" if "experts" in family.options else "intermediate_size"),
        tied=tied,
        norm_eps=_number("rms_norm_eps", c.get("rms_norm_eps")),
        max_positions=size("max_position_embeddings"),
        dtype="float32" if (c.get("dtype") or c.get("torch_dtype")) == "float32" else "bfloat16",
        **_rope(c, family),
        **family.fields,
        **options,
    )


def _family(c: dict[str, Any]) -> tuple[str, Family]:
    """Returns the family's name and the family, after a check of the fields that have one value only."""
    name = c.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise ValueError(f"model_type = {name!r}: not supported; expected one of {', '.join(FAMILIES)}")
    family = FAMILIES[name]
    if (c.get("architectures") or [family.model]) != [family.model]:
        raise ValueError(f"architectures = {c['architectures']}: not supported; expected {[family.model]}")
    activation = _ACTIVATIONS[family.fields.get("activation", "silu")]
    fields = ("hidden_activation",) if name.startswith("gemma") else ("hidden_act",)  # Gemma's hidden_act is not read
    for field, supported in (_FIXED | dict.fromkeys(fields, activation)).items():
        if c.get(field, supported) not in (supported, None):
            raise ValueError(f"{field} = {c[field]!r}: not supported; expected {supported!r}")
    return name, family


def _softcaps(c: dict[str, Any], family: Family) -> dict[str, Any]:
    """Reads the bounds of scores and logits; the scores of Gemma 3 have none, whatever its config.json says."""
    found = {}
    fields = ("attention_softcap", "attn_logit_softcapping"), ("logit_softcap", "final_logit_softcapping")
    for (field, theirs), default in zip(fields, family.softcaps, strict=True):
        value = c.get(theirs, default)
        found[field] = None if value is None else _number(theirs, value)
    if found["attention_softcap"] and "attention_softcap" not in family.options:
        raise ValueError(f"attn_logit_softcapping = {found['attention_softcap']}: not supported; expected null")
    return found


def _experts(c: dict[str, Any], size: Callable[..., int]) -> dict[str, Any]:
    """Reads the experts, which every layer must have."""
    for field, supported in (("mlp_only_layers", []), ("decoder_sparse_step", 1)):
        if c.get(field, supported) not in (supported, None):
            raise ValueError(f"{field} = {c[field]!r}: not supported; expected {supported!r}, experts in every layer")
    if not isinstance(norm := c.get("norm_topk_prob", False), bool):
        raise ValueError(f"norm_topk_prob = {norm!r}: expected true or false")
    count = size("num_experts", c.get("num_local_experts"))  # the second as transformers 5 writes it
    return dict(experts=count, experts_per_token=size("num_experts_per_tok"), norm_topk=norm)


def _full_every(c: dict[str, Any], family: Family, layers: int) -> int:
    """Returns the period of the layers without a window, of `layer_types`, `sliding_window_pattern` or the family."""
    period = c.get("sliding_window_pattern") or family.full_every
    kinds = c.get("layer_types")
    if isinstance(kinds, list) and kinds:
        period = kinds.index("full_attention") + 1 if "full_attention" in kinds else layers + 1
    if type(period) is not int or period < 1:
        raise ValueError(f"sliding_window_pattern = {period!r}: expected an integer of at least 1")
    _check_layer_types(c, [_kind(i, period) for i in range(layers)])
    return period


def _kind(layer: int, period: int) -> str:
    return "sliding_attention" if (layer + 1) % period else "full_attention"


def _check_layer_types(c: dict[str, Any], expected: list[str]) -> None:
    if (c.get("layer_types") or expected) != expected:
        raise ValueError(f"layer_types = {c['layer_types']}: not supported; expected {expected}")


def _nope_every(c: dict[str, Any], layers: int) -> int:
    """Returns the period of the layers without rotary embedding, of `no_rope_layers` or `no_rope_layer_interval`."""
    flags, period = c.get("no_rope_layers"), c.get("no_rope_layer_interval", 4)
    if isinstance(flags, list) and flags:
        period = flags.index(0) + 1 if 0 in flags else 0
    if type(period) is not int or period < 0:
        raise ValueError(f"no_rope_layer_interval = {period!r}: expected an integer of at least 0")
    expected = [int(not period or (i + 1) % period != 0) for i in range(layers)]
    if (flags or expected) != expected:
        raise ValueError(f"no_rope_layers = {flags}: not supported; expected {expected}, 0 in each {period}-th layer")
    return period


def _number(name: str, value: Any) -> float:
    if value is None:
        raise ValueError(f"no {name}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} = {value!r}: expected a number above 0")
    return float(value)


def _rope(c: dict[str, Any], family: Family) -> dict[str, Any]:
    """Reads rotary bases and scaling from `rope_parameters` (transformers 5), or from `rope_theta` and `rope_scaling`.

    Families with windows may have a section in `rope_parameters` for each kind of layer.
    """
    field = "rope_parameters" if c.get("rope_parameters") else "rope_scaling"
    settings, sliding, local = c.get(field) or {}, {}, "sliding_rope_theta" in family.options
    if isinstance(settings, dict) and local and "full_attention" in settings:
        field, settings, sliding = (
            f"{field}.full_attention",
            settings["full_attention"],
            settings.get("sliding_attention"),
        )
    for name, found in ((field, settings), ("rope_parameters.sliding_attention", sliding)):
        if not isinstance(found, dict):
            raise ValueError(f"{name} = {found!r}: expected an object with the fields by name")
    if settings.get("partial_rotary_factor", 1.0) != 1:
        share = settings["partial_rotary_factor"]
        raise ValueError(f"{field}.partial_rotary_factor = {share!r}: not supported; expected 1.0")
    theta = _number("rope_theta", settings.get("rope_theta", c.get("rope_theta")))
    fields = dict(rope_theta=theta, rope_scaling=parse_scaling(settings, c["max_position_embeddings"], field))
    if not local:
        return fields
    if parse_scaling(sliding, c["max_position_embeddings"], "rope_parameters.sliding_attention") is not None:
        raise ValueError("rope_parameters.sliding_attention: a scaling is not supported; expected rope_type 'default'")
    local = sliding.get("rope_theta", c.get("rope_local_base_freq", family.local_theta))
    local = theta if local is None else _number("rope_theta of sliding_attention", local)
    return fields | dict(sliding_rope_theta=None if local == theta else local)


# ---------------------------------------------------------------- writing


def config_json(c: Architecture, tokenizer: Tokenizer | None = None, dtype: str = "float32") -> dict[str, Any]:
    """Returns the config.json of an architecture, in the form that versions 4 and 5 of `transformers` read.

    Raises:
      ValueError: no family has this combination of fields.
    """
    name = next((name for name, family in FAMILIES.items() if _belongs(c, family)), None)
    if name is None:
        unusual = [f"{f} = {getattr(c, f)!r}" for f in sorted(_DISTINCTIVE) if getattr(c, f) != _DEFAULTS[f]]
        raise ValueError(f"architecture with {', '.join(unusual)}: no family of transformers has this combination")
    family, gemma = FAMILIES[name], name.startswith("gemma")
    scaling = c.rope_scaling and c.rope_scaling.json()
    config = {
        "architectures": [family.model],
        "model_type": name,
        "vocab_size": c.vocab_size,
        "hidden_size": c.width,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "intermediate_size": c.ffn,
        "hidden_activation" if gemma else "hidden_act": _ACTIVATIONS[c.activation],
        "attention_bias": False,
        "tie_word_embeddings": c.tied,
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,
        "rope_scaling": scaling,
        "max_position_embeddings": c.max_positions,
        "torch_dtype": dtype,
        **{name: getattr(tokenizer, name, None) for name in SPECIAL},
    }
    if gemma:
        config |= {
            "query_pre_attn_scalar": c.query_pre_attn_scalar or c.head_dim,
            "attn_logit_softcapping": c.attention_softcap,
            "final_logit_softcapping": c.logit_softcap,
        }
    if family.full_every:
        config |= {
            "sliding_window": c.sliding_window,
            "layer_types": [_kind(i, c.full_every) for i in range(c.layers)],
        }
    if name in ("olmo3", "gemma3_text"):  # version 5; version 4 reads rope_theta, rope_scaling and rope_local_base_freq
        local = c.sliding_rope_theta or c.rope_theta
        config |= {
            "rope_local_base_freq": local,
            "rope_parameters": {
                "full_attention": (scaling or {"rope_type": "default"}) | {"rope_theta": c.rope_theta},
                "sliding_attention": {"rope_type": "default", "rope_theta": local},
            },
        }
    if c.experts:
        config |= {
            "moe_intermediate_size": c.ffn,
            "num_experts": c.experts,
            "num_experts_per_tok": c.experts_per_token,
            "norm_topk_prob": c.norm_topk,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }
    if "nope_every" in family.options:
        config["no_rope_layers"] = [int((i + 1) % c.nope_every != 0) for i in range(c.layers)]
        config["no_rope_layer_interval"] = c.nope_every
    return config


def _belongs(c: Architecture, family: Family) -> bool:
    """Whether an architecture is a family's: what the family does not choose has its value, what it needs is there."""
    fixed = {field: family.fields.get(field, _DEFAULTS[field]) for field in _DISTINCTIVE - set(family.options)}
    if c.rope_scaling is None:
        del fixed["sliding_rope_scaled"]  # it changes nothing
    needed = {"sliding_window", "nope_every", "experts"}.intersection(family.options)
    return all(getattr(c, field) == value for field, value in fixed.items()) and all(getattr(c, n) for n in needed)
