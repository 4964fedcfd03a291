"""Hugging Face checkpoints: read into the policy's tree and sharding tensor by tensor, and written back.

Families: Qwen2.5, Qwen3 (dense), Llama 3. Weights are safetensors, never pickles; no code of a checkpoint is run.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from amrsd_jax.policy import lora, tensors
from amrsd_jax.policy.architecture import HUB, PRESETS, Architecture, RopeScaling, change, preset
from amrsd_jax.policy.tensors import Pending, Stored
from amrsd_jax.policy.tokenizer import Tokenizer
from amrsd_jax.policy.transformer import Params, Policy

# model_type: the class in `transformers`, and the switches that make it.
FAMILIES = {
    "qwen2": ("Qwen2ForCausalLM", dict(qk_norm=False, qkv_bias=True)),
    "qwen3": ("Qwen3ForCausalLM", dict(qk_norm=True, qkv_bias=False)),
    "llama": ("LlamaForCausalLM", dict(qk_norm=False, qkv_bias=False)),
}
# What these families may say of themselves and the transformer does not have: the only value of each that is read.
_FIXED = dict(hidden_act="silu", attention_bias=False, mlp_bias=False, use_sliding_window=False,
              quantization_config=None, partial_rotary_factor=1.0)  # fmt: skip

# Our path of a parameter, and its name in their files; kernels are transposed there.
LAYER = {
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
    "ffn_norm/scale": "post_attention_layernorm.weight",
    "gate/kernel": "mlp.gate_proj.weight",
    "up/kernel": "mlp.up_proj.weight",
    "down/kernel": "mlp.down_proj.weight",
}
ENDS = {
    "embed/embedding": "model.embed_tokens.weight",
    "final_norm/scale": "model.norm.weight",
    "head/kernel": "lm_head.weight",
}


# ---------------------------------------------------------------- which model


def is_place(model: str) -> bool:
    """Whether a model's name is a folder or could be a hub id, rather than a preset."""
    return model not in PRESETS and ("/" in model or Path(model).is_dir())


def locate(model: str, *, weights: bool = False) -> Path:
    """The folder of a model: itself, or the hub's copy on this machine, fetched if need be (without weights by default).

    Raises:
      ValueError: it is neither a folder nor a hub id that can be reached.
    """
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    wanted = ["config.json", *(["*.safetensors", tensors.INDEX] if weights else [])]
    try:
        return Path(snapshot_download(model, allow_patterns=wanted))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"model = {model!r}: not a folder, and the hub gave no such model: {reason}") from error


def architecture_of(model: str, **changes) -> Architecture:
    """Architecture of a preset, a folder or a hub id, with fields replaced.

    A hub id's config.json is read from the hub's cache; if it is not there and the id is a known one, its preset is taken,
    in bfloat16 as it is published; else it is fetched.

    Raises:
      ValueError: unknown name or field, or a model that the transformer does not have.
    """
    if not is_place(model):
        return preset(model, **changes)
    if model in HUB and not Path(model).is_dir() and not _cached(model):
        return preset(HUB[model], **dict(dtype="bfloat16") | changes)
    return change(read_architecture(locate(model)), **changes)


def _cached(model: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(model, "config.json"), str)


def read_architecture(folder: Path) -> Architecture:
    """Architecture from a folder's config.json; it computes in bfloat16 unless its weights are float32.

    Raises:
      ValueError: the file is absent or incomplete, or asks for what the transformer does not have.
    """
    file = folder / "config.json"
    try:
        c = json.loads(file.read_text())
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file; expected a model's config.json") from None
    except ValueError:
        raise ValueError(f"{file}: its JSON cannot be read") from None
    _check_supported(file, c)

    def get(name: str) -> Any:
        if c.get(name) is None:
            raise ValueError(f"{file}: no {name}")
        return c[name]

    rope = _rope(file, c)
    return Architecture(
        vocab_size=get("vocab_size"),
        width=get("hidden_size"),
        layers=get("num_hidden_layers"),
        heads=get("num_attention_heads"),
        kv_heads=c.get("num_key_value_heads") or get("num_attention_heads"),
        head_dim=c.get("head_dim") or get("hidden_size") // get("num_attention_heads"),
        ffn=get("intermediate_size"),
        tied=bool(c.get("tie_word_embeddings", False)),
        norm_eps=get("rms_norm_eps"),
        max_positions=get("max_position_embeddings"),
        dtype="float32" if (c.get("dtype") or c.get("torch_dtype")) == "float32" else "bfloat16",
        **rope,
        **FAMILIES[c["model_type"]][1],
    )


