"""From completions to rollouts: text without special tokens, verdicts, arrays padded on the right."""

import json

import numpy as np
import pytest

from amrsd_jax.policy.tokenizer import embedded_tokenizer
from amrsd_jax.records import Problem, Verdict
from amrsd_jax.sampling import Completion, Request
from amrsd_jax.tasks.addition import Addition
from amrsd_jax.tasks.base import Task
from amrsd_jax.tasks.chain import ChainTask
from amrsd_jax.tasks.rows import RowTask
from amrsd_jax.tasks.verify import extras, judged, pad, token_span, verify


def test_rollouts_by_hand():
    tokenizer = embedded_tokenizer(Addition.words)
    task, problem = ChainTask(Addition(digits=1), seed=0), Problem("a", "3+4", "7")
    right = [*tokenizer.encode("#### 7"), tokenizer.eos_token_id]
    cut = tokenizer.encode("3+4")

    def completion(prompt, tokens, reason):
        logprobs = -np.arange(1.0, len(tokens) + 1, dtype=np.float32)
        return Completion(Request(prompt, row=0, tag=problem), 0, np.array(tokens), logprobs, reason)

    rollouts = verify(
        task,
        tokenizer,
        [completion([5, 6], right, "stop"), completion([5], cut, "length")],
        prompt_length=3,
        response_length=5,
    )
    assert rollouts.problems == (problem, problem)
    assert rollouts.text == ("#### 7", "3+4")  # without the stop token
    assert rollouts.finish_reason == ("stop", "length")
    assert [verdict.correct for verdict in rollouts.verdicts] == [True, False]
    assert rollouts.reward.tolist() == [1.0, 0.0]
    assert rollouts.prompt.tolist() == [[5, 6, 0], [5, 0, 0]]
    assert rollouts.prompt_length.tolist() == [2, 1]
    assert rollouts.response.tolist() == [[*right, 0], [*cut, 0, 0]]
    assert rollouts.mask.tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]  # the stop token counts
    assert {name: array.tolist() for name, array in rollouts.extras.items()} == {"answer": [[2, 3], [-1, -1]]}
    assert rollouts.sampler_logprobs.tolist() == [[-1, -2, -3, -4, 0], [-1, -2, -3, 0, 0]]


class Marks(Task):
    """Scores the length of a response in letters, and marks its a's; the word "none" has neither."""

    spans, scores = ("a",), ("letters",)

    def verify(self, problem, response):
        if response == "none":
            return Verdict(0.0, "", None, False)
        a = {"a": (response.index("a"), response.rindex("a") + 1)} if "a" in response else {}
        return Verdict(1.0, "", None, True, {"letters": len(response), "undeclared": 1.0}, a)


@pytest.mark.parametrize("texts", [["baab", "b", "none"], ["none", "none"], []])
def test_extras_are_the_declared_names_whatever_the_rows(texts):
    tokenizer = embedded_tokenizer([])
    arrays = extras(Marks(), tokenizer, [tokenizer.encode(t) for t in texts], [Marks().verify(None, t) for t in texts])
    spans, lengths = {"baab": (1, 3)}, {"baab": 4, "b": 1}
    assert set(arrays) == {*Marks().spans, *Marks().scores} == {"a", "letters"}
    assert arrays["a"].dtype == np.int32 and arrays["a"].shape == (len(texts), 2)
    assert [tuple(row) for row in arrays["a"]] == [spans.get(text, (-1, -1)) for text in texts]
    np.testing.assert_array_equal(arrays["letters"], [lengths.get(text, np.nan) for text in texts])


def test_pad_by_hand_and_of_nothing():
    np.testing.assert_array_equal(pad([[1, 2], [], [3]], 2, np.int32), [[1, 2], [0, 0], [3, 0]])
    assert pad([], 4, np.int32).shape == (0, 4)


def test_a_row_that_is_too_long_is_not_cut():
    with pytest.raises(ValueError):
        pad([[1, 2, 3]], 2, np.int32)


