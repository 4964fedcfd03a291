"""Rows by URI: files, here or on the web, datasets of the Hugging Face hub, TensorFlow Datasets without TensorFlow.

    data/rows.jsonl, rows.json, rows.parquet           a local file: an object a line, or one JSON list; or Parquet
    https://host/rows.jsonl                            such a file elsewhere, fetched at every start
    hub:openai/gsm8k?name=main&split=train&revision=…   `datasets`; a folder in place of the id reads that folder
    tfds:gsm8k?split=train&data_dir=~/tfds              `tensorflow-datasets` by its `data_source`, prepared before

No code of a dataset is run and nothing is unpickled.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl
from urllib.request import urlopen

Row = dict[str, Any]
_ARGUMENTS = {"hub": ("name", "split", "revision"), "tfds": ("split", "data_dir")}
_WEB = ("http:", "https:")


def rows(uri: str) -> Iterator[tuple[str, int, Row]]:
    """(where, number, row) of every row; `where` names the source and the row for messages, numbers start at 1.

    Raises:
      ValueError: naming source and line, for what is not a JSON object; an unknown argument of a URI.
      OSError: the source cannot be read.
    """
    kind, _, rest = uri.partition(":")
    if kind in _ARGUMENTS:
        name, _, query = rest.partition("?")
        arguments = dict(parse_qsl(query))
        if unknown := set(arguments) - set(_ARGUMENTS[kind]):
            raise ValueError(f"{uri}: unknown {sorted(unknown)[0]!r}; expected {', '.join(_ARGUMENTS[kind])}")
        arguments.setdefault("split", "train")
        found = {"hub": _hub, "tfds": _tfds}[kind](name, arguments)
        return ((f"{uri} row {number}", number, row) for number, row in enumerate(found, start=1))
    if uri.endswith(".parquet"):
        return ((f"{uri} row {number}", number, row) for number, row in enumerate(_parquet(uri), start=1))
    return _json(uri)


def under(folder: str, uri: str) -> str:
    """A relative file's place in a folder or at an address; anything else, and without a folder, itself."""
    complete = uri.partition(":")[0] in _ARGUMENTS or uri.startswith((*_WEB, "/", "~"))
    return uri if complete or not folder else f"{folder.rstrip('/')}/{uri}"


def label(uri: str) -> str:
    """A short name of a source, the beginning of its rows' ids."""
    kind, _, rest = uri.partition(":")
    return rest.partition("?")[0].rpartition("/")[2] if kind in _ARGUMENTS else Path(uri).stem


def column(row: Row, path: str) -> Any:
    """A column, or inside one by dots: `reward_model.ground_truth`, `prompt.0.content`.

    Raises:
      KeyError: there is none.
    """
    if path in row:
        return row[path]
    value: Any = row
    for key in path.split("."):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            raise KeyError(path)
    return value


def _open(uri: str) -> io.BufferedIOBase:
    if not uri.startswith(_WEB):
        return Path(uri).expanduser().open("rb")
    try:
        with urlopen(uri, timeout=60) as answer:
            return io.BytesIO(answer.read())
    except OSError as error:  # which names neither the address nor its file
        raise OSError(f"{uri}: {error}") from error


def _json(uri: str) -> Iterator[tuple[str, int, Row]]:
    with _open(uri) as lines:
        first = lines.readline()
        lines.seek(0)
        if uri.endswith(".json") and first.lstrip().startswith(b"["):
            for number, row in enumerate(_parsed(lines.read(), uri), start=1):
                yield f"{uri} row {number}", number, _object(row, f"{uri} row {number}")
            return
        for number, line in enumerate(lines, start=1):
            if line.strip():
                where = f"{uri} line {number}"
                yield where, number, _object(_parsed(line, where), where)


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 ({error.reason} at byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error.msg} at character {error.colno})") from error


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: {type(row).__name__}; expected one JSON object a line")
    return row


def _parquet(uri: str) -> list[Row]:
    import pyarrow.parquet as pq

    with _open(uri) as file:
        return pq.read_table(file).to_pylist()


def _hub(name: str, arguments: dict[str, str]) -> Iterator[Row]:
    import datasets

    return iter(datasets.load_dataset(name, **arguments))


def _tfds(name: str, arguments: dict[str, str]) -> Iterator[Row]:
    import tensorflow_datasets as tfds

    source = tfds.data_source(name, **arguments)
    return ({key: _text(value) for key, value in source[i].items()} for i in range(len(source)))


def _text(value: Any) -> Any:
    """What a record holds, as JSON would: bytes as text, arrays as lists and numbers."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, dict):
        return {key: _text(item) for key, item in value.items()}
    return [_text(item) for item in value] if isinstance(value, list) else value
