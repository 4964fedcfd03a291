"""Reads the tensors of a model folder by name and slice from its safetensors files, and writes such a folder.

The format is read and written by the safetensors library. This module adds the index of a model in several files, errors
that name the file, and tensors whose values are fetched only when their file is written.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

DTYPES = ("F32", "F16", "BF16")  # as the format names them
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
      file, shape: the file that holds it, and its shape.
      values: an object that reads the slices by which it is indexed from the mapped file, as NumPy arrays.
    """

    file: Path
    shape: tuple[int, ...]
    values: Any


@dataclasses.dataclass(frozen=True)
class LazyTensor:
    """A tensor to be written: its shape, and a function that returns its values."""

    shape: tuple[int, ...]
    fetch: Callable[[], np.ndarray]


def open_folder(folder: Path) -> dict[str, StoredTensor]:
    """Returns every tensor of a model folder by name, from one file or from those that its index lists.

    Raises:
      ValueError: there are no weights or only pickled ones, a listed file is absent or damaged, or it lacks a tensor that
        the index lists for it.
    """
    if (folder / INDEX).exists():
        return _open_indexed(folder)
    if (folder / SINGLE).exists():
        return _open_file(folder / SINGLE)
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ValueError(
            f"{folder / pickles[0]}: pickled weights can run code and are not read; expected {SINGLE} or {INDEX}"
        )
    raise ValueError(f"{folder}: no weights; expected {SINGLE} or {INDEX}")


def _open_indexed(folder: Path) -> dict[str, StoredTensor]:
    try:
        weight_map = json.loads((folder / INDEX).read_bytes())["weight_map"]
        files = sorted(set(weight_map.values()))
        outside = [file for file in files if file in ("", "..") or Path(file).name != file]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError(f"{folder / INDEX}: no weight_map; expected the file of every tensor") from None
    if outside:
        raise ValueError(f"{folder / INDEX}: lists {outside[0]!r}; expected a file of the same folder")
    tensors = {}
    for file in files:
        if not (folder / file).exists():
            raise ValueError(f"{folder / file}: no such file, and {INDEX} lists it")
        tensors |= _open_file(folder / file)
    for name, file in weight_map.items():
        if name not in tensors or tensors[name].file.name != file:
            raise ValueError(f"{folder / file}: no tensor {name}, which {INDEX} lists there")
    return tensors


def _open_file(file: Path) -> dict[str, StoredTensor]:
    try:
        with safe_open(file, framework="np") as opened:
            values = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (it is no mapping)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file}: truncated, damaged or not safetensors: {error}") from None
    for name, tensor in values.items():
        if tensor.get_dtype() not in DTYPES:
            raise ValueError(f"{file}: tensor {name} is {tensor.get_dtype()}; expected one of {', '.join(DTYPES)}")
    return {name: StoredTensor(file, tuple(tensor.get_shape()), tensor) for name, tensor in values.items()}


def write_folder(folder: Path, tensors: Mapping[str, LazyTensor], dtype: np.dtype, file_bytes: int) -> None:
    """Writes tensors as one file, or as several of at most `file_bytes` and an index; one file is in memory at a time."""
    from huggingface_hub import split_state_dict_into_shards_factory

    split = split_state_dict_into_shards_factory(
        dict(tensors),
        get_storage_size=lambda tensor: math.prod(tensor.shape) * dtype.itemsize,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=file_bytes,
    )
    for file, names in split.filename_to_tensors.items():
        write_file(folder / file, {name: tensors[name] for name in names}, dtype)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def write_file(file: Path, tensors: Mapping[str, LazyTensor], dtype: np.dtype) -> None:
    """Writes tensors to one safetensors file in `dtype`."""
    values = {name: np.ascontiguousarray(tensor.fetch(), dtype) for name, tensor in tensors.items()}
    file.touch()
    mode = file.stat().st_mode
    save_file(values, file, metadata={"format": "pt"})
    file.chmod(mode)  # the library's file can be read by its owner alone
