"""Rows by URI: every kind of source gives the same rows."""

import functools
import http.server
import json
import sys
import threading
import types

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amrsd_jax.tasks import sources

ROWS = [{"question": "é?", "answer": 5}, {"question": "b", "answer": 6}]


def read(uri):
    return [(number, row) for _, number, row in sources.rows(str(uri))]


def test_local_files_by_their_ending(tmp_path):
    lines, array, table = tmp_path / "a.jsonl", tmp_path / "b.json", tmp_path / "c.parquet"
    lines.write_text("\n".join(json.dumps(row) for row in ROWS), "utf-8")
    array.write_text(json.dumps(ROWS, indent=1), "utf-8")
    pq.write_table(pa.Table.from_pylist(ROWS), table)
    (tmp_path / "d.json").write_bytes(lines.read_bytes())  # JSON lines with that ending
    for path in (lines, array, table, tmp_path / "d.json"):
        assert read(path) == list(enumerate(ROWS, start=1))
    assert [sources.label(str(path)) for path in (lines, table)] == ["a", "c"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def web(tmp_path):
    """Address of the folder of the test."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_file_on_the_web(tmp_path, web, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "a.json").write_text(json.dumps(ROWS), "utf-8")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_text('{"question": 1}\n{', "utf-8")
    for name in ("a.json", "b.parquet"):
        assert read(f"{web}/{name}") == list(enumerate(ROWS, start=1)) and sources.label(f"{web}/{name}") == name[0]
    with pytest.raises(ValueError, match=f"{web}/c.jsonl line 2: not JSON"):
        read(f"{web}/c.jsonl")
    with pytest.raises(OSError, match=f"{web}/d.jsonl: HTTP Error 404"):
        read(f"{web}/d.jsonl")


def test_relative_files_are_in_a_folder_and_nothing_else_is():
    assert [sources.under(folder, "a.json") for folder in ("", "d", "d/", "https://h/d")] == [
        "a.json", "d/a.json", "d/a.json", "https://h/d/a.json",
    ]  # fmt: skip
    for uri in ("/a.json", "~/a.json", "hub:a/b", "tfds:a", "https://h/a.json"):
        assert sources.under("d", uri) == uri


def test_a_hub_data_set(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "owner" / "things"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS), "utf-8")
    (folder / "test.jsonl").write_text(json.dumps(ROWS[1]), "utf-8")
    uri = f"hub:{folder}?split=test"
    assert read(f"hub:{folder}") == list(enumerate(ROWS, start=1))
    assert read(uri) == [(1, ROWS[1])] and sources.label(uri) == "things"
    assert [row for _, row in read(f"hub:{folder}?split=train+test")] == [*ROWS, ROWS[1]]
    assert next(iter(sources.rows(uri)))[0] == f"{uri} row 1"


def test_a_tensorflow_data_set_through_its_data_source(monkeypatch):
    calls = []
    features = {"question": "é?".encode(), "answer": np.int64(5), "steps": np.array([b"x", b"y"], object)}

    def data_source(name, **arguments):
        calls.append((name, arguments))
        return [features, {"nested": {"a": np.float32(0.5)}}]

    monkeypatch.setitem(sys.modules, "tensorflow_datasets", types.SimpleNamespace(data_source=data_source))
    rows = read("tfds:gsm8k/main?split=test&data_dir=/d")
    assert rows == [(1, {"question": "é?", "answer": 5, "steps": ["x", "y"]}), (2, {"nested": {"a": 0.5}})]
    assert calls == [("gsm8k/main", {"split": "test", "data_dir": "/d"})]


def test_unknown_arguments_and_missing_files():
    with pytest.raises(ValueError, match="hub:a/b.spilt=test: unknown argument 'spilt'; did you mean 'split'"):
        sources.rows("hub:a/b?spilt=test")
    with pytest.raises(OSError):
        read("none.jsonl")


def test_places_inside_columns():
    row = {"a.b": 1, "a": {"b": 2, "c": [{"d": 3}]}}
    assert [sources.column(row, path) for path in ("a.b", "a.c.0.d")] == [1, 3]
    for path in ("x", "a.x", "a.c.1", "a.c.d", "a.b.c"):
        with pytest.raises(KeyError):
            sources.column(row, path)


def test_a_byte_order_mark_and_empty_lines_before_the_rows(tmp_path):
    for name, text in (("a.jsonl", "\n" + "\n".join(map(json.dumps, ROWS))), ("b.json", "\n\n" + json.dumps(ROWS))):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert [row for _, row in read(tmp_path / name)] == ROWS


def test_a_parquet_file_that_is_cut_or_has_a_column_twice_is_named(tmp_path):
    whole, cut, twice = (tmp_path / f"{name}.parquet" for name in ("whole", "cut", "twice"))
    pq.write_table(pa.Table.from_pylist(ROWS), whole)
    cut.write_bytes(whole.read_bytes()[:-50])
    (tmp_path / "empty.parquet").write_bytes(b"")
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 2, names=["question", "question"]), twice)
    for name in ("cut", "empty"):
        with pytest.raises(ValueError, match=rf"{name}\.parquet: not a whole Parquet file"):
            read(tmp_path / f"{name}.parquet")
    with pytest.raises(ValueError, match=r"twice\.parquet: two columns are named 'question'"):
        read(twice)


def test_a_fragment_takes_the_rows_of_a_half_open_range(tmp_path):
    path = tmp_path / "rows.jsonl"
    dated = "".join(f'{{"n": {n}, "date": "2025-0{n}-01T00:00:00"}}\n' for n in range(1, 10))
    path.write_text(dated + '{"n": null, "date": null}\n')  # which is in no range

    def taken(fragment):
        return [number for _, number, _ in sources.rows(f"{path}#{fragment}")]

    assert taken("n=3:5") == taken("date=2025-03-01:2025-05-01") == [3, 4]
    assert taken("n=8:") == taken("date=2025-08:") == [8, 9] and taken("n=:2") == [1]
    assert sources.label(f"{path}#n=3:5") == "rows"
    for fragment, message in {
        "n": "expected #column=low:high", "m=1:2": "no column 'm'", "n=a:2": "column 'n' is 1; expected numbers in #n=a:2",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=message):
            taken(fragment)
