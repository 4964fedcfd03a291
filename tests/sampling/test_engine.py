"""The sampler: tokens do not depend on how rows are scheduled, prompts are prefilled once, nothing is compiled again."""

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
from amrsd_jax.experiment import sampler_params as sampler_params_of
from amrsd_jax.learning.mesh import make_mesh, rows, shardings
from amrsd_jax.policy import Policy, preset
from amrsd_jax.records import Request
from amrsd_jax.sampling import (
    RequestQueue,
    SamplerConfig,
    SamplerParams,
    StopStrings,
    complete,
    engine,
    transitions,
)
from tests.programs import collectives

STOP = (2, 3)
WIDE = SamplerConfig(slots=16, group=4, prompt_length=8, new_tokens=12, admit=4, segment=5, stop_tokens=STOP)
FOUR = dataclasses.replace(WIDE, slots=4, admit=1, segment=3)  # slots for one group alone
KEY = rng.key(0, "rollout", 1)
SHAPES = st.lists(st.tuples(st.integers(1, 8), st.integers(1, 4)), min_size=1, max_size=9)  # prompt length, count


def make_requests(lengths, counts, **settings):
    generator, row, requests = np.random.default_rng(0), 0, []
    for length, count in zip(lengths, counts, strict=True):
        requests.append(Request(generator.integers(4, 48, length).tolist(), row=row, count=count, **settings))
        row += count
    return requests


@pytest.mark.parametrize("waiting, active", [(None, 0), (1, 36), (4, 36), (8, 32)])
def test_decoding_stops_when_what_waits_fits(waiting, active):
    """Of 40 slots 4 must be free, a quarter or a full admission of one group, and as many as the next request has rows."""
    config = dataclasses.replace(WIDE, slots=40, group=4 if waiting != 8 else 8, admit=1)
    queue = RequestQueue(make_requests([3], [waiting]) if waiting else [])
    assert engine._max_active(queue, config) == active


@pytest.fixture(scope="module")
def sampler_params(policy, params):
    return SamplerParams(params, jax.jit(policy.for_decoding)(params))


@pytest.fixture(scope="module")
def run(policy, sampler_params):
    """Completions of requests by row number."""

    def run(config, requests, key=KEY):
        done = complete(policy, config, sampler_params, requests, key)
        return {c.request.row + c.index: c for c in done}

    return run


@pytest.fixture(scope="module")
def sampled(run):
    """Tokens of requests by row number."""
    return lambda *args: {row: c.tokens.tolist() for row, c in run(*args).items()}


@pytest.fixture(scope="module")
def full_logits(policy, params):
    """Logits [20, V] of a row by the full forward, for rows of up to 20 tokens, so that one shape is compiled."""
    forward = jax.jit(lambda tokens: policy.logits(params, policy.forward(params, tokens[None]))[0])
    return lambda row: forward(jnp.array([*row, *[0] * (20 - len(row))]))


@pytest.fixture(scope="module")
def reference(full_logits):
    """The plainest sampler: the full forward of the whole row for every token."""

    def sample(request, index, new_tokens, key):
        tokens = []
        while len(tokens) < new_tokens and (not tokens or tokens[-1] not in STOP):
            row = [*request.prompt, *tokens]
            noise = jax.random.fold_in(jax.random.fold_in(key, request.row + index), len(tokens))
            logits = full_logits(row)[len(row) - 1]
            tokens.append(int(jax.random.categorical(noise, logits / request.temperature)))
        return tokens

    return sample


def test_equals_the_plainest_sampler(run, reference):
    key = rng.key(5, "rollout", 2)
    done = run(WIDE, make_requests([3, 8, 1], [2, 1, 3], temperature=0.8), key)
    assert len(done) == 6
    for c in done.values():
        assert c.tokens.tolist() == reference(c.request, c.index, 12, key)
        assert c.finish_reason == ("stop" if c.tokens[-1] in STOP else "length")


