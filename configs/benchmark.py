"""Makes what configs for public benchmarks share: batch, token budget, optimiser, and a method selected by name.

Published (SDPO's code, its generalization runs): 32 prompts x 8 rollouts per step and one update, prompts of at most 2,048 and
responses of 8,192 tokens, thinking off, no KL, 10 updates of learning-rate warm-up, an evaluation every 5 steps with 16
answers per question at temperature 0.6, top-p 0.95; a teacher's prompt of 10,240 tokens where it holds a solution. Learning
rates: 1e-6 is that of the SDPG, RLSD and RLCSD codes and in SDPO's grid for GRPO; SDPO's own is 1e-5, and 5e-6 OPSD's later
script's.

Our choice: 100 steps, AMR-SD's learning rate (no public source gives it), the other optimiser settings, reflections of at most
128 tokens without thinking, reflection prompts of at most 12,288 tokens, and the division of the work: slots, micro-batches and a
mesh of eight devices that split the parameters (`--config.mesh.fsdp`).
"""

from collections.abc import Iterable

from ml_collections import ConfigDict

from amrsd_jax import config as configuration
from amrsd_jax import credit
from amrsd_jax.names import nearest
from amrsd_jax.reflection.sources import sources_in
from configs.methods import METHODS, use

_SHORT = {
    "none",
    "null",
    "self_reflection",
    "answer",
    "verdict",
    "feedback",
}  # contexts of at most a few hundred tokens
_LEARNING_RATES = {"sdpo": 1e-5, "opsd": 5e-6}


def benchmark(method: str, *, solutions: bool) -> ConfigDict:
    """Returns the shared part of a config with a method of `configs/methods.py`.

    Args:
      solutions: whether the rows have worked solutions. Where they have none, a teacher that would be shown one is shown
        the answer (our choice).
    """
    config = configuration.base()
    config.steps = 100
    config.model = "Qwen/Qwen3-8B"
    config.chat_template.enable_thinking = False
    config.remat = "full"
    config.mesh.fsdp = 8

    config.rollout.update(prompts=32, group=8, prompt_length=2048, response_length=8192, slots=64, admit=8, segment=128)
    config.reflection.update(prompt_length=12_288, tokens=128, slots=32, admit=8)
    config.reflection.chat_template.enable_thinking = False  # thoughts would take all its tokens
    config.scoring.update(rows=16, chunk=2048)
    config.learning.micro_batches = 16
    config.optimizer.update(learning_rate=_LEARNING_RATES.get(method, 1e-6), warmup_updates=10)
    config.evaluation.update(problems=0, samples=16, every=5, temperature=0.6, top_p=0.95)
    config.checkpoint.every = 25
    config.report.rollouts_every = 10
    use(config, method)

    context = config.credit.context or credit.get(config.credit.rule).context
    if context == "reference_solution" and not solutions:
        context = config.credit.context = "answer"
    config.reflection.context_length = 2560 if _SHORT.issuperset(sources_in(context)) else 10_240
    return config


def choose(argument: str, sets: Iterable[str] = (), default: str = "") -> tuple[str, str]:
    """Parses what follows the colon of a config's name, such as `chemistry,sdpo`: a data set and a method, in any order.

    Returns:
      data set, or `default` where none is named; method, "amrsd" where none is.

    Raises:
      ValueError: an unknown name, with the nearest known one, two of a kind, or no data set where there is no default.
    """
    sets, chosen = tuple(sets), {}
    for word in filter(None, argument.split(",")):
        if word not in (*sets, *METHODS):
            raise ValueError(f"{word!r}: {nearest(word, (*sets, *METHODS))}")
        kind = "data set" if word in sets else "method"
        if kind in chosen:
            raise ValueError(f"{argument!r}: {chosen[kind]} and {word} are both given; expected one {kind}")
        chosen[kind] = word
    if sets and not default and "data set" not in chosen:
        raise ValueError(f"{argument!r}: no data set; expected one of {', '.join(sets)}")
    return chosen.get("data set", default), chosen.get("method", "amrsd")
