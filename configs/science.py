"""AMR-SD, or another method, on SciKnowEval's multiple-choice questions: biology, chemistry, physics, materials.

Command:   python -m amrsd_jax.main --config=configs/science.py:chemistry --workdir=runs/chemistry
           ... --config=configs/science.py:chemistry,sdpo             a method of configs/methods.py
           ... --config.model=Qwen/Qwen3-1.7B                         or Qwen/Qwen3-4B, Qwen/Qwen2.5-7B-Instruct
           ... --config.task.args.folder=DATA/sciknoweval/chemistry   its train.json and test.json, on this machine
           ... --config.chat_template.enable_thinking=True
Hardware:  eight H100, or a slice of TPUs: v5p:2x2x2, v6e:4x4 (--config.mesh.fsdp=16) or v5e:4x8 (fsdp=8, tensor=4 and
           --config.learning.micro_batches=32), by `python -m amrsd_jax.compile --check` (docs/scaling.md). The published runs
           had four GH200 for about six hours.
Memory:    43 GiB on each, with SDPO 47, as estimated by `python -m amrsd_jax.plan --devices=8 --memory_gib=80`.

Rows, split and system message are those that SDPO published (its repository at the commit below, Apache-2.0; the questions
are SciKnowEval's, MIT): 450, 1,890, 720 and 841 rows of train, 50, 210, 80 and 94 of test. What else is published and what is
ours: configs/benchmark.py. SDPO's own GRPO has `--config.loss.clip_high=0.28 --config.credit.normalize=False`.
"""

from configs.benchmark import benchmark, choose

SCIENCES = {  # name: folder
    "biology": "biology",
    "chemistry": "chemistry",
    "physics": "physics",
    "materials": "material",
}
PUBLISHED = "https://raw.githubusercontent.com/lasgroup/SDPO/0e6d5106abe69f578c63bf38a9394e22905c8773/datasets"
SYSTEM = """
Given a question and four options, please select the right answer. Respond in the following format:
<reasoning>
...
</reasoning>
<answer>
...
</answer>

For the answer, only output the letter corresponding to the correct option (A, B, C, or D), and nothing else. \
Do not restate the answer text. For example, if the answer is "A", just output:
<answer>
A
</answer>
"""


def get_config(argument: str = ""):
    science, method = choose(argument, SCIENCES)
    config = benchmark(method, solutions=False)
    config.task.name = "choice"
    config.task.args.folder = f"{PUBLISHED}/sciknoweval/{SCIENCES[science]}"
    config.task.args.update(train="train.json", test="test.json", question="prompt")
    config.reflection.templates.system = SYSTEM
    return config
