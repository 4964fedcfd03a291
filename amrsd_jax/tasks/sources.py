"""Reads rows by URI: local files, web addresses, the Hugging Face hub, and TensorFlow Datasets without TensorFlow.

    data/rows.jsonl, rows.json, rows.parquet           a local file: one JSON object per line, one JSON list, or Parquet
    https://host/rows.jsonl                            such a file on the web, fetched at every start
    hub:openai/gsm8k?name=main&split=train&revision=…   `datasets`; a local folder may replace the id
    tfds:gsm8k?split=train&data_dir=~/tfds              `tensorflow-datasets`, prepared before, read by its `data_source`
    ...#task_id=601:975                                 of any of these, the rows whose column is in this half-open range

No code of a dataset is run and nothing is unpickled.
"""

import codecs
import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl
from urllib.request import urlopen

from amrsd_jax.names import nearest

Row = dict[str, Any]
_ARGUMENTS = {"hub": ("name", "split", "revision"), "tfds": ("split", "data_dir")}
_WEB = ("http:", "https:")


def rows(uri: str) -> Iterator[tuple[str, int, Row]]:
    """Yields (where, number, row); `where` names source and row for error messages, numbers start at 1.

    Raises:
      ValueError: a row is not a JSON object, or a file not a whole one of its kind (names source and line), or the URI has an
        unknown argument.
      OSError: the source cannot be read.
    """
    uri, _, wanted = uri.partition("#")
    found = _rows(uri)
    return _within(found, wanted) if wanted else found


def _rows(uri: str) -> Iterator[tuple[str, int, Row]]:
    kind, _, rest = uri.partition(":")
    if kind in _ARGUMENTS:
        name, _, query = rest.partition("?")
        arguments = dict(parse_qsl(query.replace("+", "%2B")))  # a plus joins splits: split=train+validation
        if unknown := set(arguments) - set(_ARGUMENTS[kind]):
            raise ValueError(f"{uri}: unknown argument {min(unknown)!r}; {nearest(min(unknown), _ARGUMENTS[kind])}")
        arguments.setdefault("split", "train")
        found = _hub(name, arguments) if kind == "hub" else _tfds(name, arguments)
    elif uri.endswith(".parquet"):
        found = _parquet(uri)
    else:
        return _json(uri)
    return ((f"{uri} row {number}", number, row) for number, row in enumerate(found, start=1))


def _within(found: Iterator[tuple[str, int, Row]], wanted: str) -> Iterator[tuple[str, int, Row]]:
    """Yields rows with a column in a range, `column=low:high`: numbers as numbers, all else as text, such as ISO dates.

    A row whose column is null is in no range.
    """
    match = re.fullmatch(r"([^=]+)=([^:]*):(.*)", wanted)
    if not match:
        raise ValueError(f"#{wanted}: expected #column=low:high")
    for where, number, row in found:
        try:
            value = column(row, match[1])
        except KeyError:
            raise ValueError(f"{where}: no column {match[1]!r}; {nearest(match[1], row)}") from None
        if value is None:
            continue
        kind = float if isinstance(value, int | float) else str
        try:
            low, high = (kind(bound) if bound else None for bound in match.group(2, 3))
        except ValueError:
            raise ValueError(f"{where}: column {match[1]!r} is {value!r}; expected numbers in #{wanted}") from None
        if (low is None or kind(value) >= low) and (high is None or kind(value) < high):
            yield where, number, row


def names_split(uri: str) -> bool:
    """Whether a URI says which split of a data set is read; that of a file has none to name."""
    kind, _, rest = uri.partition("#")[0].partition(":")
    return kind not in _ARGUMENTS or "split" in dict(parse_qsl(rest.partition("?")[2]))


def under(folder: str, uri: str) -> str:
    """Prepends a folder or web address to a relative file name; returns any other URI as it is."""
    complete = uri.partition(":")[0] in _ARGUMENTS or uri.startswith((*_WEB, "/", "~"))
    return uri if complete or not folder else f"{folder.rstrip('/')}/{uri}"


def label(uri: str) -> str:
    """Returns a short name of a source. The ids of its rows begin with it."""
    uri = uri.partition("#")[0]
    kind, _, rest = uri.partition(":")
    return rest.partition("?")[0].rpartition("/")[2] if kind in _ARGUMENTS else Path(uri).stem


def column(row: Row, path: str) -> Any:
    """Returns a column, or a value inside one, such as `reward_model.ground_truth` or `prompt.0.content`.

    Raises:
      KeyError: the row has no such column or value.
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


def first_column(row: Row, paths: str) -> Any:
    """Returns the first of the columns `a|b` that the row has and that is not null; None if all that it has are null.

    Raises:
      KeyError: the row has none of them.
    """
    found = []
    for path in filter(None, paths.split("|")):
        with contextlib.suppress(KeyError):
            found.append(column(row, path))
    if not found:
        raise KeyError(paths)
    return next((value for value in found if value is not None), None)


def _open(uri: str) -> io.BufferedIOBase:
    if not uri.startswith(_WEB):
        return Path(uri).expanduser().open("rb")
    try:
        with urlopen(uri, timeout=60) as answer:
            return io.BytesIO(answer.read())
    except OSError as error:  # its message does not name the address
        raise OSError(f"{uri}: {error}") from error


def _json(uri: str) -> Iterator[tuple[str, int, Row]]:
    with _open(uri) as lines:
        if lines.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            lines.seek(0)
        start = lines.tell()
        if uri.endswith(".json") and _first_byte(lines) == b"[":
            lines.seek(start)
            for number, row in enumerate(_parsed(lines.read(), uri), start=1):
                yield f"{uri} row {number}", number, _object(row, f"{uri} row {number}")
            return
        lines.seek(start)
        for number, line in enumerate(lines, start=1):
            if line.strip():
                where = f"{uri} line {number}"
                yield where, number, _object(_parsed(line, where), where)


def _first_byte(lines: io.BufferedIOBase) -> bytes:
    """Returns the first byte that is not white space."""
    return next((line.strip()[:1] for line in lines if line.strip()), b"")


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_once_each)
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 ({error.reason} at byte {error.start})") from error
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise ValueError(f"{where}: not JSON ({error.msg} at {line}character {error.colno})") from error
    except RecursionError as error:
        raise ValueError(f"{where}: lists and objects are nested too deep to be read") from error
    except ValueError as error:  # a key that occurs twice, or a number of more than 4,300 digits
        raise ValueError(f"{where}: {error}") from error


def _once_each(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice in one object")
    return row


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: {type(row).__name__}; expected one JSON object")
    return row


def _parquet(uri: str) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _open(uri) as file:
        try:
            names = pq.ParquetFile(file).schema_arrow.names
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise ValueError(f"{uri}: two columns are named {twice!r}")
            return pq.read_table(file).to_pylist()
        except (pa.ArrowException, OSError) as error:  # its message does not name the file
            raise ValueError(f"{uri}: not a whole Parquet file ({str(error)[:200]})") from error


def _hub(name: str, arguments: dict[str, str]) -> Iterator[Row]:
    import datasets

    return iter(datasets.load_dataset(name, **arguments))


def _tfds(name: str, arguments: dict[str, str]) -> Iterator[Row]:
    import tensorflow_datasets as tfds

    source = tfds.data_source(name, **arguments)
    return ({key: _json_value(value) for key, value in source[i].items()} for i in range(len(source)))


def _json_value(value: Any) -> Any:
    """Converts a value to JSON types: bytes to text, arrays to lists and numbers."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, dict):
        return {key: _json_value(item) for key, item in value.items()}
    return [_json_value(item) for item in value] if isinstance(value, list) else value
