"""What is measured: sampling, sampling with a long tail, scoring, learning. Random weights and tokens, one device."""

import sys
from collections.abc import Sequence
from types import ModuleType
from unittest import mock

import jax
import numpy as np
import optax

from amrsd_jax import config, lengths, rng
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.batch import micro_batches
from amrsd_jax.learning.optimiser import make_optimizer, make_schedule
from amrsd_jax.learning.step import Objective, init_params, init_state, make_train_step
from amrsd_jax.policy import Architecture, Params, Policy
from amrsd_jax.records import Batch
from amrsd_jax.sampling import Layout, Request, Weights, complete, transitions
from amrsd_jax.scoring import score
from benchmarks import floors
from benchmarks.lengths import LogNormalLengths, log_normal
from benchmarks.measure import Arm, Case

DEFAULTS = config.base()
TAIL = 8  # longest response over the median one
SPREAD = 1.0  # standard deviation of the logarithm of a long-tailed length


def sampling(policy: Policy, peer: ModuleType | None, rows: int, prompt: int, new: int) -> Case:
    """Prompts of one length, a slot for each, `new` tokens from every one."""
    c = policy.architecture
    weights = _weights(policy)
    requests = _requests(c, rows, prompt)
    layout = _layout(rows, prompt, new, admit=rows)
    arms = [_sampler("amrsd_jax", policy, layout, weights, [requests])]
    if peer:
        arms.append(peer.sampling(c, weights.params, requests, new))

    sizes = dict(rows=rows, prompt=prompt, new=new)
    return Case("sampling", "fixed length", sizes, lambda _: floors.sampling(c, **sizes), tuple(arms))


