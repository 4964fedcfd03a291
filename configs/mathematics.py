"""AMR-SD, or another method, on competition mathematics: DAPO-Math, a part of DeepScaleR's set, or MATH for training.

Command:   python -m amrsd_jax.main --config=configs/mathematics.py --workdir=runs/mathematics
           ... --config=configs/mathematics.py:dsr_sub,sdpo     other rows (TRAIN), a method of configs/methods.py
           ... --config.model=Qwen/Qwen3-1.7B                   or Qwen/Qwen3-4B, Qwen/Qwen2.5-7B-Instruct
           ... --config.task.args.train=DATA/dsr_sub.jsonl      those rows, on this machine
           ... --config.chat_template.enable_thinking=False
Hardware:  eight accelerators of 80 GB (--config.mesh.fsdp).
Memory:    43 GiB on each, with SDPO 47, as estimated by `python -m amrsd_jax.plan --devices=8 --memory_gib=80`; slices of TPUs
           and their meshes: docs/scaling.md.

Thinking is on: AMR-SD is reported, as quoted by others, not to beat GRPO with Qwen3-8B without thinking. No public source says on
which rows its authors trained, for how long and with which learning rate: these are our choice, see also configs/benchmark.py.
AIME 2024 is evaluated every 5 steps; AIME 2025, AMC 2023, HMMT of February 2025, MATH-500, Minerva and OlympiadBench (TEST)
before and after. Rows without an answer are skipped and listed. Column names are those of the sources' cards.
"""

from configs.benchmark import benchmark, choose

_COMMITS = {
    "ypwang61/One-Shot-RLVR": "21ed529ec90002597c92aee957af1dd8166bb66c",
    "agentica-project/deepscaler": "95ef74ffee001cce89463f2d61dfdce1d03576c1",
}


def _github(repository: str, path: str) -> str:
    return f"https://raw.githubusercontent.com/{repository}/{_COMMITS[repository]}/{path}"


TRAIN = {  # URI of the rows, and their columns of question and answer
    "dapo_math": (
        "hub:open-r1/DAPO-Math-17k-Processed?name=en&split=train",
        "prompt",
        "reward_model.ground_truth",
    ),
    "dsr_sub": (
        _github("ypwang61/One-Shot-RLVR", "data/train/one_shot_rlvr/dsr_sub.parquet"),
        "prompt.0.content",
        "reward_model.ground_truth",
    ),
    "math_train": (
        _github("agentica-project/deepscaler", "deepscaler/data/train/math.json"),
        "problem",
        "answer",
    ),
}
TEST = {  # as TRAIN
    "aime24": ("hub:HuggingFaceH4/aime_2024?split=train", "problem", "answer"),
    "aime25": ("hub:math-ai/aime25?split=test", "problem", "answer"),
    "amc23": ("hub:math-ai/amc23?split=test", "question", "answer"),
    "hmmt25": ("hub:MathArena/hmmt_feb_2025?split=train", "problem", "answer"),
    "math500": ("hub:HuggingFaceH4/MATH-500?split=test", "problem", "answer"),
    "minerva": ("hub:math-ai/minervamath?split=test", "question", "answer"),
    "olympiadbench": ("hub:math-ai/olympiadbench?split=test", "question", "final_answer"),
}


def get_config(argument: str = ""):
    rows, method = choose(argument, TRAIN, default="dapo_math")
    config = benchmark(method, solutions=False)
    config.chat_template.enable_thinking = True
    train, question, answer = TRAIN[rows]
    config.task.name = "mathematics"
    config.task.args.update(
        train=train,
        test=TEST["aime24"][0],
        question=f"{question}|problem",
        answer=f"{answer}|answer",
        unanswered="skip",
    )
    config.evaluation.benchmarks = {
        name: dict(task=dict(name="mathematics", args=dict(test=test, question=question, answer=answer)), every=0)
        for name, (test, question, answer) in TEST.items()
        if name != "aime24"
    }
    return config
