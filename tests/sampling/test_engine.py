"""The engine: tokens do not depend on how rows are scheduled, prompts are prefilled once, nothing recompiles."""

import dataclasses
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amrsd_jax import lengths, rng
from amrsd_jax.build import sampling_weights
from amrsd_jax.learning.mesh import make_mesh, rows, shardings
from amrsd_jax.policy import Policy, preset
from amrsd_jax.sampling import Layout, Queue, Request, Weights, complete, engine, transitions

STOP = (2, 3)
WIDE = Layout(slots=16, group=4, prompt_length=8, new_tokens=12, admit=4, segment=5, stop_tokens=STOP)
LAYOUTS = [
    WIDE,
    dataclasses.replace(WIDE, slots=4, admit=1, segment=3),
    dataclasses.replace(WIDE, slots=8, admit=2, segment=12),
]


def make_requests(lengths, counts, **settings):
    generator, row, requests = np.random.default_rng(0), 0, []
    for length, count in zip(lengths, counts, strict=True):
        requests.append(Request(generator.integers(4, 48, length).tolist(), row=row, count=count, **settings))
        row += count
    return requests


@pytest.fixture(scope="module")
def weights(policy, params):
    return Weights(params, jax.jit(policy.for_decoding)(params))


def run(policy, weights, layout, requests, key=None):
    key = rng.key(0, "rollout", 1) if key is None else key
    done = complete(policy, layout, weights, requests, key)
    return {c.request.row + c.index: c for c in done}


def one_at_a_time(policy, params, request, index, new_tokens, key):
    """The plainest sampler: the whole row through the whole model for every token."""
    row_key = jax.random.fold_in(key, request.row + index)
    tokens = []
    while len(tokens) < new_tokens and (not tokens or tokens[-1] not in STOP):
        so_far = [*request.prompt, *tokens]
        padded = jnp.array([so_far + [0] * (20 - len(so_far))])  # one shape; a causal row does not see its padding
        logits = policy.logits(params, policy.forward(params, padded))[0, len(so_far) - 1]
        noise = jax.random.fold_in(row_key, len(tokens))
        tokens.append(int(jax.random.categorical(noise, logits / request.temperature)))
    return tokens


def test_equals_the_plainest_sampler(policy, params, weights):
    requests = make_requests([3, 8, 1], [2, 1, 3], temperature=0.8)
    key = rng.key(5, "rollout", 2)
    done = run(policy, weights, WIDE, requests, key)
    assert len(done) == 6
    for c in done.values():
        assert c.tokens.tolist() == one_at_a_time(policy, params, c.request, c.index, 12, key)
        assert c.finish_reason == ("stop" if c.tokens[-1] in STOP else "length")


def test_log_probabilities_are_those_of_the_full_forward(policy, params, weights):
    for c in run(policy, weights, WIDE, make_requests([4, 6], [2, 2], temperature=0.7)).values():
        row = jnp.array([[*c.request.prompt, *c.tokens.tolist()]])
        logits = policy.logits(params, policy.forward(params, row))[0, len(c.request.prompt) - 1 : -1]
        for temperature, logp in ((0.7, c.logp), (1.0, c.logp_plain)):
            expected = jax.nn.log_softmax(logits / temperature)[jnp.arange(len(c.tokens)), c.tokens]
            np.testing.assert_allclose(logp, expected, atol=2e-5)


@settings(max_examples=8)
@given(
    st.lists(st.tuples(st.integers(1, 8), st.integers(1, 4)), min_size=1, max_size=9),
    st.randoms(use_true_random=False),
)
def test_tokens_do_not_depend_on_slots_or_order(policy, weights, shapes, shuffler):
    requests = make_requests(*zip(*shapes, strict=True))
    first = run(policy, weights, LAYOUTS[0], requests)
    assert len(first) == sum(r.count for r in requests)
    for layout in LAYOUTS[1:]:
        shuffler.shuffle(requests)
        again = run(policy, weights, layout, requests)
        assert {row: c.tokens.tolist() for row, c in again.items()} == {r: c.tokens.tolist() for r, c in first.items()}