def long_tail(policy: Policy, peer: ModuleType | None, rows: int, slots: int, prompt: int, new: int) -> Case:
    """Log-normal lengths, more prompts than slots: slots refilled as they become free, or batches that wait for their last."""
    del peer  # none refills slots
    c = policy.architecture
    policy = LogNormalLengths(c, prompt=prompt, median=new // TAIL, spread=SPREAD, longest=new)
    weights = _weights(policy)
    requests = _requests(c, rows, prompt)
    layout = _layout(slots, prompt, new, admit=max(1, slots // 4), stop_tokens=(policy.stop,))
    batches = [requests[i : i + slots] for i in range(0, rows, slots)]
    arms = (
        _sampler("continuous", policy, layout, weights, [requests]),
        _sampler("lockstep", policy, layout, weights, batches),
    )

    sizes = dict(rows=rows, slots=slots, prompt=prompt, new=new, median=policy.median, spread=policy.spread)
    return Case("sampling", "long tail", sizes, lambda tokens: floors.long_tail(c, rows, slots, prompt, tokens), arms)


def scoring(policy: Policy, peer: ModuleType | None, rows: int, length: int, together: int) -> Case:
    """Log-probabilities of rows of one prompt token and length - 1 scored ones, `together` rows at a time."""
    c = policy.architecture
    given = _given(c, 1, np.full(rows, length - 1), length - 1)
    params = init_params(policy, _key(), _mesh())
    arms = [_scorer("amrsd_jax", policy, params, given, together)]
    if peer:
        arms.append(_peer_scorer(peer, policy, params, given, together))
    sizes = dict(rows=rows, length=length, together=together)
    return Case("scoring", "forward", sizes, lambda _: floors.scoring(c, [length] * rows), tuple(arms))


def scoring_tail(policy: Policy, peer: ModuleType | None, rows: int, prompt: int, longest: int, together: int) -> Case:
    """Responses of log-normal lengths: rows as wide as their length asks for, or all padded to the longest."""
    c = policy.architecture
    tokens = log_normal(rows, longest // TAIL, SPREAD, longest)
    given = _given(c, prompt, tokens, longest)
    params = init_params(policy, _key(), _mesh())
    arms = [_scorer(name, policy, params, given, together) for name in ("amrsd_jax", "padded")]
    if peer:
        arms.append(_peer_scorer(peer, policy, params, given, together))
    sizes = dict(rows=rows, prompt=prompt, longest=longest, together=together)
    return Case("scoring", "long tail", sizes, lambda _: floors.scoring(c, prompt + tokens), tuple(arms))


def learning(policy: Policy, peer: ModuleType | None, rows: int, length: int) -> Case:
    """One clipped policy-gradient update with float32 masters, AdamW and clipping."""
    c = policy.architecture
    given = _given(c, 1, np.full(rows, length - 1), length - 1)
    arms = [_learner("amrsd_jax", policy, given, 1)]
    if peer:
        arms.append(_peer_learner(peer, policy, given, 1))
    sizes = dict(rows=rows, length=length)
    return Case("learning", "update", sizes, lambda _: floors.learning(c, [length] * rows), tuple(arms))


def learning_tail(policy: Policy, peer: ModuleType | None, rows: int, prompt: int, longest: int, pieces: int) -> Case:
    """The same on responses of log-normal lengths, in micro-batches: sorted by length and cut, or padded to the longest."""
    c = policy.architecture
    tokens = log_normal(rows, longest // TAIL, SPREAD, longest)
    given = _given(c, prompt, tokens, longest)
    arms = [_learner(name, policy, given, pieces) for name in ("amrsd_jax", "padded")]
    if peer:
        arms.append(_peer_learner(peer, policy, given, pieces))
    sizes = dict(rows=rows, prompt=prompt, longest=longest, micro_batches=pieces)
    return Case("learning", "long tail", sizes, lambda _: floors.learning(c, prompt + tokens), tuple(arms))


# ---------------------------------------------------------------- how they are run


def _sampler(name: str, policy: Policy, layout: Layout, weights: Weights, batches: Sequence[list[Request]]) -> Arm:
    """Samples batches of requests one after the other."""

    def run() -> int:
        return sum(len(c.tokens) for requests in batches for c in complete(policy, layout, weights, requests, _key()))

    def programs():
        slots = transitions.empty(policy, layout)
        transitions.widen(layout, slots, layout.length)
        return [transitions.decode.lower(policy, layout, weights.decoding, slots, np.int32(0)).compile()]

    return Arm(name, run, programs)


def _scorer(name: str, policy: Policy, params: Params, given: Batch, together: int) -> Arm:
    """Scores rows; the arm `padded` knows one width only."""
    arrays = (given.prompt, given.prompt_length, given.response, given.mask)
    how = dict(temperature=1.0, chunk=DEFAULTS.scoring.chunk)

    def run() -> int:
        with _widths(name):
            score.score_rows(policy, params, *arrays, rows=together, sharding=meshes.rows(_mesh()), **how)
        return _count(given)

    def programs():
        with _widths(name):
            (widest, _), *_ = micro_batches(given, None, len(given.mask))
        piece = (widest.prompt, widest.prompt_length, widest.response)
        piece = [jax.ShapeDtypeStruct((together, *a.shape[1:]), a.dtype) for a in piece]
        return [score._scorer.lower(policy, params, *piece, **how, width=widest.width).compile()]

    return Arm(name, run, programs)


def _peer_scorer(peer: ModuleType, policy: Policy, params: Params, given: Batch, together: int) -> Arm:
    weights = _rounded(policy, params)
    return peer.scoring(policy.architecture, weights, given.prompt, given.response, together, _count(given))


def _learner(name: str, policy: Policy, given: Batch, pieces: int) -> Arm:
    """Updates on the rows in so many pieces; the arm `padded` knows one width only."""
    mesh = _mesh()
    schedule, optimizer = _optimizer()
    loss = DEFAULTS.loss
    objective = Objective(
        ratio=loss.ratio, clip_low=loss.clip_low, clip_high=loss.clip_high, reduction=loss.reduction,
        constant_length=None, kl=0.0, entropy=0.0, importance_cap=None, temperature=1.0, chunk=DEFAULTS.scoring.chunk,
        micro_batches=pieces,
    )  # fmt: skip
    step = make_train_step(policy, optimizer, schedule, objective, mesh)
    state = init_state(policy, optimizer, init_params(policy, _key(), mesh), mesh)

    def run() -> int:
        nonlocal state  # donated
        with _widths(name):
            state, _ = jax.block_until_ready(step(state, given))
        return _count(given)

    def programs():
        with _widths(name):
            widest, *_ = step.cut(given)
        if pieces == 1:
            return [step.once.lower(state, None, widest).compile()]
        return [step.add.lower(state.params, state, None, widest).compile()]

    return Arm(name, run, programs)


def _peer_learner(peer: ModuleType, policy: Policy, given: Batch, pieces: int) -> Arm:
    params = init_params(policy, _key(), _mesh())
    _, optimizer = _optimizer()
    return peer.learning(
        policy.architecture, params, given, optimizer, pieces, DEFAULTS.loss.clip_low, tokens=_count(given)
    )


def _optimizer() -> tuple[optax.Schedule, optax.GradientTransformation]:
    schedule = make_schedule(learning_rate=1e-6, schedule="constant", warmup_updates=0, total_updates=1)
    return schedule, make_optimizer(schedule, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.0, clip_norm=1.0)


def _widths(name: str):
    """Within it rows have the widths of the arm: buckets of their length, or one that holds the longest."""
    least = sys.maxsize if name == "padded" else lengths.LEAST
    return mock.patch.object(lengths, "LEAST", least)


def _layout(slots: int, prompt: int, new: int, *, admit: int, stop_tokens: tuple[int, ...] = ()) -> Layout:
    return Layout(slots, 1, prompt, new, admit=admit, segment=DEFAULTS.rollout.segment, stop_tokens=stop_tokens)


_rounded = jax.jit(Policy.rounded, static_argnums=0)
_for_decoding = jax.jit(Policy.for_decoding, static_argnums=0)


def _weights(policy: Policy) -> Weights:
    params = _rounded(policy, init_params(policy, _key(), _mesh()))
    return Weights(params, _for_decoding(policy, params))


def _mesh() -> jax.sharding.Mesh:
    return meshes.make_mesh(1, 1, 1)


def _key() -> jax.Array:
    return rng.key(0, "benchmark")


def _tokens(c: Architecture, rows: int, length: int) -> np.ndarray:
    """Random ids; 0 and 1 are left to those who need a padding or stop token."""
    return rng.host(0, "benchmark").integers(2, c.vocab_size, (rows, length), np.int32)


def _requests(c: Architecture, rows: int, prompt: int) -> list[Request]:
    return [Request(tokens.tolist(), row=row) for row, tokens in enumerate(_tokens(c, rows, prompt))]


def _given(c: Architecture, prompt: int, sizes: np.ndarray, longest: int) -> Batch:
    """Rows of one prompt length, advantages of either sign, old log-probabilities as of a uniform policy; 0 is padding."""
    rows = len(sizes)
    tokens = _tokens(c, rows, prompt + longest)
    mask = (np.arange(longest) < sizes[:, None]).astype(np.float32)
    old = np.full_like(mask, -np.log(c.vocab_size))
    return Batch(
        prompt=tokens[:, :prompt], prompt_length=np.full(rows, prompt, np.int32),
        response=tokens[:, prompt:] * mask.astype(np.int32), mask=mask,
        logp_sampler=old, logp_old=old, logp_reference=np.zeros_like(old),
        token_advantage=rng.host(0, "benchmark", 1).standard_normal(mask.shape, np.float32),
    )  # fmt: skip


def _count(given: Batch) -> int:
    """Tokens of all rows, without padding."""
    return int(given.prompt_length.sum() + given.mask.sum())
