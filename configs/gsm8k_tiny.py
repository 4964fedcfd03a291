"""Real GSM8K rows, tokenizer and chat template with a random Qwen3 of five million parameters: a template for your own rows.

It shows that everything runs, and cannot learn (a random model earns no reward).

Command:   python -m amrsd_jax.main --config=configs/gsm8k_tiny.py --workdir=runs/gsm8k_tiny \
             --config.task.args.folder=DATA/gsm8k --config.tokenizer=path/to/qwen3-tokenizer
Hardware:  two CPU cores, under 4 GiB.

The folder has train.jsonl and test.jsonl of openai/grade-school-math. Any other JSON-lines file works if `task.args` names its
columns (docs/add_a_task.md). The tokenizer is a folder or hub id with a chat template.
"""

from amrsd_jax import config as configuration


def get_config():
    config = configuration.base()
    config.steps = 2
    config.task.name = "rows"
    config.task.args.update(train="train.jsonl", test="test.jsonl", answer_after="####")
    config.chat_template.enable_thinking = False
    config.model = "qwen3-5m"

    config.rollout.update(prompts=4, group=4, prompt_length=256, response_length=64, slots=16, admit=4)
    config.reflection.update(prompt_length=512, tokens=48, context_length=384, slots=16, admit=4)
    config.credit.exact_savings = False  # no reward, no advantage: without this no row would be reflected on
    config.scoring.update(rows=8, chunk=512)
    config.evaluation.problems = 16
    return config
