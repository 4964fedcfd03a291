"""Computes log-probabilities of given responses under any policy, in chunks, so that no [N, T, V] array exists."""

import functools
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PyTree, Shaped

from amrsd_jax.policy import Params


@runtime_checkable
class Model(Protocol):
    """A model that can score responses: a policy, or a blend of two."""

    def forward(self, params: Params, tokens: Integer[Array, "N S"]) -> Float[Array, "N S D"]:
        """Returns the hidden states."""

    def logits(self, params: Params, hidden: Float[Array, "*n D"]) -> Float[Array, "*n V"]:
        """Returns the logits of hidden states."""


def concatenate(
    prompt: Integer[Array, "N P"],
    prompt_length: Integer[Array, " N"],
    response: Integer[Array, "N T"],
    width: int | None = None,
) -> Integer[Array, "N S"]:
    """Returns rows of prompt and response without a gap, right-padded to S = `width` >= P tokens; by default P + T.

    Student and teacher pass the same `response` array with different prompts, so their tokens are aligned by construction.
    """
    width = width or prompt.shape[1] + response.shape[1]
    index = jnp.arange(width) - prompt_length[:, None]  # position in the response
    from_prompt = jnp.pad(prompt, ((0, 0), (0, width - prompt.shape[1])))
    from_response = jnp.take_along_axis(response, jnp.clip(index, 0, response.shape[1] - 1), axis=1)
    return jnp.where(index < 0, from_prompt, from_response)


def response_states(
    policy: Model,
    params: Params,
    prompt: Integer[Array, "N P"],
    prompt_length: Integer[Array, " N"],
    response: Integer[Array, "N T"],
    width: int | None = None,
) -> Float[Array, "N T D"]:
    """Returns the hidden state that predicts each response token; arguments as in `token_logprobs`."""
    hidden = policy.forward(params, concatenate(prompt, prompt_length, response, width))
    before = prompt_length[:, None] - 1 + jnp.arange(response.shape[1])
    before = jnp.minimum(before, hidden.shape[1] - 1)  # padding of a response may lie beyond a narrow row
    return jnp.take_along_axis(hidden, before[:, :, None], axis=1)


def token_logprobs(
    policy: Model,
    params: Params,
    prompt: Integer[Array, "N P"],
    prompt_length: Integer[Array, " N"],
    response: Integer[Array, "N T"],
    *,
    temperature: float,
    chunk: int,
    width: int | None = None,
) -> tuple[Float[Array, "N T"], Float[Array, "N T"]]:
    """Returns log pi(y_t | prompt, y_<t) of every response token, and the entropy of its distribution (nats).

    Args:
      policy, params: the language model.
      prompt, prompt_length: right-padded prompts and their lengths, at least 1.
      response: right-padded responses; values at padding are finite and meaningless.
      temperature: logits are divided by it; the temperature at which the responses were sampled.
      chunk: tokens whose logits exist at one time; memory grows with it, the result does not change.
      width: padded length of prompt and response together; None stands for P + T.
    """
    hidden = response_states(policy, params, prompt, prompt_length, response, width)
    return project(policy, params, hidden, response, temperature=temperature, chunk=chunk)


def project(
    policy: Model,
    params: Params,
    hidden: Float[Array, "N T D"],
    targets: Integer[Array, "N T"],
    *,
    temperature: float = 1.0,
    chunk: int,
) -> tuple[Float[Array, "N T"], Float[Array, "N T"]]:
    """Returns log-probabilities of targets, and entropies (nats), from hidden states, `chunk` tokens at a time."""
    return over_chunks(
        lambda h, y: target_logprobs(policy.logits(params, h) / temperature, y), hidden, targets, chunk=chunk
    )


def target_logprobs(
    logits: Float[Array, "*n V"], targets: Integer[Array, "*n"]
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """Returns the log-probability of each target, and the entropy of its distribution (nats)."""
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    logprobs = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0] - normaliser
    mean_logit = jnp.sum(jnp.exp(logits - normaliser[..., None]) * logits, axis=-1)
    return logprobs, normaliser - mean_logit


def over_chunks(
    function: Callable[..., PyTree[Float[Array, "N C"]]], *arrays: Shaped[Array, "N T ..."], chunk: int
) -> PyTree[Float[Array, "N T"]]:
    """Applies a function to about `chunk` tokens of the arrays at a time, and concatenates the results.

    Chunks are cut along T, at least one token of every row, so that rows keep their place on the mesh. Each chunk is
    rematerialised in the backward pass, and gradients of the values that the function closes over are accumulated in their own
    precision.
    """
    rows, length = arrays[0].shape[:2]
    columns = max(1, min(length, chunk // rows))
    chunks = -(-length // columns)
    padding = chunks * columns - length

    def split(a):
        a = jnp.pad(a, ((0, 0), (0, padding)) + ((0, 0),) * (a.ndim - 2))
        return a.reshape(rows, chunks, columns, *a.shape[2:]).swapaxes(0, 1)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def apply(_, inputs):
        return None, function(*inputs)

    _, results = jax.lax.scan(apply, None, tuple(map(split, arrays)))
    return jax.tree.map(lambda a: a.swapaxes(0, 1).reshape(rows, -1)[:, :length], results)
