"""The signal about an attempt: its verdict, a correct sibling that is not itself, or the reference."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from amrsd_jax.records import Rollouts
from amrsd_jax.reflection.diagnose import diagnose
from amrsd_jax.tasks.base import Problem, Verdict

GROUP = 4


def rollouts(texts, correct):
    """Groups of four of one problem each; the i-th row's message is `message i`."""
    rows = len(texts)
    arrays = {name: np.zeros((rows, 1), np.float32) for name in ("mask", "logp", "logp_plain")}
    return Rollouts(
        problems=tuple(Problem(str(i // GROUP), "q", "a", reference=f"worked {i // GROUP}") for i in range(rows)),
        text=tuple(texts),
        verdicts=tuple(Verdict(float(right), f"message {i}", None, True) for i, right in enumerate(correct)),
        finish_reason=("stop",) * rows,
        prompt=np.zeros((rows, 1), np.int32),
        prompt_length=np.ones(rows, np.int32),
        response=np.zeros((rows, 1), np.int32),
        reward=np.array(correct, np.float32),
        first_error=np.full((rows, 2), -1, np.int32),
        **arrays,
    )


def test_peer_is_the_next_correct_sibling_around_the_group():
    record = rollouts("abcdefgh", [0, 1, 0, 1, 1, 0, 0, 0])
    seen = [diagnose(record, row, GROUP, peers=True, reference=False) for row in range(8)]
    assert [d.peer for d in seen] == ["b", "d", "d", "b", None, "e", "e", "e"]
    assert [d.correct for d in seen] == [False, True, False, True, True, False, False, False]
    assert [d.verdict for d in seen] == [f"message {row}" for row in range(8)]
    assert all(d.reference is None for d in seen)


def test_a_sibling_with_the_same_text_tells_nothing():
    assert diagnose(rollouts("aaba", [1, 1, 1, 1]), 0, GROUP, peers=True, reference=False).peer == "b"
    assert diagnose(rollouts("aaaa", [1, 1, 1, 1]), 0, GROUP, peers=True, reference=False).peer is None


def test_reference_only_where_allowed_and_no_peer_is_shown():
    record = rollouts("abcdefgh", [0, 1, 0, 0, 0, 0, 0, 0])
    assert diagnose(record, 0, GROUP, peers=True, reference=True).reference is None
    assert diagnose(record, 5, GROUP, peers=True, reference=True).reference == "worked 1"
    assert diagnose(record, 0, GROUP, peers=False, reference=True).reference == "worked 0"
    assert diagnose(record, 0, GROUP, peers=False, reference=False).peer is None


@given(st.data())
def test_a_peer_is_a_correct_sibling_and_never_the_attempt_itself(data):
    rows = GROUP * data.draw(st.integers(1, 3))
    texts = data.draw(st.lists(st.sampled_from("abc"), min_size=rows, max_size=rows))
    correct = data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows))
    row = data.draw(st.integers(0, rows - 1))
    peer = diagnose(rollouts(texts, correct), row, GROUP, peers=True, reference=False).peer
    first = row - row % GROUP
    others = {texts[i] for i in range(first, first + GROUP) if correct[i]} - {texts[row]}
    assert peer in others if others else peer is None
