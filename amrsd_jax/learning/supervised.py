"""Supervised learning from documents, each a prompt and a completion, packed into rows; the loss counts completions only.

A document is learnt, or rehearsed: then the policy is held to its own distribution before the first update, by the KL divergence
from it at every token. To learn a completion that the policy sampled would move the distribution towards that one sample.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Float, Integer

from amrsd_jax import processes
from amrsd_jax.config import OptimizerConfig
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.optimiser import make_optimizer
from amrsd_jax.learning.state import init_state, state_shardings
from amrsd_jax.learning.step import apply_gradients
from amrsd_jax.platforms import row_devices
from amrsd_jax.policy import Params, Policy, lora
from amrsd_jax.scoring.chunks import over_chunks
from amrsd_jax.scoring.divergence import Divergence, divergence
from amrsd_jax.scoring.logprobs import project, target_logprobs
from amrsd_jax.scoring.teachers import copy
from amrsd_jax.sections import ConfigError


class Document(NamedTuple):
    """The token ids of a prompt and of its completion, and whether the completion is rehearsed."""

    prompt: list[int]
    completion: list[int]
    rehearsed: bool = False

    @property
    def size(self) -> int:
        """Number of tokens."""
        return len(self.prompt) + len(self.completion)


class Packed(NamedTuple):
    """Documents packed into rows [R, L].

    Attributes:
      tokens, segments: ids, and the document's number within the row (0 is padding).
      loss_mask, rehearsed: 1 where the loss counts, and where it is that of a rehearsed document.
    """

    tokens: Integer[np.ndarray, "R L"]
    segments: Integer[np.ndarray, "R L"]
    loss_mask: Float[np.ndarray, "R L"]
    rehearsed: Float[np.ndarray, "R L"]


def pack(documents: Iterable[Document], length: int) -> Packed:
    """Packs documents of at most `length` tokens into rows of that length, each into the first open row with room."""
    finished, open_rows = [], []
    for document in documents:
        row = next((row for row in open_rows if row["room"] >= document.size), None)
        if row is None:
            row = {"room": length, "documents": []}
            open_rows.append(row)
        row["room"] -= document.size
        row["documents"].append(document)
        if len(open_rows) > 16:  # close the fullest row
            fullest = min(range(len(open_rows)), key=lambda i: open_rows[i]["room"])
            finished.append(open_rows.pop(fullest))
    rows = finished + open_rows
    tokens, segments = np.zeros((2, len(rows), length), np.int32)
    loss_mask, rehearsed = np.zeros((2, len(rows), length), np.float32)
    for i, row in enumerate(rows):
        end = 0
        for number, document in enumerate(row["documents"], start=1):
            start, middle, end = end, end + len(document.prompt), end + document.size
            tokens[i, start:end] = document.prompt + document.completion
            segments[i, start:end] = number
            loss_mask[i, middle:end], rehearsed[i, middle:end] = 1, document.rehearsed
    return Packed(tokens, segments, loss_mask, rehearsed)


def supervise(
    policy: Policy,
    params: Params,
    packed: Packed,
    mesh: Mesh,
    *,
    place: str,
    rows: int,
    passes: int = 1,
    learning_rate: float,
    b2: float = 0.98,
    generator: np.random.Generator,
    chunk: int,
    progress: Callable[[Iterable], Iterable] = lambda batches: batches,
) -> tuple[Params, list[float]]:
    """Trains a policy on documents; returns its parameters and the loss of each update (nats per token of a completion).

    The loss of a token is its negative log-probability, or where it is rehearsed KL(policy before the first update || policy).

    The learning rate rises linearly over the first twentieth of the updates and falls to 0 as a cosine.

    Args:
      params: all parameters of the policy; those that are trained, all or the adapters, are donated.
      place: section of the config that has `rows` and `learning_rate`, for messages.
      rows: rows per update.
      passes: how often each row is trained on; rows that do not fill the last update are left out.
      generator: makes the order of the rows, another one in each pass.
      chunk: tokens of one device whose logits exist at one time.
      progress: wraps the iteration over batches, to show it.

    Raises:
      ConfigError: the documents fill less than one update, or see `check_finite`.
    """
    order = np.concatenate([generator.permutation(len(packed.tokens)) for _ in range(passes)])
    updates = len(order) // rows
    if not updates:
        raise ConfigError(
            f"{place}.rows = {rows}: all documents fill only {len(order)} rows; expected more documents, or fewer rows per update"
        )
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, updates // 20, updates)
    optimizer = make_optimizer(OptimizerConfig(b2=b2, weight_decay=0.01), schedule)
    state = init_state(policy, optimizer, params, mesh)
    frozen, state = state.frozen, state.replace(frozen=None)
    before = copy(state.params) if packed.rehearsed.any() else None

    def nll_and_kl(logits, logits_before, targets):
        return -target_logprobs(logits, targets)[0], divergence(logits, logits_before, Divergence(alpha=0.0))[0]

    def loss(params, frozen, before, batch):
        tokens, segments, index, counted, rehearsed = batch

        def states(params):
            hidden = policy.forward(params, tokens, segments)
            return jnp.take_along_axis(hidden, jnp.maximum(index - 1, 0)[..., None], axis=1)

        trees = [lora.combine(frozen, trained) for trained in (params, before) if trained is not None]
        models = [(policy, tree, states(tree)) for tree in trees]
        targets = jnp.take_along_axis(tokens, index, axis=1)
        if before is None:
            value = -project(*models[0], targets, chunk=chunk)[0]
        else:
            nll, kl = over_chunks(nll_and_kl, models, targets, chunk=chunk)
            value = jnp.where(rehearsed > 0, kl, nll)
        return jnp.sum(value * counted) / jnp.maximum(jnp.sum(counted), 1)

    def step(state, frozen, before, batch):
        value, grads = jax.value_and_grad(loss)(state.params, frozen, before, batch)
        state, health = apply_gradients(optimizer, state, grads)
        return state, value, health["skipped"]

    everywhere = meshes.replicated(mesh)
    split = everywhere if rows % row_devices(mesh) else meshes.rows(mesh)
    out = (state_shardings(policy, optimizer, mesh), everywhere, everywhere)
    step = jax.jit(step, donate_argnums=0, out_shardings=out)
    arrays, done = (packed.tokens, packed.segments, *counted_tokens(packed)), []
    for chosen in progress(order[: updates * rows].reshape(updates, rows)):
        batch = tuple(values[chosen] for values in arrays)
        state, *result = step(state, frozen, before, processes.put(batch, split))
        jax.block_until_ready(done[-1:])  # one update ahead: progress is true, and a signal ends the phase soon
        done.append(result)
    losses, skipped = zip(*jax.device_get(done), strict=True)
    losses = [float(value) for value in losses]
    check_finite(losses, len(losses) - int(sum(skipped)), f"{place}.learning_rate = {learning_rate}")
    return lora.combine(frozen, state.params), losses


def counted_tokens(
    packed: Packed,
) -> tuple[Integer[np.ndarray, "R C"], Float[np.ndarray, "R C"], Float[np.ndarray, "R C"]]:
    """Returns the indices in each row of the tokens that the loss counts, and the two masks there; C is the most in a row.

    Most tokens of a row belong to prompts, and the logits before them would be computed in vain.
    """
    most = int(packed.loss_mask.sum(axis=1).max())
    index = np.argsort(-packed.loss_mask, axis=1, kind="stable")[:, :most].astype(np.int32)
    return index, *(np.take_along_axis(mask, index, axis=1) for mask in (packed.loss_mask, packed.rehearsed))


def check_finite(losses: Sequence[float], applied: int, field: str) -> None:
    """Raises ConfigError if the last loss is not finite, or if fewer than half of the updates were finite and so applied."""
    if np.isfinite(losses[-1]) and applied >= len(losses) / 2:
        return
    raise ConfigError(
        f"{field}: the loss goes from {losses[0]:.4g} to {losses[-1]:.4g}, and {applied} of {len(losses)} updates are finite; "
        "expected a learning rate with which they stay finite"
    )