def test_rows_differ_and_steps_differ(policy, weights):
    """No fixed seed: rollouts of one prompt differ, and so do two steps."""
    request = make_requests([4], [4], temperature=1.5)
    steps = [run(policy, weights, WIDE, request, rng.key(0, "rollout", step)) for step in (1, 2)]
    drawn = [tuple(c.tokens.tolist()) for step in steps for c in step.values()]
    assert len(set(drawn)) == 8


def test_greedy_rows_agree(policy, weights):
    done = run(policy, weights, WIDE, make_requests([4], [4], temperature=0.0))
    assert len({tuple(c.tokens.tolist()) for c in done.values()}) == 1


def test_new_settings_and_new_lengths_do_not_recompile(policy, weights):
    run(policy, weights, WIDE, make_requests([4, 2], [4, 1]))
    before = transitions.admit._cache_size(), transitions.decode._cache_size()
    run(
        policy, weights, WIDE, make_requests([8, 1, 3], [1, 2, 4], temperature=0.3, top_k=5, top_p=0.8), rng.key(9, "x")
    )
    assert (transitions.admit._cache_size(), transitions.decode._cache_size()) == before


def test_requests_are_read_as_slots_become_free(policy, weights):
    read = 0

    def stream():
        nonlocal read
        for request in make_requests([4] * 12, [2] * 12):
            read += 1
            yield request

    layout = LAYOUTS[1]  # four slots
    done = complete(policy, layout, weights, stream(), rng.key(0, "rollout", 1))
    next(done)
    assert read < 12
    assert len(list(done)) == 23


@given(
    st.lists(st.tuples(st.integers(1, 8), st.integers(1, 4)), min_size=1, max_size=9),
    st.randoms(use_true_random=False),
)
@settings(max_examples=8)
def test_tokens_do_not_depend_on_the_width_of_the_cache(policy, weights, shapes, shuffler):
    requests = make_requests(*zip(*shapes, strict=True))
    wide = run(policy, weights, LAYOUTS[1], requests)
    shuffler.shuffle(requests)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lengths, "LEAST", 4)  # prompts of 4 and 8; rows of 4, 8, 16 and 20
        narrow = run(policy, weights, LAYOUTS[1], requests)
    assert {row: c.tokens.tolist() for row, c in narrow.items()} == {row: c.tokens.tolist() for row, c in wide.items()}


def test_the_cache_is_as_wide_as_the_rows_in_flight(policy, weights, monkeypatch):
    monkeypatch.setattr(lengths, "LEAST", 64)
    widths, resize = [], transitions._resize
    monkeypatch.setattr(
        transitions, "_resize", lambda layout, width, buffer: widths.append(width) or resize(layout, width, buffer)
    )
    layout = dataclasses.replace(LAYOUTS[1], new_tokens=150, segment=60, stop_tokens=())
    run(policy, weights, layout, make_requests([3, 1], [4, 4]))
    per_layer = 2 * policy.architecture.layers
    assert widths[::per_layer] == [
        64,
        128,
        192,
        64,
        128,
        192,
    ]  # whole blocks for 3 + 61, 3 + 121, 3 + 150 tokens; then again


def test_requests_may_be_added_while_others_are_answered(policy, weights):
    first, second = make_requests([4, 6], [2, 2])
    queue = Queue([first])
    done = {}
    for c in complete(policy, LAYOUTS[1], weights, queue, rng.key(0, "rollout", 1)):
        if not done:
            queue.add(second)
        done[c.request.row + c.index] = c.tokens.tolist()
    expected = run(policy, weights, LAYOUTS[1], [first, second])
    assert done == {row: c.tokens.tolist() for row, c in expected.items()}


@pytest.fixture
def ticking(monkeypatch):
    """The engine's clock goes on by a second whenever it is looked at."""
    monkeypatch.setattr(engine, "time", SimpleNamespace(perf_counter=itertools.count().__next__))


