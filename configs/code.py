"""AMR-SD, or another method, on programs that tests decide on: MBPP, HumanEval or LiveCodeBench, run in a sandbox.

Command:   python -m amrsd_jax.main --config=configs/code.py:mbpp --workdir=runs/mbpp
           ... --config=configs/code.py:lcb,sdpo                a method of configs/methods.py
           ... --config.model=Qwen/Qwen3-1.7B                   or Qwen/Qwen3-4B, Qwen/Qwen2.5-7B-Instruct
           ... --config.task.args.train=DATA/mbpp.jsonl#task_id=601:975   those rows, on this machine
           ... --config.task.args.partial=True                  the reward is the share of tests passed
           ... --config.task.args.show_tests=none               messages quote no test (docs/sandbox.md)
Hardware:  eight accelerators of 80 GB (--config.mesh.fsdp), and bubblewrap on every host.
Memory:    mbpp and humaneval have the shapes of configs/science.py; for lcb with SDPO it was not estimated.

mbpp       trains on tasks 601 to 974 of MBPP (CC BY 4.0) and evaluates 11 to 510, its own split. Questions show all three tests,
           as its authors' prompt does, so a program can answer those alone; `--config.task.args.examples=1` hides two.
humaneval  trains as mbpp does and evaluates HumanEval's 164 functions (MIT), which have no training part: our choice.
lcb        LiveCodeBench from February to April 2025, 131 problems, as in SDPO's rich-feedback runs (arXiv 2601.20802, its code):
           learning rate 1e-6, an update per prompt, top 20, alpha 1, rate 0.01, a failure's message where there is no correct
           sibling, 4 answers per question, 6 s, 1 GB, reward 1 only if all tests pass. They train on half of each problem's
           tests and evaluate on all; here all are in both, since the source has one file. Not run here: the hub was out of reach.

Our choice for mbpp and humaneval: rewards of 1 only if all tests pass, as for lcb; 6 processor seconds, as one solution of MBPP
takes 2.5; evaluations every 25 steps with 4 sampled answers, since 17 answers to 500 questions are as many as the rollouts of 33
steps. The rows of lcb have no program: methods whose teacher would be shown one have SDPO's context. So has CREDIT (arXiv
2605.11613), whose rate is the same. What else is published: configs/benchmark.py.
"""

from amrsd_jax import credit
from configs.benchmark import benchmark, choose

MBPP = "hub:google-research-datasets/mbpp?name=full&split={split}"
HUMANEVAL = "hub:openai/openai_humaneval?split=test"
LCB = "hub:livecodebench/code_generation_lite?split=test&revision=refs/pr/6#contest_date=2025-02-01:2025-05-01"
SETS = {  # rows of train and test
    "mbpp": (MBPP.format(split="train"), MBPP.format(split="test")),
    "humaneval": (MBPP.format(split="train"), HUMANEVAL),
    "lcb": (LCB, LCB),
}
_PROGRAMS = ("answer", "reference_solution", "critic_feedback")  # contexts that need a right program


def get_config(argument: str = ""):
    rows, method = choose(argument, SETS)
    config = benchmark(method, solutions=rows != "lcb")
    config.task.name = "code"
    train, test = SETS[rows]
    config.task.args.update(train=train, test=test, partial=False)
    if rows == "lcb":
        _rich_feedback(config, method)
        config.task.args.answer = ""
    else:
        config.task.args.update(reference="code|canonical_solution", seconds=6, examples=3)
        config.task.args.starter = "prompt|starter_code"
        config.evaluation.update(every=25, samples=4)
    return config


def _rich_feedback(config, method: str) -> None:
    """Applies the settings of SDPO's runs on LiveCodeBench, as far as the method has them."""
    context = config.credit.context or credit.get(config.credit.rule).context
    if context in _PROGRAMS or method in ("sdpo", "credit"):
        config.credit.context = (
            "peer_solution" if method == "cepo" else "peer_solution,feedback"
        )  # against wrong programs
        config.reflection.context_length = 10_240
    if method == "sdpo":
        config.teacher.rate = 0.01
        config.distill.update(top_k=20, alpha=1.0)
        config.learning.update(minibatches=32, micro_batches=1)
    config.optimizer.learning_rate = 1e-6
    config.evaluation.samples = 4