@pytest.mark.parametrize(
    "span, tokens",
    [
        (None, (-1, -1)),
        ((0, 2), (0, 1)),
        ((2, 3), (1, 2)),
        ((1, 4), (0, 3)),
        ((3, 99), (2, 4)),
        ((7, 8), (-1, -1)),  # beyond the text
    ],
)
def test_token_span_by_hand(span, tokens):
    tokenizer = embedded_tokenizer(["ab", "def"])
    ids = [tokenizer.convert_tokens_to_ids(piece) for piece in ("ab", "c", "def", "g")]
    assert token_span(tokenizer, ids, span) == tokens


def test_a_span_passes_over_special_tokens_that_the_text_lacks():
    tokenizer = embedded_tokenizer(["ab", "def"])
    ab, end, rest = (tokenizer.convert_tokens_to_ids(piece) for piece in ("ab", tokenizer.eos_token, "def"))
    assert tokenizer.decode([ab, end, rest, end], skip_special_tokens=True) == "abdef"
    assert token_span(tokenizer, [ab, end, rest, end], (2, 5)) == (2, 3)
    assert token_span(tokenizer, [ab, end, rest, end], (5, 6)) == (3, 4)  # the token that ends the response


def test_a_verdict_s_texts_can_be_written():
    """JSON names half of a surrogate pair in plain letters."""
    gold = json.dumps([{"Action": "f", "Action_Input": "{}"}])
    tokenizer, task = embedded_tokenizer(["a"]), RowTask(family="tools")
    reply = 'Action: f\nAction Input: {"a": "\\ud800"}'
    verdict = judged(task, tokenizer, [], Problem("a", "Call f.", gold), reply)
    assert verdict.parsed.encode() and '"a": "?"' in verdict.parsed


def test_a_response_that_never_closes_the_thought_of_its_prompt_has_no_reply():
    tokenizer = embedded_tokenizer(["<think>", "</think>", "<answer>", "</answer>", "assistant"])
    task, problem = RowTask(family="choice"), Problem("a", "Which?\nA: 1\nB: 2", "B")
    opened, closed = tokenizer.encode("assistant\n<think>\n"), tokenizer.encode("assistant\n<think>\n</think>\n")
    cases = (
        (opened, "<answer>B</answer>", 0),
        (opened, "so</think><answer>B</answer>", 1),
        (closed, "<answer>B</answer>", 1),
        (tokenizer.encode("assistant\n"), "<answer>B</answer>", 1),
    )
    completions = []
    for i, (prompt, text, _) in enumerate(cases):
        ids = np.array(tokenizer.encode(text))
        request = Request(prompt, row=i, tag=problem)
        completions.append(Completion(request, 0, ids, np.zeros(len(ids), np.float32), "stop"))
    rollouts = verify(task, tokenizer, completions, prompt_length=32, response_length=64)
    assert rollouts.reward.tolist() == [reward for *_, reward in cases]
    assert rollouts.text == tuple(text for _, text, _ in cases)


@pytest.mark.parametrize(
    "family, answer, stop, text, reward",
    [
        ("mathematics", "7", "Question:", "3 + 4 = 7\n\nQuestion:", 1.0),
        ("mathematics", "7", "Question:", "3 + 4 = 8\n\nQuestion:", 0.0),
        ("mathematics", "7", "---", "\\boxed{7}\n---", 1.0),
        ("mathematics", "7", "---", "---", 0.0),
        ("mathematics", "7", "Question 2", "The answer is 7.\n\nQuestion 2", 1.0),
        ("mathematics", "2", "Question 2", "The answer is 7.\n\nQuestion 2", 0.0),
        ("choice", "B", "</answer>", "<answer>B</answer>", 1.0),
    ],
)
def test_a_stop_string_hides_no_answer_and_may_belong_to_it(family, answer, stop, text, reward):
    problem = Problem("a", "Which?\nA: 1\nB: 2", answer)
    assert judged(RowTask(family=family), embedded_tokenizer([]), [5], problem, text, stop=(stop,)).reward == reward