@pytest.mark.usefixtures("ticking")
def test_rows_have_their_slots_from_admission_to_their_last_step(policy, weights):
    """Four slots, segments of 3: rows of 12 tokens take four segments, those of 4 tokens one."""
    layout = dataclasses.replace(LAYOUTS[1], stop_tokens=())
    long, short = make_requests([3, 3], [2, 2])
    done = run(policy, weights, layout, [long, dataclasses.replace(short, new_tokens=4)])
    times = [(done[row].began, done[row].ended) for row in range(4)]
    assert times == [(0, 9), (0, 9), (1, 3), (1, 3)]  # segments from 2 to 3, 4 to 5, 6 to 7, 8 to 9


@pytest.mark.usefixtures("ticking")
def test_a_row_that_stops_within_a_segment_has_its_share_of_it(policy, weights):
    """A row of 4 tokens beside one of 12, in one segment from 1 to 2: 3 of its 11 steps. One of 1 token decodes nothing."""
    layout = dataclasses.replace(LAYOUTS[2], stop_tokens=())
    requests = make_requests([3, 3, 3], [1, 1, 1])
    limits = [12, 4, 1]
    requests = [dataclasses.replace(r, new_tokens=n) for r, n in zip(requests, limits, strict=True)]
    done = run(policy, weights, dataclasses.replace(layout, admit=4), requests)
    assert [done[row].ended for row in range(3)] == [2, pytest.approx(1 + 3 / 11), 1]


def test_streams_have_the_keys_of_calls_of_their_own(policy, weights):
    keys = [rng.key(0, "rollout", 1), rng.key(0, "reflection", 1)]
    requests = make_requests([4, 6], [2, 2])
    other = [dataclasses.replace(request, stream=1, temperature=0.7) for request in requests]
    together = list(complete(policy, WIDE, weights, [*requests, *other], jnp.stack(keys)))
    for stream, alone in enumerate((requests, [dataclasses.replace(r, stream=0) for r in other])):
        expected = run(policy, weights, WIDE, alone, keys[stream])
        found = {c.request.row + c.index: c.tokens.tolist() for c in together if c.request.stream == stream}
        assert found == {row: c.tokens.tolist() for row, c in expected.items()}


def test_a_long_prompt_is_taken_if_its_response_is_short(policy, params, weights):
    tokens = np.random.default_rng(1).integers(4, 48, 15).tolist()
    (done,) = run(policy, weights, WIDE, [Request(tokens, row=3, new_tokens=5)]).values()
    assert done.tokens.tolist() == one_at_a_time(policy, params, done.request, 0, 5, rng.key(0, "rollout", 1))


def test_long_prompts_are_prefilled_fewer_at_a_time(monkeypatch):
    monkeypatch.setattr(lengths, "LEAST", 4)
    assert [WIDE.prompt_width(n) for n in (1, 4, 5, 8, 9, 16, 17, 20)] == [4, 4, 8, 8, 16, 16, 20, 20]
    assert [WIDE.together(n) for n in (1, 8, 9, 17)] == [4, 4, 2, 1]
    queue = Queue(Request([5] * n, row=n, new_tokens=3) for n in (1, 8, 9, 10, 11, 17))
    batches = [[len(request.prompt) for request in queue.take(16, WIDE)] for _ in range(4)]
    assert batches == [[1, 8], [9, 10], [11], [17]]


def test_single_rows_are_admitted_without_room_for_groups(policy, weights, monkeypatch):
    shapes, admit = [], transitions.admit

    def watch(*args, targets, **arrays):
        shapes.append(targets.shape)
        return admit(*args, targets=targets, **arrays)

    monkeypatch.setattr(engine, "admit", watch)
    assert len(run(policy, weights, WIDE, make_requests([4, 2, 2, 4], [4, 1, 1, 3]))) == 9
    assert shapes == [(4, 4), (4, 1), (4, 4)]


