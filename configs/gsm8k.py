"""AMR-SD, or another method, on GSM8K, whose rows have worked solutions: the smallest of the mathematics experiments.

Command:   python -m amrsd_jax.main --config=configs/gsm8k.py --workdir=runs/gsm8k
           ... --config=configs/gsm8k.py:sdpo                a method of configs/methods.py
           ... --config.model=Qwen/Qwen3-1.7B                or Qwen/Qwen3-4B, Qwen/Qwen2.5-7B-Instruct
           ... --config.task.args.folder=DATA/math/gsm8k     its train.jsonl and test.jsonl, on this machine
           ... --config.chat_template.enable_thinking=True
Hardware:  eight accelerators of 80 GB (--config.mesh.fsdp); smaller machines: docs/benchmarks.md.
Memory:    43 GiB on each, with SDPO 47, as estimated by `python -m amrsd_jax.plan --devices=8 --memory_gib=80`; slices of TPUs
           and their meshes: docs/scaling.md.

Rows are those of openai/grade-school-math (MIT): 7,473 of train, 1,319 of test; `hub:openai/gsm8k?name=main&split=train` has
the same. No compared method publishes results on it: the set-up is that of configs/benchmark.py, whose 8,192 tokens per response
are more than these problems need (`--config.rollout.response_length`), and evaluations: every 25 steps one sampled and one greedy
answer to each test row, because 17 every 5 steps would be eighteen times the training rollouts.
"""

from configs.benchmark import benchmark, choose

PUBLISHED = "https://raw.githubusercontent.com/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c/grade_school_math/data"


def get_config(argument: str = ""):
    _, method = choose(argument)
    config = benchmark(method, solutions=True)
    config.task.name = "mathematics"
    config.task.args.folder = PUBLISHED
    config.task.args.update(train="train.jsonl", test="test.jsonl", answer_after="####")
    config.evaluation.update(every=25, samples=1)
    return config
