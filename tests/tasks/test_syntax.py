"""Parsing in threads."""

import ast
import gc
import sys
from concurrent.futures import ThreadPoolExecutor

from amrsd_jax.tasks import syntax


def test_threads_may_parse_at_once():
    text = "def check(f):\n" + "    assert f([1, (2, {3: -x})], y=[z for z in w]) == {1, 2}\n" * 10
    threshold, interval = gc.get_threshold(), sys.getswitchinterval()

    def callback(*_):  # JAX has such a one
        pass

    gc.callbacks.append(callback)
    gc.set_threshold(50)
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as threads:
            trees = list(threads.map(syntax.parse, [text] * 2000))
    finally:
        gc.callbacks.remove(callback)
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval)
    assert {ast.dump(tree) for tree in trees[::100]} == {ast.dump(ast.parse(text))}