def _check_supported(file: Path, c: dict[str, Any]) -> None:
    family = c.get("model_type")
    if family not in FAMILIES:
        raise ValueError(f"{file}: model_type = {family!r}: not supported; expected one of {', '.join(FAMILIES)}")
    named = c.get("architectures") or [FAMILIES[family][0]]
    if named != [FAMILIES[family][0]]:
        raise ValueError(f"{file}: architectures = {named}: not supported; expected ['{FAMILIES[family][0]}']")
    for field, only in _FIXED.items():
        if c.get(field, only) not in (only, None):
            raise ValueError(f"{file}: {field} = {c[field]!r}: not supported; expected {only!r}")
    if set(c.get("layer_types") or ()) - {"full_attention"}:
        raise ValueError(f"{file}: layer_types = {c['layer_types']}: not supported; expected full_attention alone")


def _rope(file: Path, c: dict[str, Any]) -> dict[str, Any]:
    """Rotary base and scaling, from `rope_parameters` (transformers 5) or from `rope_theta` and `rope_scaling`."""
    settings = c.get("rope_parameters") or c.get("rope_scaling") or {}
    theta = settings.get("rope_theta", c.get("rope_theta"))
    if theta is None:
        raise ValueError(f"{file}: no rope_theta")
    kind = settings.get("rope_type", settings.get("type", "default"))
    if kind == "default":
        return dict(rope_theta=float(theta), rope_scaling=None)
    if kind != "llama3":
        raise ValueError(f"{file}: rope scaling {kind!r}: not supported; expected none or 'llama3'")
    fields = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    for field in fields:
        if field not in settings:
            raise ValueError(f"{file}: rope scaling 'llama3' has no {field}")
    factor, low, high, positions = (settings[field] for field in fields)
    return dict(rope_theta=float(theta), rope_scaling=RopeScaling(float(factor), float(low), float(high), positions))


# ---------------------------------------------------------------- import


def load_params(folder: Path, policy: Policy, shardings: Params) -> Params:
    """Parameters of a model folder in the policy's tree, dtypes and shardings; of a policy with adapters those of its base.

    A layer's tensor goes from the mapped file to its place on the devices in the file's own dtype, and only the slices
    that this host's devices hold; there it is cast, transposed and written into its stack, which is donated. The host
    holds one tensor at a time, the devices their parameters and one tensor.

    Args:
      folder: with model.safetensors, or several files and their index.
      policy: of the folder's architecture.
      shardings: of every leaf of the tree.

    Raises:
      ValueError: naming file, tensor, expected and found.
    """
    abstract = lora.without(policy.abstract_params())
    found = tensors.find(folder)
    _check_tensors(folder, found, policy.architecture)
    leaves, structure = jax.tree_util.tree_flatten_with_path(abstract)
    filled = (
        _fill(leaf, sharding, [found[name] for name in their_names(_path(path), policy.architecture)])
        for (path, leaf), sharding in zip(leaves, jax.tree.leaves(shardings), strict=True)
    )
    return jax.tree.unflatten(structure, filled)


def their_names(path: str, architecture: Architecture) -> list[str]:
    """Names in a checkpoint's files of what is one leaf here: one for every layer of a stack."""
    if not path.startswith("layers/"):
        return [ENDS[path]]
    name = LAYER[path.removeprefix("layers/")]
    return [f"model.layers.{i}.{name}" for i in range(architecture.layers)]


def their_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Every tensor that a checkpoint of the architecture has, in the order of its layers."""
    return {tensor.name: tensor.shape for tensor in _pending(Policy(architecture).abstract_params(), architecture)}


def _check_tensors(folder: Path, found: dict[str, Stored], architecture: Architecture) -> None:
    expected = their_shapes(architecture)
    for name, shape in expected.items():
        if name not in found:
            raise ValueError(f"{folder}: no tensor {name} {list(shape)} among the {len(found)} that are there")
        if found[name].shape != shape:
            raise ValueError(
                f"{found[name].file}: tensor {name}: expected {list(shape)}, found {list(found[name].shape)}"
            )
    ignored = {"lm_head.weight"} if architecture.tied else set()  # some write a tied head twice
    extra = [name for name in found if name not in expected | dict.fromkeys(ignored) and "rotary_emb" not in name]
    if extra:
        first = found[extra[0]]
        raise ValueError(
            f"{first.file}: {len(extra)} tensors that {architecture.layers} layers of this architecture do not have, "
            f"such as {first.name} {list(first.shape)}"
        )


def _fill(leaf: jax.ShapeDtypeStruct, sharding: NamedSharding, sources: list[Stored]) -> jax.Array:
    """One leaf: a stack of as many tensors as it has layers, or a single one."""
    turned = _turned(sources[0].name)
    array, insert = _inserter(leaf.shape, leaf.dtype, sharding, turned)
    spec = (*sharding.spec, *(None,) * (len(leaf.shape) - len(sharding.spec)))[-len(sources[0].shape) :]
    where = NamedSharding(sharding.mesh, PartitionSpec(*(spec[::-1] if turned else spec)))
    for i, source in enumerate(sources):
        values = source.map()
        tensor = jax.make_array_from_callback(values.shape, where, lambda index, v=values: np.asarray(v[index]))
        array = insert(array, tensor, np.int32(i))
        array.block_until_ready()  # so that no second tensor is on its way
    return array


def _inserter(shape, dtype, sharding, turned):
    """Zeros of a leaf's shape, and the donated update that writes one tensor into it."""

    def insert(array, tensor, i):
        tensor = (tensor.T if turned else tensor).astype(dtype)
        start = (i, *(0,) * (len(shape) - 1)) if len(shape) > tensor.ndim else (0,) * len(shape)
        return jax.lax.dynamic_update_slice(
            array, jnp.reshape(tensor, (1,) * (len(shape) - tensor.ndim) + tensor.shape), start
        )

    zeros = jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding)()
    return zeros, jax.jit(insert, donate_argnums=0, out_shardings=sharding)