def test_a_long_prompt_is_accepted_if_its_response_is_short(run, reference):
    tokens = np.random.default_rng(1).integers(4, 48, 15).tolist()
    (done,) = run(WIDE, [Request(tokens, row=3, new_tokens=5)]).values()
    assert done.tokens.tolist() == reference(done.request, 0, 5, KEY)


def test_log_probabilities_are_those_of_the_full_forward(run, full_logits):
    for c in run(WIDE, make_requests([4, 6], [2, 2], temperature=0.7)).values():
        expected = jax.nn.log_softmax(full_logits([*c.request.prompt, *c.tokens.tolist()]) / 0.7)
        positions = len(c.request.prompt) - 1 + np.arange(len(c.tokens))
        np.testing.assert_allclose(c.logprobs, expected[positions, c.tokens], atol=2e-5)


@pytest.mark.slow
@settings(max_examples=8)
@given(SHAPES, st.randoms(use_true_random=False))
def test_tokens_do_not_depend_on_slots_order_or_cache_width(sampled, shapes, shuffler):
    requests = make_requests(*zip(*shapes, strict=True))
    expected = sampled(WIDE, requests)
    assert len(expected) == sum(r.count for r in requests)
    shuffler.shuffle(requests)
    assert sampled(FOUR, requests) == expected
    shuffler.shuffle(requests)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lengths, "MIN_BUCKET", 4)  # prompts of 4 and 8; rows of 4, 8, 16 and 20
        assert sampled(FOUR, requests) == expected


def test_rollouts_of_a_prompt_differ_and_steps_differ(sampled):
    request = make_requests([4], [4], temperature=1.5)
    steps = [sampled(WIDE, request, rng.key(0, "rollout", step)) for step in (1, 2)]
    assert len({tuple(tokens) for step in steps for tokens in step.values()}) == 8


