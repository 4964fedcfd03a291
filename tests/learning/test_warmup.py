"""Tests the documents of the embedded tasks' warm-up."""

import itertools
import zlib

import numpy as np
import pytest

from amrsd_jax import rng
from amrsd_jax.config import WarmupConfig
from amrsd_jax.learning.warmup import documents
from amrsd_jax.records import Problem
from amrsd_jax.reflection.parse import parse
from amrsd_jax.reflection.prompts import templates
from amrsd_jax.tasks import registry

TASK = registry.make("addition", {"digits": 3, "slip_rate": 0.7}, seed=0)


def first(count, **fields):
    """The last message and the completion of the first documents."""
    source = documents(TASK, templates("chain"), rng.host(0, "test"), WarmupConfig(**fields))
    return [(messages[-1]["content"], text) for messages, text in itertools.islice(source, count)]


def test_the_three_kinds_come_in_their_shares():
    pairs = first(2000)
    solve = [text for prompt, text in pairs if "\n" not in prompt]
    reflect = [(prompt, text) for prompt, text in pairs if prompt.endswith((" hint", " critique"))]
    guided = [(prompt, text) for prompt, text in pairs if prompt.endswith(" solve")]
    assert [len(kind) / 2000 for kind in (solve, reflect, guided)] == pytest.approx([0.5, 0.25, 0.25], abs=0.04)
    assert sum(" peer\n" in prompt for prompt, _ in reflect) / len(reflect) == pytest.approx(0.6, abs=0.08)
    for prompt, text in reflect:
        kind = prompt.rsplit(" ", 1)[-1]
        assert parse(text, kind, finished=True, states_answer=lambda _: False)[1] == "ok"


def test_a_solution_with_a_reflection_in_view_has_its_line_right():
    """Where all lines before it are right: an earlier slip changes the carry that comes in."""
    followed = 0
    for prompt, text in first(300, solve=0.0, reflect=0.0, peer=0.0):
        question, line, _ = prompt.split("\n")
        truth, written = TASK.solution(Problem("", question, "")).split("\n"), text.split("\n")
        number = truth.index(line)
        if written[:number] == truth[:number]:
            followed += 1
            assert written[number] == line
    assert followed > 150


def test_a_reflection_that_is_read_may_name_several_lines():
    counts = []
    for prompt, text in first(600, solve=0.0, reflect=0.0, peer=0.0, lines=2):
        question, *named, _ = prompt.split("\n")
        truth, written = TASK.solution(Problem("", question, "")).split("\n"), text.split("\n")
        counts.append(len(named))
        assert set(named) <= set(truth)
        for number in sorted(truth.index(line) for line in named):
            assert written[:number] != truth[:number] or written[number] == truth[number]
    assert set(counts) == {1, 2} and np.mean(counts) < 1.5  # not every sum has two carries


def test_solutions_with_the_answer_or_a_solution_in_view_are_right():
    pairs = first(2000, solve=0.2, reflect=0.2, given=0.4, peer=0.0)
    solving = [(prompt, text) for prompt, text in pairs if "####" in prompt and prompt.endswith(" solve")]
    assert len(solving) / 2000 == pytest.approx(0.4, abs=0.04)
    solutions = 0
    for prompt, text in solving:
        question = prompt.split("\n")[0]
        truth = TASK.solution(Problem("", question, ""))
        assert text == truth
        view = prompt.removeprefix(f"{question}\n").removesuffix("\n solve")
        assert view in (f" peer\n{truth}", truth.split("\n")[-1])
        solutions += view.startswith(" peer")
    assert solutions / len(solving) == pytest.approx(0.5, abs=0.06)


def test_a_critic_s_document_repairs_the_attempt():
    pairs = first(500, solve=0.2, reflect=0.2, trace=0.4, peer=0.0)
    repairs = [(prompt, text) for prompt, text in pairs if prompt.endswith(" reference")]
    assert len(repairs) / 500 == pytest.approx(0.4, abs=0.06)
    wrong = 0
    for prompt, text in repairs:
        question, *attempt, answer, _ = prompt.split("\n")
        truth = TASK.solution(Problem("", question, ""))
        assert text == truth and answer == truth.split("\n")[-1]
        wrong += "\n".join(attempt) != truth
    assert wrong > len(repairs) / 2


def test_the_stream_of_the_quickstart_is_pinned():
    """Runs of earlier versions begin from the same documents."""
    source = documents(
        registry.make("addition", {}, seed=0), templates("chain"), rng.host(0, "warm-up"), WarmupConfig()
    )
    assert zlib.crc32(repr(list(itertools.islice(source, 1000))).encode()) == 2509072379
