"""Divergences against a NumPy form in float64: values, gradients, supports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amrsd_jax.scoring.divergence import Divergence, divergence

LN2 = np.log(2.0)


def buckets(logits, members):
    """Masses of the members and of the rest, by NumPy in float64."""
    p = np.exp(logits - logits.max())
    p /= p.sum()
    return np.append(p[members], np.delete(p, members).sum())


def dense(student, teacher, spec):
    """One token, from masses instead of log-masses."""
    members = np.arange(len(student))
    if spec.top_k:
        tops = [set(np.argsort(x)[-spec.top_k :].tolist()) for x in (student, teacher)]
        chosen = {"student": tops[0], "teacher": tops[1], "union": tops[0] | tops[1]}[spec.support]
        members = np.array(sorted(chosen))
    s, t = buckets(student, members), buckets(teacher, members)

    def kl(p, q):
        return np.where(p > 0, p * (np.log(np.maximum(p, 1e-300)) - np.log(np.maximum(q, 1e-300))), 0.0)

    if spec.alpha in (0, 1):
        terms = kl(s, t) if spec.alpha else kl(t, s)
    else:
        m = (1 - spec.alpha) * s + spec.alpha * t
        terms = (1 - spec.alpha) * kl(s, m) + spec.alpha * kl(t, m)
    return (np.minimum(terms, spec.entry_clip) if spec.entry_clip else terms).sum()


def logits(seed, vocabulary=9, tokens=3):
    return np.random.default_rng(seed).normal(0, 3, (2, tokens, vocabulary))


SPECS = [
    Divergence(alpha=alpha, top_k=k, support=support, entry_clip=clip)
    for alpha in (0.0, 0.3, 1.0)
    for k, support in ((0, "student"), (3, "student"), (3, "teacher"), (3, "union"))
    for clip in (0.0, 0.05)
]


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_values_and_gradients_are_those_of_the_whole_table(spec):
    """Gradients by central differences of the NumPy form; the support does not move within the step."""
    student, teacher = logits(3)
    with jax.enable_x64(True):
        both = jax.jit(jax.vmap(jax.value_and_grad(lambda s, t: divergence(s, t, spec)[0])))
        value, gradient = both(jnp.asarray(student), jnp.asarray(teacher))
    for token in range(len(student)):
        s, t = student[token], teacher[token]
        assert value[token] == pytest.approx(dense(s, t, spec), rel=1e-9, abs=1e-12)
        step = 1e-6 * np.eye(len(s))
        slope = [(dense(s + d, t, spec) - dense(s - d, t, spec)) / 2e-6 for d in step]
        np.testing.assert_allclose(gradient[token], slope, rtol=1e-5, atol=1e-7)


def test_by_hand():
    """Student (1/2, 1/4, 1/4), teacher (1/4, 1/2, 1/4)."""
    s, t = jnp.log(jnp.array([0.5, 0.25, 0.25])), jnp.log(jnp.array([0.25, 0.5, 0.25]))

    def value(**spec):
        return float(divergence(s, t, Divergence(**spec))[0])

    assert value(alpha=0.0) == pytest.approx(LN2 / 4)  # 1/4 log(1/2) + 1/2 log 2
    assert value(alpha=1.0) == pytest.approx(LN2 / 4)
    middle = 0.5 * np.log(0.5 / 0.375) + 0.25 * np.log(0.25 / 0.375)
    assert value(alpha=0.5) == pytest.approx(middle)
    assert value(alpha=0.0, entry_clip=0.1) == pytest.approx(0.1 - LN2 / 4)
    # the student's first entry apart, the rest in one bucket of 1/2 against 3/4
    assert value(alpha=0.0, top_k=1) == pytest.approx(0.25 * np.log(0.5) + 0.75 * np.log(1.5))


def test_coverage_and_overlap_by_hand():
    s, t = jnp.log(jnp.array([0.5, 0.3, 0.1, 0.1])), jnp.log(jnp.array([0.1, 0.4, 0.3, 0.2]))
    for support, covered in (("student", 0.8), ("teacher", 0.4), ("union", 0.9)):
        _, metrics = divergence(s, t, Divergence(top_k=2, support=support))
        assert float(metrics["covered"]) == pytest.approx(covered)
        assert float(metrics["overlap"]) == 0.5
    ties = jnp.log(jnp.array([0.25, 0.25, 0.25, 0.25]))
    assert float(divergence(ties, ties, Divergence(top_k=3))[1]["overlap"]) == 1
    assert float(divergence(ties, t, Divergence(top_k=2))[1]["overlap"]) == 0.5


@pytest.mark.parametrize("spec", [spec for spec in SPECS if not spec.entry_clip], ids=str)
def test_never_negative_zero_for_equals_and_finite(spec):
    student, teacher = np.asarray(logits(0, tokens=64), np.float32)
    sure = np.where(np.arange(9) == 4, np.float32(1e4), np.float32(-1e4))
    students = np.concatenate([student, student, [sure, student[0], sure]])
    teachers = np.concatenate([teacher, student, [teacher[0], sure, -sure]])
    both = jax.jit(jax.vmap(jax.value_and_grad(lambda s, t: divergence(s, t, spec)[0])))
    value, gradient = map(np.asarray, both(students, teachers))
    assert (value[:64] >= -1e-5).all()
    np.testing.assert_allclose(value[64:128], 0.0, atol=1e-6)
    assert np.isfinite(value).all() and np.isfinite(gradient).all()


def test_no_gradient_flows_into_the_teacher():
    student, teacher = (jnp.asarray(x, jnp.float32) for x in logits(1))
    for spec in SPECS[::5]:
        gradient = jax.grad(lambda t, spec=spec: divergence(student, t, spec)[0].sum())(teacher)
        np.testing.assert_array_equal(gradient, 0.0)


def test_a_clip_from_above_can_turn_the_gradient_around():
    """Student (1/2, 1/4, 1/4), teacher sure of the first: unclipped it is raised, with its own term clipped it is lowered."""
    student, teacher = jnp.log(jnp.array([0.5, 0.25, 0.25])), jnp.log(jnp.array([0.98, 0.01, 0.01]))
    for clip, sign in ((0.0, -1), (0.05, 1)):
        spec = Divergence(alpha=0.0, entry_clip=clip)
        assert np.sign(jax.grad(lambda s, spec=spec: divergence(s, teacher, spec)[0])(student)[0]) == sign


def test_the_support_holds_all_k_entries_where_the_logits_are_made_by_the_same_program():
    """XLA computed the log-probabilities twice there; rounded differently, the k-th was less than itself."""
    generator = np.random.default_rng(5)
    arrays = [np.float32(generator.normal(size=shape)) for shape in ((21, 24), (24, 77), (21, 24), (24, 77))]
    spec = Divergence(alpha=0.0, top_k=5, support="union")

    @jax.jit
    def program(h, w, other_h, other_w):
        student, teacher = jnp.matmul(h, w) / 0.9, jnp.matmul(other_h, other_w) / 0.9
        return divergence(student, teacher, spec)[0], student, teacher

    values, *both = program(*arrays)
    expected = [dense(s, t, spec) for s, t in zip(*(np.float64(a) for a in both), strict=True)]
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
