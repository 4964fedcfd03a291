"""Weights on disk in the safetensors format: eight bytes of length, a JSON header, raw bytes. Read by mapping, never run.

Our own forty lines, because both ways are streams: a tensor is read slice by slice where it lies, and a file is written
tensor by tensor without its neighbours in memory.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor in a file: where its bytes begin and what they are."""

    file: Path
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int

    def map(self) -> np.ndarray:
        """The tensor as a read-only view of the file; only what is touched is read."""
        return np.memmap(self.file, self.dtype, "r", self.offset, self.shape)


@dataclasses.dataclass(frozen=True)
class Pending:
    """A tensor to be written: its shape now, its values when their turn comes."""

    name: str
    shape: tuple[int, ...]
    make: Callable[[], np.ndarray]


# ---------------------------------------------------------------- reading


def find(folder: Path) -> dict[str, Stored]:
    """Every tensor of a model folder by name, in one file or in those that its index lists.

    Raises:
      ValueError: no weights, only pickled ones, a listed file is absent or damaged, or it lacks a tensor listed for it.
    """
    if (folder / INDEX).exists():
        return _indexed(folder)
    if (folder / SINGLE).exists():
        return read_header(folder / SINGLE)
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ValueError(
            f"{folder / pickles[0]}: pickled weights can run code and are not read; expected {SINGLE} or {INDEX}"
        )
    raise ValueError(f"{folder}: no weights; expected {SINGLE} or {INDEX}")


def _indexed(folder: Path) -> dict[str, Stored]:
    listed = _json(folder / INDEX, (folder / INDEX).read_bytes()).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(file, str) for file in listed.values()):
        raise ValueError(f"{folder / INDEX}: no weight_map; expected the file of every tensor")
    found = {}
    for file in sorted(set(listed.values())):
        if Path(file).name != file:
            raise ValueError(f"{folder / INDEX}: lists {file!r}; expected a file of the same folder")
        if not (folder / file).exists():
            raise ValueError(f"{folder / file}: no such file, and {INDEX} lists it")
        found |= read_header(folder / file)
    for name, file in listed.items():
        if name not in found or found[name].file.name != file:
            raise ValueError(f"{folder / file}: no tensor {name}, which {INDEX} lists there")
    return found


def read_header(file: Path) -> dict[str, Stored]:
    """The tensors of one file.

    Raises:
      ValueError: the file is truncated or not of this format, or holds a dtype other than those of `DTYPES`.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or 8 + length > size:
            raise ValueError(
                f"{file}: truncated, or not safetensors: a header of {length:,} bytes in a file of {size:,}"
            )
        header = _json(file, stream.read(length))
    header.pop("__metadata__", None)
    found = {name: _stored(file, name, entry, 8 + length) for name, entry in header.items()}
    end = max((stored.offset + _bytes(stored.shape, stored.dtype) for stored in found.values()), default=8 + length)
    if end != size:
        what = "truncated" if end > size else "longer than its header says"
        raise ValueError(f"{file}: {what}: expected {end:,} bytes, found {size:,}")
    return found


def _stored(file: Path, name: str, entry: Any, base: int) -> Stored:
    try:
        code, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{file}: tensor {name}: expected dtype, shape and data_offsets, found {entry!r}") from None
    if code not in DTYPES:
        raise ValueError(f"{file}: tensor {name} is {code}; expected one of {', '.join(DTYPES)}")
    if start < 0 or end - start != _bytes(shape, DTYPES[code]):
        raise ValueError(f"{file}: tensor {name}: {end - start} bytes for {code} {list(shape)}")
    return Stored(file, name, DTYPES[code], shape, base + start)


def _json(file: Path, text: bytes) -> dict:
    try:
        value = json.loads(text)
    except ValueError:
        raise ValueError(f"{file}: truncated or damaged: its JSON cannot be read") from None
    if not isinstance(value, dict):
        raise ValueError(f"{file}: expected a JSON object")
    return value


def _bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return math.prod(shape) * dtype.itemsize


# ---------------------------------------------------------------- writing


def write(folder: Path, tensors: Iterable[Pending], dtype: np.dtype, file_bytes: int) -> None:
    """Writes tensors in their order, as one file or as several of about `file_bytes` with an index."""
    files = [[]]
    for tensor in tensors:
        held = sum(_bytes(other.shape, dtype) for other in files[-1])
        if files[-1] and held + _bytes(tensor.shape, dtype) > file_bytes:
            files.append([])
        files[-1].append(tensor)
    if len(files) == 1:
        return write_file(folder / SINGLE, files[0], dtype)
    names = [f"model-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)]
    for name, held in zip(names, files, strict=True):
        write_file(folder / name, held, dtype)
    total = sum(_bytes(tensor.shape, dtype) for held in files for tensor in held)
    weight_map = {tensor.name: name for name, held in zip(names, files, strict=True) for tensor in held}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def write_file(file: Path, tensors: list[Pending], dtype: np.dtype) -> None:
    """Writes one file, its tensors one after the other."""
    code = next(code for code, known in DTYPES.items() if known == dtype)
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for tensor in tensors:
        start, end = end, end + _bytes(tensor.shape, dtype)
        header[tensor.name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            np.ascontiguousarray(tensor.make(), dtype).tofile(stream)
