"""Log-probabilities of given responses, for student, teacher and reference policy alike; never forms [N, T, V]."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from amrsd_jax.policy import Params, Policy


def join(
    prompt: Integer[Array, "N P"], prompt_length: Integer[Array, " N"], response: Integer[Array, "N T"]
) -> Integer[Array, "N S"]:
    """Rows of prompt and response without a gap, right-padded to S = P + T.

    Student and teacher pass the same `response` array with different prompts, so their tokens are aligned by construction.
    """
    index = jnp.arange(prompt.shape[1] + response.shape[1]) - prompt_length[:, None]  # position in the response
    from_prompt = jnp.pad(prompt, ((0, 0), (0, response.shape[1])))
    from_response = jnp.take_along_axis(response, jnp.clip(index, 0, response.shape[1] - 1), axis=1)
    return jnp.where(index < 0, from_prompt, from_response)


def token_logprobs(
    policy: Policy,
    params: Params,
    prompt: Integer[Array, "N P"],
    prompt_length: Integer[Array, " N"],
    response: Integer[Array, "N T"],
    *,
    temperature: float,
    chunk: int,
) -> tuple[Float[Array, "N T"], Float[Array, "N T"]]:
    """log pi(y_t | prompt, y_<t) of every response token, and the entropy of its distribution (nats).

    Args:
      policy, params: the language model.
      prompt, prompt_length: right-padded prompts and their lengths, at least 1.
      response: right-padded responses; values at padding are finite and meaningless.
      temperature: logits are divided by it; the temperature that the responses were sampled at.
      chunk: tokens whose logits exist at one time; memory grows with it, the result does not change.
    """
    hidden = policy.forward(params, join(prompt, prompt_length, response))
    before = prompt_length[:, None] - 1 + jnp.arange(response.shape[1])  # the state that predicts each token
    hidden = jnp.take_along_axis(hidden, before[:, :, None], axis=1)
    return project(policy, params, hidden, response, temperature=temperature, chunk=chunk)


def project(
    policy: Policy,
    params: Params,
    hidden: Float[Array, "N T D"],
    targets: Integer[Array, "N T"],
    *,
    temperature: float = 1.0,
    chunk: int,
) -> tuple[Float[Array, "N T"], Float[Array, "N T"]]:
    """Log-probabilities of targets and entropies from hidden states, `chunk` tokens at a time.

    Chunks run along T, so that rows stay where they are on the mesh. Each chunk is rematerialised in the backward pass,
    and gradients of the head add up in float32.
    """
    rows, length = targets.shape
    columns = max(1, min(length, chunk // rows))
    pieces = -(-length // columns)
    spare = pieces * columns - length

    def split(a):
        a = jnp.pad(a, ((0, 0), (0, spare)) + ((0, 0),) * (a.ndim - 2))
        return a.reshape(rows, pieces, columns, *a.shape[2:]).swapaxes(0, 1)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def piece(_, inputs):
        h, y = inputs
        logits = policy.logits(params, h) / temperature
        normaliser = jax.nn.logsumexp(logits, axis=-1)
        logp = jnp.take_along_axis(logits, y[..., None], axis=-1)[..., 0] - normaliser
        mean_logit = jnp.sum(jnp.exp(logits - normaliser[..., None]) * logits, axis=-1)
        return None, (logp, normaliser - mean_logit)

    _, results = jax.lax.scan(piece, None, (split(hidden), split(targets)))
    logp, entropy = (a.swapaxes(0, 1).reshape(rows, -1)[:, :length] for a in results)
    return logp, entropy
