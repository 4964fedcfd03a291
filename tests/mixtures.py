"""A mixture to test with: two sets of rows, each with a verifier of its own that a random policy sometimes satisfies."""

import json

from amrsd_jax.policy.tokenizer import embedded_tokenizer
from tests.tiny import tiny_config

VERIFIERS = '''
from amrsd_jax.problems import Verdict

SCORES = ("letters",)


def short(problem, response):
    """Accepts a response with at most as many letters as the row says."""
    letters = sum(character.isalpha() for character in response)
    return Verdict(float(letters <= problem.row["most"]), problem.data_set, str(letters), True, {"letters": letters})
'''
EVEN = "def even(problem, response):\n    return float(len(response) % 2 == 0)\n"


def mixture_config(folder, **fields):
    """Writes the files of a mixture to a folder, and returns the config of a run of four steps on it, with fields set."""
    (folder / "short.py").write_text(VERIFIERS)
    (folder / "even.py").write_text(EVEN)
    for name, count in (("few", 4), ("many", 9)):
        rows = [{"question": f"{name} {i}", "answer": str(i), "most": 14 + i} for i in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    embedded_tokenizer(["few", "many"]).save_pretrained(folder / "tokenizer")

    config = tiny_config(warmup__documents=0, tokenizer=str(folder / "tokenizer"), **fields)
    config.architecture.update(width=16, heads=1, kv_heads=1, head_dim=16, ffn=16, vocab_size=128)
    config.rollout.prompt_length, config.reflection.prompt_length, config.reflection.context_length = 48, 600, 160
    config.credit.rule = "amrsd"
    config.evaluation.update(problems=0, samples=2)
    with config.unlocked():
        config.task.name = "mixture"
        config.task.args = {
            "short": dict(
                share=3, name="mathematics", args=arguments(folder, "many", "short"), templates={"solve": "{question}"}
            ),
            "even": dict(
                share=1, name="choice", args=arguments(folder, "few", "even"), templates={"system": "Be even."}
            ),
        }
    return config


def arguments(folder, rows, verifier):
    """Returns the arguments of a set that trains and tests on the same rows."""
    return dict(
        folder=str(folder), train=f"{rows}.jsonl", test=f"{rows}.jsonl", verifier=f"{folder}/{verifier}.py:{verifier}"
    )
