"""Published cases about runs: damaged checkpoints and other rows at a resume."""

import json
import os
import shutil
import signal

import pytest

from amrsd_jax.sections import ConfigError
from amrsd_jax.train import train
from configs import gsm8k_tiny
from tests import runs
from tests.tiny import set_fields
from tests.turn2 import FILE, cases

KINDS = ("resume: damaged newest checkpoint", "resume: other rows")
pytestmark = pytest.mark.slow
FIELDS = dict(
    tokenizer=str(FILE.parents[1] / "data" / "tokenizer" / "qwen3"), steps=4, checkpoint__every=1, checkpoint__keep=3,
    credit__rule="grpo", credit__context="none", rollout__prompts=2, rollout__group=2, rollout__prompt_length=64,
    rollout__response_length=16, rollout__slots=4, rollout__admit=2, rollout__segment=16, evaluation__problems=2,
    evaluation__every=0, scoring__rows=4, scoring__chunk=64, mesh__data=1,
)  # fmt: skip


def write_rows(path, number, question="What is {i}+({i}+1)?"):
    rows = [{"question": question.format(i=i), "answer": str(2 * i + 1)} for i in range(number)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def config(folder):
    return set_fields(gsm8k_tiny.get_config(), task__args__folder=str(folder), task__args__answer_after="", **FIELDS)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """The folder of a run of the cases' command that was interrupted after step 3, and of its rows."""
    if not FILE.exists():
        pytest.skip(f"no cases at {FILE}")
    folder = tmp_path_factory.mktemp("interrupted")
    write_rows(folder / "train.jsonl", 40)
    write_rows(folder / "test.jsonl", 4)
    with pytest.MonkeyPatch.context() as patch:
        runs.after_metrics(patch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert train(config(folder), folder / "run")["steps"] == 3
    return folder


@pytest.mark.parametrize("case", cases(KINDS[:1]))
def test_the_newest_whole_checkpoint_goes_on(case, interrupted, tmp_path, capsys):
    run = shutil.copytree(interrupted / "run", tmp_path / "run")
    assert case["input"]["checkpoints"] == sorted(int(path.name) for path in (run / "checkpoints").iterdir())
    state = run / "checkpoints" / "3" / "state"
    cut = max((path for path in state.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    os.truncate(cut, cut.stat().st_size // 2)
    assert train(config(interrupted), run)["steps"] == 4
    said = capsys.readouterr().err
    damaged, resumed = (said.index(text) for text in ("checkpoint 3 is damaged", "resuming at step 2"))
    assert damaged < resumed and cut.name in said and case["expected"].endswith("exit 0")


@pytest.mark.parametrize("case", cases(KINDS[1:]))
def test_other_rows_are_refused(case, interrupted, tmp_path):
    folder = tmp_path / interrupted.name  # rows are read once per name
    shutil.copytree(interrupted, folder)
    rows = json.loads((folder / "run" / "rows.json").read_text())
    assert rows["task"]["train"]["rows"] == 40 and case["expected"].startswith("refused, or a warning")
    write_rows(folder / "train.jsonl", 17, "What comes after {i}?")
    saved = (folder / "run" / "config.json").read_text().replace(str(interrupted), str(folder))
    (folder / "run" / "config.json").write_text(saved)
    with pytest.raises(ConfigError, match="rows.* are not those .*\n.*task.train.rows: 40 there, 17 here"):
        train(config(folder), folder / "run")