def letters(tokens):
    """Decodes each token as two letters."""
    return "".join(chr(97 + token % 26) + chr(97 + token // 26) for token in tokens)


@pytest.mark.slow
@settings(max_examples=4)
@given(SHAPES, st.integers(1, 5), st.data())
def test_a_response_ends_after_the_token_that_completes_a_stop_string(run, shapes, length, data):
    """Whatever the slots and segments, and with the log-probabilities of the same tokens; other rows stay as they are."""
    requests = make_requests(*zip(*shapes, strict=True))
    whole = run(WIDE, requests)
    text = letters(whole[0].tokens)
    begin = data.draw(st.integers(0, max(0, len(text) - length)))
    string = text[begin : begin + length]
    strings = StopStrings((string, "never"), letters)
    for config in (WIDE, FOUR):
        done = run(dataclasses.replace(config, stop_strings=strings), requests)
        for row, expected in whole.items():
            found = letters(expected.tokens).find(string)
            end = len(expected.tokens) if found < 0 else -(-(found + len(string)) // 2)
            assert done[row].tokens.tolist() == expected.tokens[:end].tolist()
            np.testing.assert_allclose(done[row].logprobs, expected.logprobs[:end], atol=1e-5)
            assert done[row].finish_reason == (expected.finish_reason if found < 0 else "stop")


@pytest.mark.slow
def test_a_slot_that_a_stop_string_ended_decodes_no_more(policy, sampler_params, run, monkeypatch):
    (request,) = make_requests([4], [2])
    endless = dataclasses.replace(FOUR, stop_tokens=())
    first, second = (letters(run(endless, [request])[row].tokens) for row in (0, 1))
    assert first[:4] not in second  # the first two tokens of the one; a segment has three
    active, decode = [], engine.decode

    def watched(policy, config, params, slots, most):
        active.append(int(slots.active.sum()))
        return decode(policy, config, params, slots, most)

    monkeypatch.setattr(engine, "decode", watched)
    config = dataclasses.replace(endless, stop_strings=StopStrings((first[:4],), letters))
    assert len(list(complete(policy, config, sampler_params, [request], KEY))) == 2
    assert active[:2] == [2, 1]


@pytest.mark.slow
def test_ids_that_the_tokenizer_lacks_are_never_sampled(run, full_logits):
    config = dataclasses.replace(WIDE, absent=(range(4, 6), range(9, 99)), stop_tokens=())
    for settings_ in (dict(temperature=1.5), dict(temperature=0.0), dict(temperature=1.0, top_k=20, top_p=0.99)):
        done = run(config, make_requests([4, 6], [4, 4], **settings_)).values()
        assert set(np.concatenate([c.tokens for c in done]).tolist()) <= {0, 1, 2, 3, 6, 7, 8}
    for c in run(config, make_requests([4], [4], temperature=1.5)).values():  # of the policy that is trained
        logits = full_logits([*c.request.prompt, *c.tokens.tolist()])[len(c.request.prompt) - 1 :]
        expected = jax.nn.log_softmax(logits / 1.5)[np.arange(len(c.tokens)), c.tokens]
        np.testing.assert_allclose(c.logprobs, expected, atol=2e-5)


def test_greedy_rollouts_agree(sampled):
    assert len({tuple(tokens) for tokens in sampled(WIDE, make_requests([4], [4], temperature=0.0)).values()}) == 1


def test_new_settings_and_lengths_compile_nothing(run, caplog):
    def compiled():
        return [record for record in caplog.records if record.getMessage().startswith("Compiling")]

    run(WIDE, make_requests([4, 2], [4, 1]))
    with jax.log_compiles():
        jax.jit(lambda x: x + 1)(1.0)
        assert len(compiled()) == 1  # the log has one such line per program
        caplog.clear()
        run(WIDE, make_requests([8, 1, 3], [1, 2, 4], temperature=0.3, top_k=5, top_p=0.8), rng.key(9, "x"))
    assert not compiled()


def test_requests_are_read_as_slots_become_free(policy, sampler_params):
    read = []

    def stream():
        for request in make_requests([4] * 12, [2] * 12):
            read.append(request)
            yield request

    done = complete(policy, FOUR, sampler_params, stream(), KEY)
    next(done)
    assert len(read) < 12
    assert len(list(done)) == 23


def test_requests_can_be_added_while_completions_are_consumed(policy, sampler_params, sampled):
    first, second = make_requests([4, 6], [2, 2])
    queue, done = RequestQueue([first]), {}
    for c in complete(policy, FOUR, sampler_params, queue, KEY):
        if not done:
            queue.add(second)
        done[c.request.row + c.index] = c.tokens.tolist()
    assert done == sampled(FOUR, [first, second])


@pytest.mark.slow
def test_streams_sample_as_calls_with_their_keys(policy, sampler_params, sampled):
    keys = [rng.key(0, "rollout", 1), rng.key(0, "reflection", 1)]
    requests = make_requests([4, 6], [2, 2])
    other = [dataclasses.replace(request, stream=1, temperature=0.7) for request in requests]
    together = list(complete(policy, WIDE, sampler_params, [*requests, *other], jnp.stack(keys)))
    for stream, alone in enumerate((requests, [dataclasses.replace(r, stream=0) for r in other])):
        tokens = {c.request.row + c.index: c.tokens.tolist() for c in together if c.request.stream == stream}
        assert tokens == sampled(WIDE, alone, keys[stream])


@pytest.mark.slow
def test_the_cache_is_as_wide_as_the_rows_in_flight(policy, run, monkeypatch):
    widths, resize = [], engine.resize_cache

    def watched(config, slots, longest):
        resize(config, slots, longest)
        widths.append(slots.cache[0].length)

    monkeypatch.setattr(engine, "resize_cache", watched)
    config = dataclasses.replace(FOUR, new_tokens=150, segment=60, stop_tokens=())
    run(config, make_requests([3, 1], [4, 4]))
    # Whole blocks for 3 + 61, 3 + 121 and 3 + 150 tokens, then again for the second group.
    assert [width for width, _ in itertools.groupby(widths)] == [64, 128, 192, 64, 128, 192]


def test_long_prompts_are_prefilled_fewer_at_a_time(monkeypatch):
    monkeypatch.setattr(lengths, "MIN_BUCKET", 4)
    assert [WIDE.prompt_width(n) for n in (1, 4, 5, 8, 9, 16, 17, 20)] == [4, 4, 8, 8, 16, 16, 20, 20]
    assert [WIDE.prompts_per_admission(n) for n in (1, 8, 9, 17)] == [4, 4, 2, 1]
    split = dataclasses.replace(WIDE, admit=20, sharding=rows(make_mesh(8, 1, 1)))  # equally many on each device
    assert [split.prompts_per_admission(n) for n in (1, 8, 9, 17)] == [16, 16, 8, 8]
    queue = RequestQueue(Request([5] * n, row=n, new_tokens=3) for n in (1, 8, 9, 10, 11, 17))
    batches = [[len(request.prompt) for request in queue.take(16, WIDE)] for _ in range(4)]
    assert batches == [[1, 8], [9, 10], [11], [17]]


def test_the_last_rollout_of_a_request_can_be_greedy(run):
    """It is that of a greedy request, and the others are what they are without it."""
    (request,) = make_requests([5], [3], temperature=1.2, top_k=9)
    done = run(WIDE, [dataclasses.replace(request, greedy=True)])
    others = run(WIDE, [dataclasses.replace(request, count=2)])
    alone = run(WIDE, [dataclasses.replace(request, count=1, temperature=0.0)])
    for row, want in {0: others[0], 1: others[1], 2: alone[0]}.items():
        np.testing.assert_array_equal(done[row].tokens, want.tokens)


def test_single_rollouts_are_admitted_without_room_for_groups(run, monkeypatch):
    shapes, admit = [], transitions.admit

    def watched(*args, targets, **arrays):
        shapes.append(targets.shape)
        return admit(*args, targets=targets, **arrays)

    monkeypatch.setattr(engine, "admit", watched)
    assert len(run(WIDE, make_requests([4, 2, 2, 4], [4, 1, 1, 3]))) == 9
    assert shapes == [(4, 4), (4, 1), (4, 4)]


@pytest.fixture
def ticking(monkeypatch):
    """The engine's clock advances by a second each time it is read."""
    monkeypatch.setattr(engine, "time", SimpleNamespace(perf_counter=itertools.count().__next__))


@pytest.mark.slow
@pytest.mark.usefixtures("ticking")
def test_times_of_a_row_are_those_of_its_admission_and_its_last_step(run):
    """Four slots, segments of 3: rows of 12 tokens take four segments, those of 4 tokens one."""
    long, short = make_requests([3, 3], [2, 2])
    done = run(dataclasses.replace(FOUR, stop_tokens=()), [long, dataclasses.replace(short, new_tokens=4)])
    times = [(done[row].began, done[row].ended) for row in range(4)]
    assert times == [(0, 9), (0, 9), (1, 3), (1, 3)]  # segments from 2 to 3, 4 to 5, 6 to 7, 8 to 9


@pytest.mark.slow
@pytest.mark.usefixtures("ticking")
def test_a_row_that_stops_within_a_segment_ends_after_its_share_of_the_steps(run):
    """One segment from 1 to 2: a row of 4 tokens is in 3 of the 11 steps of a row of 12; one of 1 token decodes nothing."""
    requests = make_requests([3, 3, 3], [1, 1, 1])
    requests = [dataclasses.replace(r, new_tokens=n) for r, n in zip(requests, [12, 4, 1], strict=True)]
    done = run(dataclasses.replace(WIDE, segment=12, stop_tokens=()), requests)
    assert [done[row].ended for row in range(3)] == [2, pytest.approx(1 + 3 / 11), 1]


def compiled(program, policy, config, params, slots, *others):
    """A compiled program of the sampler, to which the state is donated."""
    leaves, structure = jax.tree.flatten((slots, params, *others))

    def run(*leaves):  # the annotated types are checked, so shapes cannot be lowered in place of arrays
        slots, params, *others = jax.tree.unflatten(structure, leaves)
        return program(policy, config, params, slots, *others)

    return jax.jit(run, donate_argnums=tuple(range(len(jax.tree.leaves(slots))))).lower(*leaves).compile()


def widest_slots(policy, config):
    slots = transitions.empty_slots(policy, config)
    transitions.resize_cache(config, slots, config.length)
    return slots


def compile_admission(policy, config, params, width, group):
    """The compiled `admit` of prompts of a width, each for a group."""
    slots = widest_slots(policy, config)
    numbers, floats = np.zeros(config.admit, np.int32), np.ones(config.admit, np.float32)
    targets, rows = np.zeros((config.admit, group), np.int32), np.zeros((config.admit, group), np.uint32)
    prompts = np.zeros((config.admit, width), np.int32)
    temperature = np.ones(rows.shape, np.float32)
    arrays = config.put((prompts, numbers, numbers, numbers, targets, rows, temperature, numbers, floats))
    return slots, compiled(transitions.admit, policy, config, params, slots, config.put(KEY.reshape(-1)), *arrays)


@pytest.mark.slow
def test_a_prompt_is_copied_to_its_group_without_a_copy_for_each_beside_the_cache():
    policy = Policy(preset("tiny", vocab_size=48, width=32, layers=2, heads=8, kv_heads=8, head_dim=64, ffn=32))
    params = policy.init(rng.key(0, "init"))
    config = SamplerConfig(slots=32, group=8, prompt_length=512, new_tokens=64, admit=4, segment=8, stop_tokens=STOP)
    (slots, eight), (_, one) = (compile_admission(policy, config, params, 512, group) for group in (8, 1))
    prompts = sum(a.nbytes for a in jax.tree.leaves(slots.cache)) * 4 // config.slots
    eight, one = (program.memory_analysis().temp_size_in_bytes for program in (eight, one))
    assert eight - one < prompts  # and not seven times that


def test_no_requests_give_no_completions(run):
    assert run(WIDE, []) == {}


@pytest.mark.parametrize(
    "request_, message",
    [
        (Request([5] * 9, row=7), "row 7: prompt of 9 tokens; expected 1 to 8"),
        (Request([5] * 16, row=7, new_tokens=5), "row 7: prompt of 16 tokens; expected 1 to 15"),
        (Request([], row=7), "row 7: prompt of 0 tokens; expected 1 to 8"),
        (Request([5], row=0, new_tokens=13), "row 0: 13 new tokens; expected 1 to 12"),
        (Request([5], row=0, count=5), "row 0: count 5; expected 1 to 4"),
    ],
)
def test_requests_that_do_not_fit_are_refused_by_row(request_, message):
    with pytest.raises(ValueError, match=message):
        RequestQueue([request_]).take(16, WIDE)


def test_shapes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="a group of 4 rollouts does not fit"):
        dataclasses.replace(WIDE, slots=3)
    with pytest.raises(ValueError, match=r"slots = 12 does not divide over 8 devices"):
        dataclasses.replace(WIDE, slots=12, sharding=rows(make_mesh(8, 1, 1)))


def on_mesh(policy, params, shape, layout):
    """Returns a policy on a mesh, the sampler's shape and its parameters."""
    mesh = make_mesh(*shape)
    policy = dataclasses.replace(policy, rows=rows(mesh), decode_attention=layout)
    placed = jax.device_put(params, shardings(params, mesh))
    return policy, dataclasses.replace(WIDE, sharding=rows(mesh)), sampler_params_of(policy, placed, mesh)


@pytest.mark.slow
@pytest.mark.parametrize("shape, layout", [((8, 1, 1), "blocks"), ((2, 2, 2), "blocks"), ((2, 2, 2), "xla")])
def test_same_tokens_on_every_mesh(policy, params, sampled, shape, layout):
    requests = make_requests([3, 8, 5], [4, 4, 4], temperature=0.0)
    policy, config, both = on_mesh(policy, params, shape, layout)
    done = complete(policy, config, both, requests, KEY)
    assert {c.request.row + c.index: c.tokens.tolist() for c in done} == sampled(WIDE, requests)


@pytest.fixture(scope="module")
def admission(policy, params):
    """The compiled admission of eight prompts of 128 tokens on eight devices that each hold an eighth of the weights."""
    mesh = make_mesh(1, 8, 1)
    split = dataclasses.replace(policy, rows=rows(mesh))
    config = dataclasses.replace(WIDE, slots=32, prompt_length=128, admit=8, sharding=rows(mesh))
    return compile_admission(split, config, jax.device_put(params, shardings(params, mesh)), 128, 4)


def device_bytes(slots):
    return sum(a.addressable_shards[0].data.nbytes for a in jax.tree.leaves(slots))


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["blocks", "xla"])
def test_decoding_on_a_mesh_exchanges_activations_only_and_updates_the_cache_in_place(policy, params, layout):
    """Rows on four devices, heads on two; the smallest weight has 32 x 16 entries on a device."""
    policy, config, both = on_mesh(policy, params, (2, 2, 2), layout)
    slots = transitions.empty_slots(policy, config)
    transitions.resize_cache(config, slots, config.length)
    cache = sum(a.addressable_shards[0].data.nbytes for a in jax.tree.leaves(slots.cache))
    assert cache == sum(a.nbytes for a in jax.tree.leaves(slots.cache)) // 8
    leaves, structure = jax.tree.flatten((slots, both.decoding, config.put(np.int32(0))))

    def decode(*leaves):  # the annotated types are checked, so shapes cannot be lowered in place of arrays
        slots, decoding, max_active = jax.tree.unflatten(structure, leaves)
        return transitions.decode(policy, config, decoding, slots, max_active)

    donated = range(len(jax.tree.leaves(slots)))
    program = jax.jit(decode, donate_argnums=donated).lower(*leaves).compile()
    assert program.memory_analysis().alias_size_in_bytes > cache
    assert 0 < max(collectives(program)) < 32 * 16


@pytest.mark.slow
def test_a_device_prefills_its_own_prompts(admission):
    """Weights are gathered; no activations are added up over devices, only the logits of the first tokens."""
    assert max(collectives(admission[1], "all-reduce")) <= 8 * 48


@pytest.mark.slow
def test_keys_and_values_of_prompts_are_gathered_once(policy, admission):
    prompts = 8 * 128 * policy.architecture.kv_heads * policy.architecture.head_dim
    gathered = collectives(admission[1], "all-gather")
    assert max(gathered) == prompts
    assert gathered.count(prompts) == 4  # the keys and the values of two layers


@pytest.mark.slow
def test_admission_and_decoding_update_the_state_in_place(policy, params, admission):
    """On a mesh that splits heads too, where XLA chose another sharding for the cache that decoding returned."""
    slots, program = admission
    assert program.memory_analysis().alias_size_in_bytes == device_bytes(slots)
    mesh = make_mesh(1, 4, 2)
    config, split = (dataclasses.replace(WIDE, sharding=rows(mesh)), dataclasses.replace(policy, rows=rows(mesh)))
    decoding = jax.jit(policy.for_decoding)(jax.device_put(params, shardings(params, mesh, over=("tensor",))))
    slots = widest_slots(split, config)
    program = compiled(transitions.decode, split, config, decoding, slots, config.put(np.int32(0)))
    assert program.memory_analysis().alias_size_in_bytes == device_bytes(slots)
