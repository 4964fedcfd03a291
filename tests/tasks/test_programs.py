"""The program in a reply: its blocks, unfinished ones, whole replies, and the rest of a function that a prompt begins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amrsd_jax.tasks.programs import completed, program


@pytest.mark.parametrize(
    "reply, expected",
    [
        ("Here:\n```python\nx = 1\n```\nDone.", ("x = 1\n", True)),
        ("```python\nx = 1\n```\nbetter\n```py\nx = 2\n```", ("x = 2\n", True)),
        ("```python\nx = 1\n```\nprints\n```\n1\n```", ("x = 1\n", True)),  # the last block is no Python
        ("```\nx = 1\n```\n```\nx = 2\n```", ("x = 2\n", True)),
        ("~~~\nx = 1\n~~~", ("x = 1\n", True)),
        ("```python\r\n    return 1\r\n```", ("    return 1\n", True)),  # a completion keeps its indentation
        ("text\n```python\nx = 1", ("x = 1", False)),  # cut off
        ("```python\nx = 1\n```\nand\n```python\nx =", ("x = 1\n", True)),
        ("def f():\n    return 1", ("def f():\n    return 1", False)),
        ("    return 1\n", ("    return 1\n", False)),
        ("I do not know.", (None, False)),
        ("", (None, False)),
        ("```python\n\n```", (None, False)),
        ("1. So:\n    ```python\n    if x:\n        y\n    ```", ("if x:\n    y\n", True)),  # in an item of a list
        ("- So:\n  ```\n  x = 1\n  ```\n  ```\n  x = 2", ("x = 1\n", True)),
        ('```py\n"""\n    ```python\n    x\n    ```\n"""\n```', ('"""\n    ```python\n    x\n    ```\n"""\n', True)),
        ("````python\nx = 1\n```\n````", ("x = 1\n```\n", True)),  # a fence of four ends with four
        ("<think>```python\nx = 1\n```</think>I give up.", (None, False)),
        ("<think>```python\nx = 1\n```", (None, False)),
    ],
)
def test_the_program_of_a_reply(reply, expected):
    assert program(reply) == expected


F, CALL, PART = "```python\ndef f(x):\n    return x\n```", "```python\nprint(f(3))\n```", "```python\n    return x\n```"


@pytest.mark.parametrize(
    "reply, rest, expected",
    [
        (f"{F}\nExample usage:\n{CALL}", False, "def f(x):\n    return x\n"),
        (f"{F}\n```python\nassert f(1) == 1\n```\nprints\n```\n1\n```", False, "def f(x):\n    return x\n"),
        (f"{F.replace('python', '')}\n{CALL}", False, "def f(x):\n    return x\n"),  # the marked block only calls
        (f"{F}\n{F.replace('return x', 'return 2 * x')}\n{CALL}", False, "def f(x):\n    return 2 * x\n"),
        (f"{F}\n```python\ndef test_f():\n    assert f(1) == 1\n```", False, "def f(x):\n    return x\n"),
        (f"{F}\n```python\nf = lambda x: 2\n```\n{CALL}", False, "f = lambda x: 2\n"),
        (f"{F}\n```python\nif f == 2: f(3)\n```", False, "def f(x):\n    return x\n"),
        (
            "```python\nclass Solution:\n    def f(self):\n        pass\n```\n" + CALL,
            False,
            "class Solution:\n    def f(self):\n        pass\n",
        ),
        (f"{F}\n{PART}", True, "    return x\n"),  # the rest of a function
        (f"{F}\n{PART}", False, "def f(x):\n    return x\n"),
        (f"{F}\n{CALL}", True, "def f(x):\n    return x\n"),
        (f"{F.replace('f(', 'g(')}\n{CALL}", False, "print(f(3))\n"),  # no block defines it
        (f"{F.replace('f(', 'f2(')}\n{CALL}", False, "print(f(3))\n"),
    ],
)
def test_a_block_that_only_calls_the_function_is_no_program(reply, rest, expected):
    assert program(reply, ("f",), rest) == (expected, True)


@given(st.lists(st.sampled_from(["```", "```python", "\n", "~~~", "def f():", " ", "x", "</think>"])).map("".join))
def test_any_reply_is_read(reply):
    text, fenced = program(reply)
    assert (text is None or text.replace(" ", "") in reply.replace(" ", "")) and (not fenced or text)


STARTER = 'from math import pi\n\ndef area(r):\n    """The area of a circle."""\n'


@pytest.mark.parametrize("text", ["    return pi * r * r", "return pi * r * r", "def area(r):\n    return pi * r * r"])
def test_a_function_is_completed_or_written_whole(text):
    prelude, source = completed(text, STARTER, "area")
    namespace = {}
    exec(prelude, namespace)
    exec(source, namespace)
    assert namespace["area"](1) == pytest.approx(3.14159, abs=1e-4)