# ---------------------------------------------------------------- export


def save_params(
    folder: Path,
    architecture: Architecture,
    params: Params,
    tokenizer: Tokenizer | None = None,
    *,
    dtype: str = "float32",
    file_bytes: int = 4 << 30,
) -> None:
    """Writes a folder that `transformers` loads; it appears when it is complete. One tensor at a time is on the host.

    Args:
      folder: must not exist, or be empty.
      tokenizer: written beside the weights; its special tokens are named in config.json.
      dtype: of the weights: "float32", which loses nothing, or "bfloat16".
      file_bytes: largest file (a larger tensor has one of its own).

    Raises:
      FileExistsError: the folder holds something.
      ValueError: no family has these switches.
    """
    config = config_json(architecture, tokenizer, dtype)
    with appears(folder) as draft:
        tensors.write(draft, _pending(params, architecture), np.dtype(dtype), file_bytes)
        (draft / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        if tokenizer is not None:
            tokenizer.save_pretrained(draft)


@contextlib.contextmanager
def appears(folder: Path) -> Iterator[Path]:
    """A draft that becomes the folder when its writer is done.

    Raises:
      FileExistsError: the folder holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder}: not empty; expected a new folder")
    draft = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    yield draft
    draft.replace(folder)


def config_json(c: Architecture, tokenizer: Tokenizer | None = None, dtype: str = "float32") -> dict[str, Any]:
    """The architecture in the words of `transformers`, in the form that its versions 4 and 5 read.

    Raises:
      ValueError: no family has these switches.
    """
    switches = dict(qk_norm=c.qk_norm, qkv_bias=c.qkv_bias)
    family = next((name for name, (_, theirs) in FAMILIES.items() if theirs == switches), None)
    if family is None:
        raise ValueError(
            f"architecture.qk_norm = {c.qk_norm} with qkv_bias = {c.qkv_bias}: no family to export as has both"
        )
    scaling = c.rope_scaling and {
        "rope_type": "llama3",
        "factor": c.rope_scaling.factor,
        "low_freq_factor": c.rope_scaling.low_freq_factor,
        "high_freq_factor": c.rope_scaling.high_freq_factor,
        "original_max_position_embeddings": c.rope_scaling.original_max_positions,
    }
    special = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {
        "architectures": [FAMILIES[family][0]],
        "model_type": family,
        "vocab_size": c.vocab_size,
        "hidden_size": c.width,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "intermediate_size": c.ffn,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": c.tied,
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,
        "rope_scaling": scaling,
        "max_position_embeddings": c.max_positions,
        "torch_dtype": dtype,
        **{name: getattr(tokenizer, name, None) for name in special},
    }


def _pending(params: Params, architecture: Architecture) -> Iterator[Pending]:
    """The tensors of a checkpoint: ends first, then layer by layer."""
    leaves = {_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    for path, name in ENDS.items():
        if path in leaves:
            yield _one(name, leaves[path], None)
    for i in range(architecture.layers):
        for path, name in LAYER.items():
            if f"layers/{path}" in leaves:
                yield _one(f"model.layers.{i}.{name}", leaves[f"layers/{path}"], i)


def _one(name: str, leaf, layer: int | None) -> Pending:
    """One tensor of a leaf, turned as theirs is."""
    shape = leaf.shape if layer is None else leaf.shape[1:]

    def make() -> np.ndarray:
        values = np.asarray(jax.device_get(leaf if layer is None else leaf[layer]))
        return values.T if _turned(name) else values

    return Pending(name, shape[::-1] if _turned(name) else shape, make)


def _turned(name: str) -> bool:
    """Whether a tensor of theirs is the transpose of ours: weights of projections, not of norms or the embedding."""
    return "_proj.weight" in name or name == "lm_head.weight"


def _path(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
