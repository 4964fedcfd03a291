"""Reads and writes Hugging Face checkpoints of the families in `families.py`; reads GGUF files of some of them.

Weights are read tensor by tensor into the policy's tree and sharding. They are safetensors or GGUF, never pickles, and no code
of a checkpoint is run.
"""

import functools
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from amrsd_jax.files import atomic_write, read_object
from amrsd_jax.names import first_line
from amrsd_jax.policy import families, gguf, lora, tensors
from amrsd_jax.policy.architecture import HUB_PRESETS, PRESETS, Architecture, change, preset
from amrsd_jax.policy.families import EMBED_AND_HEAD_TENSORS, SPECIAL, config_json, layer_tensors
from amrsd_jax.policy.tensors import LazyTensor, StoredTensor
from amrsd_jax.policy.tokenizer import Tokenizer
from amrsd_jax.policy.transformer import Params, Policy

GENERATION = "generation_config.json"


# ---------------------------------------------------------------- which model


def is_checkpoint(model: str) -> bool:
    """Whether a model's name is a folder, a GGUF file or could be a hub id, rather than a preset."""
    return model not in PRESETS and ("/" in model or Path(model).is_dir() or gguf.is_name(model))


def checkpoint_place(model: str, *, weights: bool = False) -> Path:
    """Returns the path of a model's folder or GGUF file; the folder of a hub id is downloaded unless it is cached.

    Args:
      model: folder, GGUF file or its name in an installed package, or hub id.
      weights: whether to download the weights too, and not only config.json.

    Raises:
      ValueError: the model is none of these, or a hub id that cannot be reached.
    """
    if gguf.is_name(model):
        return gguf.find(model)
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    patterns = ["config.json", GENERATION, *(["*.safetensors", tensors.INDEX] if weights else [])]
    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"model = {model!r}: not a folder, and the hub gave no such model: {first_line(error)}"
        ) from error


def architecture_of(model: str, **changes) -> Architecture:
    """Returns the architecture of a preset, a folder, a GGUF file or a hub id, with fields replaced.

    For a hub id, config.json is read from the hub's cache. If it is not cached, a known id gives its preset in bfloat16, as
    published, and any other id is downloaded.

    Raises:
      ValueError: unknown name or field, or a model that the transformer does not implement.
    """
    if not is_checkpoint(model):
        return preset(model, **changes)
    if model in HUB_PRESETS and not Path(model).is_dir() and not _cached(model):
        return preset(HUB_PRESETS[model], **dict(dtype="bfloat16") | changes)
    return change(read_architecture(checkpoint_place(model)), **changes)


def loads_as(model: str, architecture: Architecture) -> bool:
    """Whether `transformers` loads a model by its name, and computes what an architecture without adapters does."""
    named = is_checkpoint(model) and not gguf.is_name(model)
    return named and config_json(architecture_of(model)) == config_json(architecture)


def _cached(model: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(model, "config.json"), str)


def read_architecture(place: Path) -> Architecture:
    """Returns the architecture that a folder's config.json or a GGUF file describes.

    The compute dtype is bfloat16 unless the weights are float32.

    Raises:
      ValueError: the file is absent or incomplete, or describes a model that the transformer does not implement.
    """
    file = place if gguf.is_name(place) else place / "config.json"
    c = _read_config(place)
    if not c:
        raise ValueError(f"{file}: no such file; expected a model's config.json")
    try:
        return families.read(c)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _read_config(place: Path) -> dict[str, Any]:
    """Returns the config of a folder or a GGUF file as config.json has it; {} for a folder without one."""
    return gguf.read_config(place) if gguf.is_name(place) else _read_json(place / "config.json") or {}


def _read_json(file: Path) -> dict[str, Any] | None:
    """Returns the object in a JSON file; None where there is no file."""
    try:
        return read_object(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror})") from error


# ---------------------------------------------------------------- special tokens


def generation_config(model: str) -> dict[str, Any]:
    """Returns the generation_config.json of a checkpoint; {} for a preset and for a checkpoint without one.

    Raises:
      ValueError: it cannot be read, or its end tokens are no ids.
    """
    if not is_checkpoint(model):
        return {}
    place = checkpoint_place(model)
    return gguf.generation_config(place) if gguf.is_name(place) else _read_special(place / GENERATION)


def _read_special(file: Path) -> dict[str, Any]:
    """Returns the object in a JSON file whose `eos_token_id`, if it has one, is an id or a list of them; {} without a file."""
    values = _read_json(file) or {}
    ends = values.get("eos_token_id")
    if not all(type(end) is int and end >= 0 for end in _as_list(ends)):
        raise ValueError(f"{file}: eos_token_id = {ends!r}: expected a token id or a list of them")
    return values


