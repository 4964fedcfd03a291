"""Published cases of chat templates, stop ids, context length and the text of tokens."""

import datetime
import json
import shutil

import jax
import numpy as np
import pytest

from amrsd_jax import rng
from amrsd_jax.experiment import make_experiment
from amrsd_jax.learning.state import init_params
from amrsd_jax.policy import huggingface, preset
from amrsd_jax.policy.architecture import change
from amrsd_jax.policy.chat_template import CHATML
from amrsd_jax.policy.tokenizer import chat_ids, check_template, load_tokenizer, token_texts
from amrsd_jax.records import Request
from amrsd_jax.reflection.prompts import templates
from amrsd_jax.sampling import complete
from amrsd_jax.sections import ConfigError
from amrsd_jax.validate import validate
from configs import gsm8k_tiny, quickstart_grpo
from tests.conftest import DATA
from tests.turn2 import cases

KINDS = (
    "chat template",
    "context length",
    "entries beyond the tokenizer",
    "prompts depend on the day",
    "special tokens in content",
    "stop ids",
    "text of single tokens",
)


@pytest.fixture
def qwen3(tmp_path):
    """Returns a function that copies the Qwen3 tokenizer with fields of tokenizer_config.json replaced."""

    def copy(**changes):
        folder = tmp_path / f"tokenizer{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for file in (DATA / "tokenizer" / "qwen3").iterdir():
            shutil.copyfile(file, folder / file.name)
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
        return folder

    return copy


def gsm8k(**fields):
    config = gsm8k_tiny.get_config()
    config.task.args.folder = str(DATA / "math" / "gsm8k")
    with config.unlocked():
        config.update(fields)
    return config


def said(config, workdir, capsys) -> str:
    """Returns what a start says or refuses."""
    try:
        make_experiment(validate(config), workdir)
    except ValueError as error:
        return str(error)
    return "".join(capsys.readouterr())


def model_folder(folder, tokenizer, generation=None, max_positions=32768):
    """Writes a random model's folder with a tokenizer; its weights are not read."""
    architecture = change(preset("qwen3-5m"), max_positions=max_positions)
    shutil.copytree(tokenizer, folder)
    (folder / "config.json").write_text(json.dumps(huggingface.config_json(architecture)))
    if generation:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return str(folder)


def ask(question):
    return [{"role": "user", "content": question}]


@pytest.mark.parametrize("case", cases(KINDS[:1]))
def test_chat_template(case, qwen3, tmp_path, capsys):
    if arguments := case["input"].get("config.chat_template"):
        config = gsm8k(tokenizer=str(qwen3()), chat_template=arguments)
        assert "enable_thinking" in said(config, tmp_path / "run", capsys)
        return
    refusal = case["input"]["chat_template"].removesuffix(" for a system message")
    template = "{% if messages[0]['role'] == 'system' %}" + refusal + "{% endif %}" + CHATML
    tokenizer, texts = load_tokenizer(qwen3(chat_template=template)), templates(case["input"]["task"])
    ids = chat_ids(tokenizer, texts.question_prompt("Which?"))
    assert f"<|im_start|>user\n{texts.system}\n\nWhich?<|im_end|>" in tokenizer.decode(ids)
    assert check_template(tokenizer, {}) == []


@pytest.mark.parametrize("case", cases(KINDS[1:2]))
def test_context_length(case, qwen3, tmp_path, capsys):
    most = case["input"]["max_position_embeddings"]
    config = gsm8k(tokenizer="", model=model_folder(tmp_path / "model", qwen3(), max_positions=most))
    config.rollout.update({name: case["input"][f"rollout.{name}"] for name in ("prompt_length", "response_length")})
    with pytest.raises(
        ConfigError, match=f"{sum(config.rollout[n] for n in ('prompt_length', 'response_length'))}.*{most}"
    ):
        validate(config)


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(KINDS[2:3]))
def test_entries_beyond_the_tokenizer(case, tmp_path):
    config = quickstart_grpo.get_config()
    config.warmup.documents = 0
    config.architecture.update(
        vocab_size=case["input"]["vocab_size"], layers=1, width=32, heads=2, kv_heads=1, head_dim=16, ffn=32
    )
    config.rollout.update(slots=8, group=8, admit=1, prompts=1, response_length=16, segment=16)
    config.learning.minibatches = config.mesh.data = 1
    run = make_experiment(validate(config), tmp_path)
    params = run.sampler_params(init_params(run.policy, jax.random.key(0), run.mesh))
    request = Request(run.prompt_ids(run.task.problem("train", 0)), row=0, count=8)
    done = complete(run.policy, run.samplers["rollout"], params, [request], rng.key(0, "rollout", 0))
    assert max(np.max(completion.tokens) for completion in done) < len(run.tokenizer)


@pytest.mark.parametrize("case", cases(KINDS[3:4]))
def test_the_day(case, qwen3, monkeypatch):
    begin = case["input"]["chat_template"].partition(" ... ")[0].removesuffix(" ...")
    tokenizer, ids = load_tokenizer(qwen3(chat_template=begin + CHATML)), []
    for day in case["input"]["days"]:
        now = datetime.datetime.fromisoformat(day)
        monkeypatch.setattr(
            "transformers.utils.chat_template_utils.datetime", type("", (), {"now": lambda now=now: now})
        )
        ids.append(chat_ids(tokenizer, ask("2+3?")))
    assert ids[0] == ids[1]


@pytest.mark.parametrize("case", cases(KINDS[4:5]))
def test_special_tokens_in_content(case, qwen3):
    tokenizer, question = load_tokenizer(qwen3(chat_template=CHATML)), case["input"]["question"]
    ids = chat_ids(tokenizer, ask(question))
    assert [ids.count(151644), ids.count(151645)] == [2, 1]
    assert tokenizer.decode(ids) == f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("case", cases(KINDS[5:6]))
def test_stop_ids(case, qwen3, tmp_path):
    generation = case["input"]["generation_config.json"]
    config = gsm8k(tokenizer="", model=model_folder(tmp_path / "model", qwen3(), generation))
    run = make_experiment(validate(config), tmp_path / "run")
    assert {sampler.stop_tokens for sampler in run.samplers.values()} == {(151643, 151645)}


@pytest.mark.parametrize("case", cases(KINDS[6:]))
def test_text_of_single_tokens(case, qwen3):
    tokenizer, text = load_tokenizer(qwen3()), case["input"]["text"]
    texts = token_texts(tokenizer, tokenizer.encode(text, add_special_tokens=False))
    assert "".join(texts) == text and "�" not in "".join(texts)
