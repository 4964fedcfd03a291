"""Accuracy and its intervals, from a sampler that answers by script."""

import numpy as np
import pytest

from amrsd_jax.evaluate import evaluate, wilson
from amrsd_jax.policy.tokenizer import embedded_tokenizer
from amrsd_jax.records import Prompts
from amrsd_jax.sampling import Completion
from amrsd_jax.tasks import make


def test_wilson_by_hand():
    low, high = wilson(8, 10)
    assert (low, high) == pytest.approx((0.4901, 0.9433), abs=1e-3)
    assert wilson(0, 10)[0] == 0.0 and wilson(10, 10)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)


def test_sampled_and_greedy_are_counted_apart():
    task, tokenizer = make("addition", {"digits": 2}, seed=0), embedded_tokenizer(["####"])
    problems = tuple(task.problem("test", i) for i in range(4))
    asked = []

    def sample(requests):
        """Right when greedy, and when sampled for the first problem only; that one is cut off."""
        for request in requests:
            mode, problem = request.tag
            asked.append((mode, request.temperature, request.top_p))
            right = mode == "greedy" or problem == problems[0]
            tokens = np.array(tokenizer.encode("#### " + (problem.answer if right else "no")))
            zeros = np.zeros(len(tokens), np.float32)
            yield Completion(request, 0, tokens, zeros, zeros, "length" if problem == problems[0] else "stop")

    values = evaluate(task, tokenizer, Prompts(problems, ((1,),) * 4), sample, temperature=0.6, top_k=0, top_p=0.95)
    assert values["sampled"] == 0.25 and values["greedy"] == 1.0 and values["n"] == 4
    assert values["truncated"] == 0.25 and values["length"] > 0
    assert (values["sampled_low"], values["sampled_high"]) == wilson(1, 4)
    assert asked[0] == ("sampled", 0.6, 0.95) and asked[-1] == ("greedy", 0.0, 1.0)