def test_a_group_shares_its_prompt_without_a_copy_for_each_beside_the_cache():
    policy = Policy(preset("tiny", vocab_size=48, width=32, layers=2, heads=8, kv_heads=8, head_dim=64, ffn=32))
    params = policy.init(rng.key(0, "init"))
    layout = Layout(slots=32, group=8, prompt_length=512, new_tokens=64, admit=4, segment=8, stop_tokens=STOP)
    slots = transitions.empty(policy, layout)
    transitions.widen(layout, slots, layout.length)

    def temporary(group):
        numbers, floats = jnp.zeros(4, jnp.int32), jnp.ones(4)
        targets, rows = jnp.zeros((4, group), jnp.int32), jnp.zeros((4, group), jnp.uint32)
        given = (
            params, slots, rng.key(0, "rollout", 1).reshape(-1), jnp.zeros((4, 512), jnp.int32), numbers, numbers, numbers,
            targets, rows, floats, numbers, floats,
        )  # fmt: skip
        leaves, structure = jax.tree.flatten(given)  # what is lowered must be of the annotated types

        def admit(*leaves):
            return transitions.admit(policy, layout, *jax.tree.unflatten(structure, leaves))

        return jax.jit(admit).lower(*leaves).compile().memory_analysis().temp_size_in_bytes

    prompts = sum(a.nbytes for a in jax.tree.leaves(slots.cache)) * 4 // layout.slots
    assert temporary(8) - temporary(1) < prompts  # and not seven times that


def test_no_requests_is_no_work(policy, weights):
    assert run(policy, weights, WIDE, []) == {}


def test_bad_requests_are_refused_by_row(policy, weights):
    with pytest.raises(ValueError, match="row 7: prompt of 9 tokens; expected 1 to 8"):
        run(policy, weights, WIDE, [Request([5] * 9, row=7)])
    with pytest.raises(ValueError, match="row 7: prompt of 16 tokens; expected 1 to 15"):
        run(policy, weights, WIDE, [Request([5] * 16, row=7, new_tokens=5)])
    with pytest.raises(ValueError, match="row 0: 13 new tokens; expected 1 to 12"):
        run(policy, weights, WIDE, [Request([5], row=0, new_tokens=13)])
    with pytest.raises(ValueError, match="row 0: count 5; expected 1 to 4"):
        run(policy, weights, WIDE, [Request([5], row=0, count=5)])
    with pytest.raises(ValueError, match="a group of 4 rollouts does not fit"):
        dataclasses.replace(WIDE, slots=3)


def split(params, mesh):
    """Parameters as the learner has them on a mesh."""
    return jax.device_put(params, shardings(params, mesh))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 4, 2)])
def test_same_tokens_on_every_mesh(policy, params, weights, shape):
    requests = make_requests([3, 8, 5], [4, 4, 4], temperature=0.0)
    alone = run(policy, weights, WIDE, requests)
    mesh = make_mesh(*shape)
    spread = run(
        policy,
        sampling_weights(policy, split(params, mesh), mesh),
        dataclasses.replace(WIDE, sharding=rows(mesh)),
        requests,
    )
    assert all(spread[row].tokens.tolist() == c.tokens.tolist() for row, c in alone.items())


@pytest.mark.slow
def test_devices_prefill_their_share(policy, params):
    mesh = make_mesh(8, 1, 1)

    def flops(together):
        layout = dataclasses.replace(WIDE, admit=together, sharding=rows(mesh))
        slots = transitions.empty(policy, layout)
        transitions.widen(layout, slots, layout.length)
        free = list(range(layout.slots))
        packed = engine._pack(make_requests([8], [1]), layout, free, [None] * layout.slots)
        keys = layout.put(rng.key(0, "rollout").reshape(-1))

        leaves, tree = jax.tree.flatten((split(params, mesh), slots, keys, packed))

        def admit(*leaves):  # what is lowered must be of the annotated types
            params, slots, keys, packed = jax.tree.unflatten(tree, leaves)
            return transitions.admit(policy, layout, params, slots, keys, **packed)

        lowered = jax.jit(admit).lower(*leaves)
        return lowered.compile().cost_analysis()["flops"]

    assert flops(8) < flops(4)  # one prompt each, or all four on each of eight devices


def test_slots_that_do_not_divide_the_mesh_are_refused():
    with pytest.raises(ValueError, match=r"sampling.slots = 12 does not divide over 8 devices"):
        dataclasses.replace(WIDE, slots=12, sharding=rows(make_mesh(8, 1, 1)))
