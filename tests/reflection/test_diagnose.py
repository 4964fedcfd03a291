"""Diagnosis of an attempt: its verdict, a correct sibling other than itself, or the reference."""

from hypothesis import given
from hypothesis import strategies as st

from amrsd_jax.config import ReflectionConfig
from amrsd_jax.policy.tokenizer import embedded_tokenizer
from amrsd_jax.records import Problem, Verdict
from amrsd_jax.reflection.diagnose import diagnose
from amrsd_jax.reflection.prompts import templates, vocabulary_words
from amrsd_jax.reflection.settings import ContextSettings
from amrsd_jax.tasks.registry import make
from tests.tiny import tiny_rollouts

GROUP = 4
CHAIN = templates("chain")


def context_settings(group=GROUP, tokenizer=None, **config):
    tokenizer = tokenizer or embedded_tokenizer(vocabulary_words(CHAIN))
    return ContextSettings(
        ReflectionConfig(**config), make("addition", {"digits": 1}, seed=0), tokenizer, {"": CHAIN}, {}, {}, group
    )


def rollouts(texts, correct):
    """Groups of four rows of one problem each; the message of row i is `message i`."""
    return tiny_rollouts(
        correct,
        problems=tuple(Problem(str(i // GROUP), "q", "a", f"worked {i // GROUP}") for i in range(len(texts))),
        text=tuple(texts),
        verdicts=tuple(Verdict(float(right), f"message {i}", None, True) for i, right in enumerate(correct)),
    )


PEERS, NEITHER = context_settings(), context_settings(peers=False)
BOTH, REFERENCE = context_settings(reference=True), context_settings(peers=False, reference=True)


def test_peer_is_the_next_correct_sibling_around_the_group():
    record = rollouts("abcdefgh", [0, 1, 0, 1, 1, 0, 0, 0])
    diagnoses = [diagnose(record, row, PEERS) for row in range(8)]
    assert [d.peer for d in diagnoses] == ["b", "d", "d", "b", None, "e", "e", "e"]
    assert [d.verdict for d in diagnoses] == [f"message {row}" for row in range(8)]
    assert all(d.reference is None for d in diagnoses)


def test_a_sibling_with_the_same_text_is_no_peer():
    assert diagnose(rollouts("aaba", [1, 1, 1, 1]), 0, PEERS).peer == "b"
    assert diagnose(rollouts("aaaa", [1, 1, 1, 1]), 0, PEERS).peer is None


def test_reference_only_where_allowed_and_no_peer_is_shown():
    record = rollouts("abcdefgh", [0, 1, 0, 0, 0, 0, 0, 0])
    assert diagnose(record, 0, BOTH).reference is None
    assert diagnose(record, 5, BOTH).reference == "worked 1"
    assert diagnose(record, 0, REFERENCE).reference == "worked 0"
    assert diagnose(record, 0, NEITHER).peer is None


@given(st.data())
def test_a_peer_is_a_correct_sibling_and_never_the_attempt_itself(data):
    rows = GROUP * data.draw(st.integers(1, 3))
    texts = data.draw(st.lists(st.sampled_from("abc"), min_size=rows, max_size=rows))
    correct = data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows))
    row = data.draw(st.integers(0, rows - 1))
    peer = diagnose(rollouts(texts, correct), row, PEERS).peer
    first = row - row % GROUP
    others = {texts[i] for i in range(first, first + GROUP) if correct[i]} - {texts[row]}
    assert peer in others if others else peer is None