def stop_ids(model: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Returns the ids that end a response: the tokenizer's, and all that the checkpoint's generation_config.json lists.

    Where that lists none, those of config.json count, as in `transformers`.

    Raises:
      ValueError: a file cannot be read, or its end tokens are no ids.
    """
    listed = generation_config(model).get("eos_token_id")
    if listed is None and is_checkpoint(model) and not gguf.is_name(model):
        listed = _read_special(checkpoint_place(model) / "config.json").get("eos_token_id")
    return tuple(sorted({tokenizer.eos_token_id, *_as_list(listed)}))


def special_ids(model: str) -> dict[str, Any]:
    """Returns the special token ids of a checkpoint's config.json, and of its generation_config.json where that has none."""
    if not is_checkpoint(model):
        return {}
    sources = (generation_config(model), _read_config(checkpoint_place(model)))
    return {name: source[name] for source in sources for name in SPECIAL if source.get(name) is not None}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


# ---------------------------------------------------------------- import


def load_params(place: Path, policy: Policy, shardings: Params) -> Params:
    """Reads a model into the policy's tree, dtypes and shardings; for a policy with adapters, into that of its base.

    The host reads only the slices of a tensor that its devices hold, from the mapped file and in the file's dtype. The devices
    cast and transpose the tensor and write it into its stack of layers, which is donated. So the host holds one tensor at a
    time, and the devices hold their parameters and one tensor.

    Args:
      place: folder with model.safetensors or several files and their index, or a GGUF file.
      policy: a policy of that model's architecture.
      shardings: sharding of every leaf.

    Raises:
      ValueError: a tensor is absent, has the wrong shape, belongs to no leaf or is not finite; names file and tensor.
    """
    abstract = lora.without(policy.abstract_params())
    stored = gguf.open_tensors(place) if gguf.is_name(place) else tensors.open_folder(place)
    _check_tensors(place, stored, policy.architecture)
    leaves, structure = jax.tree_util.tree_flatten_with_path(abstract)
    params = []
    for (path, leaf), sharding in zip(leaves, jax.tree.leaves(shardings), strict=True):
        names = _tensor_names(_path(path), policy.architecture)
        params.append(_read_leaf(leaf, sharding, {name: stored[name] for name in names}, _is_transposed(names[0])))
    return jax.tree.unflatten(structure, params)


def tensor_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all tensors of a checkpoint by name: embedding and head first, then layer by layer."""
    exported = export_tensors(Policy(architecture).abstract_params(), architecture)
    return {name: tensor.shape for name, tensor in exported.items()}


def _tensor_names(path: str, architecture: Architecture) -> list[str]:
    """Returns the names of the tensors that one leaf is made of: one, one per layer, or one per layer and expert."""
    if not path.startswith("layers/"):
        return [EMBED_AND_HEAD_TENSORS[path]]
    name = layer_tensors(architecture)[path.removeprefix("layers/")]
    experts = range(architecture.experts if "{}" in name else 1)
    return [f"model.layers.{i}.{name.format(e)}" for i in range(architecture.layers) for e in experts]


def _check_tensors(place: Path, stored: dict[str, StoredTensor], architecture: Architecture) -> None:
    expected = tensor_shapes(architecture)
    for name, shape in expected.items():
        if name not in stored:
            raise ValueError(f"{place}: no tensor {name} {list(shape)} among its {len(stored)} tensors")
        if stored[name].shape != shape:
            raise ValueError(
                f"{stored[name].file}: tensor {name}: expected {list(shape)}, found {list(stored[name].shape)}"
            )
    ignored = set()
    if architecture.tied and "lm_head.weight" in stored:  # some checkpoints store a tied head twice
        _check_same(stored["lm_head.weight"], stored["model.embed_tokens.weight"])
        ignored = {"lm_head.weight"}
    extra = [name for name in stored if name not in expected.keys() | ignored and "rotary_emb" not in name]
    if extra:
        first = stored[extra[0]]
        raise ValueError(
            f"{first.file}: {len(extra)} tensors that {architecture.layers} layers of this architecture do not have, "
            f"such as {extra[0]} {list(first.shape)}"
        )


def _check_same(head: StoredTensor, embedding: StoredTensor) -> None:
    """Raises ValueError unless a tied head is the embedding; versions of `transformers` differ in which one they then use."""
    rows, step = head.shape[0], 1 << 12
    same = head.shape == embedding.shape and all(
        np.array_equal(*(np.asarray(each.values[i : min(i + step, rows), :]) for each in (head, embedding)))
        for i in range(0, rows, step)
    )
    if not same:
        raise ValueError(
            f"{head.file}: tensor lm_head.weight differs from model.embed_tokens.weight: expected the same one, since the "
            "config.json ties them, or tie_word_embeddings = false there"
        )


def _read_leaf(
    leaf: jax.ShapeDtypeStruct, sharding: NamedSharding, sources: dict[str, StoredTensor], transposed: bool
) -> jax.Array:
    """Reads a leaf from its tensors by name, given in the order of the layers, and of the experts within a layer."""
    shape, dtype, dims = leaf.shape, leaf.dtype, len(next(iter(sources.values())).shape)
    spec = (*sharding.spec, *(None,) * (len(shape) - len(sharding.spec)))[-dims:]
    placed = NamedSharding(sharding.mesh, PartitionSpec(*(spec[::-1] if transposed else spec)))

    @functools.partial(
        jax.jit, donate_argnums=0, out_shardings=(sharding, NamedSharding(sharding.mesh, PartitionSpec()))
    )
    def insert(array, tensor, place):
        finite = jnp.isfinite(tensor).all()
        tensor = (tensor.T if transposed else tensor).astype(dtype)
        tensor = tensor.reshape((1,) * (len(shape) - dims) + tensor.shape)
        return jax.lax.dynamic_update_slice(array, tensor, (*place, *(0,) * dims)), finite

    array = jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding)()
    places = itertools.product(*map(range, shape[: len(shape) - dims]))
    for place, (name, source) in zip(places, sources.items(), strict=True):
        tensor = jax.make_array_from_callback(source.shape, placed, source.values.__getitem__)
        array, finite = insert(array, tensor, tuple(map(np.int32, place)))
        if not finite:  # reading this also waits, so that the next tensor is not read before this one is freed
            raise ValueError(f"{source.file}: tensor {name}: has values that are not finite")
    return array


# ---------------------------------------------------------------- export


def save_params(
    folder: Path,
    architecture: Architecture,
    params: Params,
    tokenizer: Tokenizer | None = None,
    *,
    source: str | None = None,
    dtype: str = "float32",
    file_bytes: int = 4 << 30,
) -> None:
    """Writes a folder that `transformers` loads; it exists under its name only when it is complete.

    Args:
      folder: a path that does not exist, or an empty folder.
      architecture: the policy's architecture, without adapters.
      params: parameters of that policy.
      tokenizer: saved beside the weights; config.json names its special tokens.
      source: the model that a run began from; a checkpoint's special token ids and generation_config.json are kept.
      dtype: dtype of the weights, "float32", which is exact, or "bfloat16".
      file_bytes: most bytes of a file; a larger tensor has a file of its own. One file's values are in host memory at a time.

    Raises:
      FileExistsError: the folder is not empty.
      ValueError: no family has this combination of fields.
    """
    config = config_json(architecture, tokenizer, dtype) | (special_ids(source) if source else {})
    generation = generation_config(source) if source else {}

    def write(draft: Path) -> None:
        tensors.write_folder(draft, export_tensors(params, architecture), np.dtype(dtype), file_bytes)
        (draft / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        if generation:
            (draft / GENERATION).write_text(json.dumps(generation, indent=2) + "\n")
        if tokenizer is not None:
            tokenizer.save_pretrained(draft)

    write_new_folder(folder, write)


def write_new_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Calls `write` with a new folder beside `folder`, which takes its place when the call returns.

    Raises:
      FileExistsError: the folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder}: not empty; expected a new folder")

    def write_draft(draft: Path) -> None:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        write(draft)

    atomic_write(folder, write_draft)


def export_tensors(params: Params, architecture: Architecture) -> dict[str, LazyTensor]:
    """Returns the tensors of a checkpoint by name: embedding and head first, then layer by layer."""
    leaves = {_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    exported = {name: _lazy(name, leaves[path]) for path, name in EMBED_AND_HEAD_TENSORS.items() if path in leaves}
    names = layer_tensors(architecture)
    stacks = {name: leaves[f"layers/{path}"] for path, name in names.items() if f"layers/{path}" in leaves}
    for layer in range(architecture.layers):
        for name, stack in stacks.items():
            places = [(layer, e) for e in range(architecture.experts)] if "{}" in name else [(layer,)]
            for place in places:
                exported[f"model.layers.{layer}.{name.format(place[-1])}"] = _lazy(name, stack, place)
    return exported


def _lazy(name: str, leaf, place: tuple[int, ...] = ()) -> LazyTensor:
    """Returns a leaf, or the part of a stack at that place, as the tensor of that name."""
    transposed, shape = _is_transposed(name), leaf.shape[len(place) :]

    def fetch() -> np.ndarray:
        values = np.asarray(jax.device_get(leaf[place] if place else leaf))
        return values.T if transposed else values

    return LazyTensor(shape[::-1] if transposed else shape, fetch)


def _is_transposed(name: str) -> bool:
    """Whether a checkpoint's tensor is the transpose of the leaf: kernels are, norms and the embedding are not."""
    return "_proj.weight" in name or name.endswith(("mlp.gate.weight", "lm_head.weight"))


def _path(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
