"""Hugging Face folders: parity with `transformers`, export and import to the bit, and errors that name the file."""

import importlib.util
import json
import shutil

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import AutoConfig

from amrsd_jax import rng
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.policy import Policy, huggingface, preset, tensors
from amrsd_jax.policy.architecture import HUB_PRESETS, change
from amrsd_jax.policy.rope import Llama3Scaling
from amrsd_jax.policy.tokenizer import embedded_tokenizer
from tests.policy import golden

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed: pip install 'amrsd_jax[torch]'"
)
SMALL = preset("tiny", rope_theta=1e6, vocab_size=48, width=32, layers=2, heads=4, kv_heads=2, head_dim=8, ffn=48)


def load(folder, architecture=None, shape=(1, 1, 1)):
    policy = Policy(architecture or huggingface.read_architecture(folder))
    where = meshes.shardings(policy.abstract_params(), meshes.make_mesh(*shape))
    return policy, huggingface.load_params(folder, policy, where)


def logits(policy, params):
    tokens = jnp.asarray(golden.TOKENS, jnp.int32)
    return np.asarray(jax.jit(lambda p: policy.logits(p, policy.forward(p, tokens)))(params))


def golden_folder(family, folder):
    """Writes the checkpoint of the golden logits without PyTorch."""
    architecture = golden.FAMILIES[family]
    shapes = huggingface.tensor_shapes(architecture)
    lazy = {name: tensors.LazyTensor(s, lambda n=name, s=s: golden.values(n, s)) for name, s in shapes.items()}
    tensors.write_folder(folder, lazy, np.dtype(np.float32), 20_000)
    (folder / "config.json").write_text(json.dumps(huggingface.config_json(architecture)))


def same_bits(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x).view(np.uint32), np.asarray(y).view(np.uint32))


@pytest.fixture(scope="module")
def random():
    """Random parameters of a small Qwen3, its norms too."""
    params = jax.jit(Policy(SMALL).init)(rng.key(0, "init"))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(
        structure, [a + 0.1 * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)]
    )


@pytest.fixture(scope="module")
def saved(random, tmp_path_factory):
    """Their folder, in several files."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    huggingface.save_params(folder, SMALL, random, file_bytes=20_000)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to damage."""
    return shutil.copytree(saved, tmp_path / "model")


# ---------------------------------------------------------------- the same model


@needs_torch
@pytest.mark.parametrize("family", golden.FAMILIES)
def test_imported_and_exported_logits_are_those_of_transformers(family, tmp_path):
    golden.torch_checkpoint(family, tmp_path / "theirs", max_shard_size="20KB")
    expected = golden.torch_logits(tmp_path / "theirs")
    policy, params = load(tmp_path / "theirs")
    assert policy.architecture == golden.FAMILIES[family]
    assert np.abs(logits(policy, params) - expected).max() < 1e-4
    huggingface.save_params(tmp_path / "ours", policy.architecture, params)
    np.testing.assert_array_equal(golden.torch_logits(tmp_path / "ours"), expected)


@pytest.mark.parametrize("family", golden.FAMILIES)
def test_logits_are_the_golden_ones(family, tmp_path):
    golden_folder(family, tmp_path)
    expected = json.loads(golden.FILE.read_text())[family]
    assert np.abs(golden.sample(logits(*load(tmp_path))) - expected).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 2), (8, 1, 1)])
def test_import_of_an_export_is_the_same_bits_on_every_mesh(saved, random, shape):
    policy, params = load(saved, shape=shape)
    assert policy.architecture == SMALL
    same_bits(params, random)
    expected = jax.tree.leaves(meshes.shardings(policy.abstract_params(), meshes.make_mesh(*shape)))
    assert [a.sharding for a in jax.tree.leaves(params)] == expected


@pytest.mark.slow
def test_one_file_and_several_hold_the_same(saved, random, tmp_path):
    assert len(list(saved.glob("model-*.safetensors"))) > 2 and (saved / tensors.INDEX).exists()
    huggingface.save_params(tmp_path / "one", SMALL, random)
    assert not (tmp_path / "one" / tensors.INDEX).exists()
    same_bits(load(tmp_path / "one")[1], random)


def test_files_have_the_names_and_shapes_of_transformers(saved, random):
    from safetensors.numpy import load_file

    read = {name: a for file in saved.glob("*.safetensors") for name, a in load_file(file).items()}
    assert {name: a.shape for name, a in read.items()} == huggingface.tensor_shapes(SMALL)
    np.testing.assert_array_equal(read["model.layers.1.mlp.up_proj.weight"], random["layers"]["up"]["kernel"][1].T)


@pytest.mark.slow
def test_bfloat16_weights_become_masters_that_round_to_them(random, tmp_path):
    huggingface.save_params(tmp_path / "half", SMALL, random, dtype="bfloat16")
    policy, params = load(tmp_path / "half")
    assert policy.architecture == change(SMALL, dtype="bfloat16")
    same_bits(params, jax.tree.map(lambda a: a.astype(jnp.bfloat16).astype(jnp.float32), random))


@pytest.mark.slow
def test_a_tied_head_that_is_also_written_must_be_the_embedding(folder, random):
    (folder / tensors.INDEX).unlink()
    for file in folder.glob("*.safetensors"):
        file.unlink()

    def write(head):
        written = huggingface.export_tensors(random, SMALL) | {
            "lm_head.weight": tensors.LazyTensor((48, 32), lambda: head)
        }
        tensors.write_folder(folder, written, np.dtype(np.float32), 1 << 30)

    embedding = np.asarray(random["embed"]["embedding"])
    write(embedding)
    same_bits(load(folder)[1], random)
    write(np.where(np.arange(48)[:, None] == 47, 0.0, embedding))
    with pytest.raises(ValueError, match="lm_head.weight differs from model.embed_tokens.weight"):
        load(folder)


# ---------------------------------------------------------------- config.json


@pytest.mark.parametrize("model", HUB_PRESETS)
def test_published_configs_are_the_presets(model, shared_data, tmp_path):
    published = model.rpartition("/")[2].lower()
    shutil.copy(shared_data / "configs" / f"{published}.json", tmp_path / "config.json")
    assert huggingface.read_architecture(tmp_path) == huggingface.architecture_of(model)


def test_a_known_hub_id_needs_no_hub_but_its_cached_config_comes_first(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda model, **_: asked.append(model) or tmp_path)
    assert huggingface.architecture_of("Qwen/Qwen3-8B", layers=2) == preset("qwen3-8b", dtype="bfloat16", layers=2)
    assert huggingface.architecture_of("Qwen/Qwen3-8B", dtype="float32").dtype == "float32" and not asked
    (tmp_path / "config.json").write_text(json.dumps(huggingface.config_json(SMALL)))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda model, file: str(tmp_path / file))
    assert huggingface.architecture_of("Qwen/Qwen3-8B") == SMALL and asked == ["Qwen/Qwen3-8B"]


def test_a_config_of_olmo_3_is_its_preset(shared_data, tmp_path):
    shutil.copy(shared_data / "configs" / "olmo-3-7b.json", tmp_path / "config.json")
    assert huggingface.read_architecture(tmp_path) == preset("olmo-3-7b", dtype="bfloat16")


def test_patterns_of_layers_may_be_written_as_periods(tmp_path):
    """As in the configs that Gemma 3 and SmolLM3 were published with."""
    gemma, smollm = golden.FAMILIES["gemma3_text"], golden.FAMILIES["smollm3"]
    own = dict(layer_types=None, sliding_window_pattern=3, rope_parameters=None, tie_word_embeddings=None)
    write_config(tmp_path, huggingface.config_json(gemma) | own)
    assert huggingface.read_architecture(tmp_path) == gemma
    own |= dict(rope_local_base_freq=None)
    without = {name: value for name, value in (huggingface.config_json(gemma) | own).items() if value is not None}
    write_config(tmp_path, without)
    assert huggingface.read_architecture(tmp_path).sliding_rope_theta == 10_000
    write_config(tmp_path, huggingface.config_json(smollm) | dict(no_rope_layers=None, no_rope_layer_interval=2))
    assert huggingface.read_architecture(tmp_path) == smollm


def test_without_a_scaling_nobody_asks_which_layers_have_it():
    """A run of this form may have been saved before the field was there."""
    plain = change(golden.FAMILIES["gemma2"], rope_scaling=None)
    for scaled in (True, False):
        assert huggingface.config_json(change(plain, sliding_rope_scaled=scaled))["model_type"] == "gemma2"
    with pytest.raises(ValueError, match="no family"):
        huggingface.config_json(change(golden.FAMILIES["gemma2"], sliding_rope_scaled=False))


def test_gemma_2_has_bounds_where_its_config_names_none(tmp_path):
    """Absent fields have the defaults of Gemma2Config; null means that there is no bound."""
    for absent, expected in ((True, (50.0, 30.0)), (False, (None, None))):
        fields = huggingface.config_json(golden.FAMILIES["gemma2"])
        for name in ("attn_logit_softcapping", "final_logit_softcapping"):
            fields[name] = None
            if absent:
                del fields[name]
        write_config(tmp_path, fields)
        found = huggingface.read_architecture(tmp_path)
        assert (found.attention_softcap, found.logit_softcap) == expected


def write_config(folder, fields):
    (folder / "config.json").write_text(json.dumps(fields))


@pytest.mark.parametrize(
    "family, fields, message",
    [
        ("gemma3_text", dict(model_type="gemma3"), "model_type = 'gemma3': not supported"),
        ("gemma3_text", dict(use_bidirectional_attention=True), "use_bidirectional_attention = True"),
        ("gemma3_text", dict(hidden_activation="gelu"), "hidden_activation = 'gelu': not supported"),
        ("gemma3_text", dict(query_pre_attn_scalar=0), "query_pre_attn_scalar = 0: expected an integer of at least 1"),
        ("gemma2", dict(final_logit_softcapping=-1), "final_logit_softcapping = -1: expected a number above 0"),
        ("gemma3_text", dict(attn_logit_softcapping=50.0), "attn_logit_softcapping = 50.0: not supported"),
        ("olmo3", dict(sliding_window=None), "sliding_window = None: expected an integer"),
        ("olmo3", dict(layer_types=["full_attention", "sliding_attention", "sliding_attention"]), "layer_types = "),
        ("olmo3", dict(layer_types=None, sliding_window_pattern="x"), "sliding_window_pattern = 'x': expected an integer"),
        ("olmo3", dict(rope_parameters=dict(full_attention=dict(rope_theta=1e4),
                                            sliding_attention=dict(rope_type="linear", factor=2.0))), "a scaling"),
        ("olmo3", dict(rope_parameters=dict(full_attention=dict(rope_theta=1e4))), "sliding_attention = None: expected"),
        ("gemma2", dict(rope_theta=None, rope_parameters=dict(full_attention=dict(rope_theta=1e4),
                                                              sliding_attention=dict(rope_theta=1e4))), "no rope_theta"),
        ("smollm3", dict(no_rope_layers=[1, 0, 0]), r"no_rope_layers = \[1, 0, 0\]: not supported; expected \[1, 0, 1\]"),
        ("qwen3_moe", dict(mlp_only_layers=[0]), r"mlp_only_layers = \[0\]: not supported"),
        ("qwen3_moe", dict(decoder_sparse_step=2), "decoder_sparse_step = 2: not supported"),
        ("qwen3_moe", dict(num_experts=None), "no num_experts"),
        ("qwen3_moe", dict(num_experts_per_tok=9), "experts_per_token = 9: expected 1 to experts = 6"),
        ("qwen3_moe", dict(norm_topk_prob="yes"), "norm_topk_prob = 'yes': expected true or false"),
    ],
)  # fmt: skip
def test_unsupported_configs_of_other_families_are_refused(family, fields, message, tmp_path):
    write_config(tmp_path, huggingface.config_json(golden.FAMILIES[family]) | fields)
    with pytest.raises(ValueError, match=message):
        huggingface.read_architecture(tmp_path)


@pytest.mark.parametrize("family", golden.FAMILIES)
def test_an_architecture_survives_its_config(family, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(huggingface.config_json(golden.FAMILIES[family])))
    assert huggingface.read_architecture(tmp_path) == golden.FAMILIES[family]


@pytest.mark.parametrize("family", golden.FAMILIES)
def test_an_architecture_is_read_from_the_config_that_transformers_writes(family, tmp_path):
    AutoConfig.for_model(**huggingface.config_json(golden.FAMILIES[family])).save_pretrained(tmp_path)
    assert huggingface.read_architecture(tmp_path) == golden.FAMILIES[family]


def test_rope_as_transformers_5_writes_it(folder):
    edit(folder, rope_theta=None, rope_scaling=None, rope_parameters=dict(
        rope_theta=5e5, rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=64))  # fmt: skip
    found = huggingface.read_architecture(folder)
    assert (found.rope_theta, found.rope_scaling) == (5e5, Llama3Scaling(8.0, 1.0, 4.0, 64))


def edit(folder, **fields):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(model_type="mamba"), "model_type = 'mamba': not supported; expected one of qwen2, qwen3, llama"),
        (dict(architectures=["Qwen3ForTokenClassification"]), r"expected \['Qwen3ForCausalLM'\]"),
        (dict(rope_scaling=dict(rope_type="dynamic", factor=4.0)), "rope_scaling.rope_type = 'dynamic': not supported"),
        (dict(rope_scaling=dict(rope_type="llama3", factor=4.0)), "rope_scaling.low_freq_factor: missing"),
        (dict(rope_scaling=dict(rope_type="yarn", factor="4")), "rope_scaling.factor = '4': expected a number"),
        (dict(rope_scaling=dict(rope_type="yarn", factor=0.5)), "rope_scaling.factor = 0.5: expected at least 1"),
        (dict(rope_scaling=dict(rope_type="yarn", factor=4.0, beta_fst=1)), "did you mean 'beta_fast'"),
        (dict(rope_parameters="yarn"), "rope_parameters = 'yarn': expected an object"),
        (
            dict(rope_parameters=dict(rope_theta=1e4, partial_rotary_factor=0.5)),
            "partial_rotary_factor = 0.5: not supported",
        ),
        (dict(rope_theta=None), "no rope_theta"),
        (dict(rope_theta="1e6"), "rope_theta = '1e6': expected a number"),
        (dict(rope_theta=0), "rope_theta = 0: expected a number above 0"),
        (dict(hidden_size="32"), "hidden_size = '32': expected an integer of at least 1"),
        (dict(num_hidden_layers=True), "num_hidden_layers = True: expected an integer"),
        (dict(num_attention_heads=0, head_dim=None), "num_attention_heads = 0: expected an integer of at least 1"),
        (dict(rms_norm_eps="x"), "rms_norm_eps = 'x': expected a number"),
        (dict(tie_word_embeddings="no"), "tie_word_embeddings = 'no': expected true or false"),
        (dict(model_type=["qwen3"]), r"model_type = \['qwen3'\]: not supported"),
        (dict(layer_types="full_attention"), "layer_types"),
        (dict(hidden_size=None), "no hidden_size"),
        (dict(attention_bias=True), "attention_bias = True: not supported; expected False"),
        (dict(hidden_act="gelu"), "hidden_act = 'gelu': not supported; expected 'silu'"),
        (dict(use_sliding_window=True), "use_sliding_window = True"),
        (dict(layer_types=["sliding_attention"]), "layer_types"),
        (dict(quantization_config=dict(bits=4)), "quantization_config"),
        (dict(num_key_value_heads=3), "kv_heads = 3 does not divide"),
    ],
)
def test_unsupported_configs_are_refused(folder, fields, message):
    edit(folder, **fields)
    with pytest.raises(ValueError, match=message):
        huggingface.read_architecture(folder)


def test_a_broken_or_absent_config_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"config.json: no such file"):
        huggingface.read_architecture(tmp_path)
    for content, message in [
        ("{", "config.json: not JSON"),
        ("[" * 100_000, "config.json: not JSON"),
        ("[]", "config.json: list; expected a JSON object"),
        ("null", "config.json: NoneType; expected a JSON object"),
    ]:
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            huggingface.read_architecture(tmp_path)


# ---------------------------------------------------------------- special tokens


def test_end_tokens_are_those_of_tokenizer_and_generation_config(saved, folder):
    tokenizer = embedded_tokenizer([])
    assert (end := tokenizer.eos_token_id) == 2
    assert huggingface.stop_ids("tiny", tokenizer) == huggingface.stop_ids(str(saved), tokenizer) == (end,)
    for ends, expected in [(5, (2, 5)), ([9, 2], (2, 9)), (None, (2,)), ([], (2,))]:
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
        assert huggingface.stop_ids(str(folder), tokenizer) == expected
    for ends in ("5", [5, -1], True, {"a": 1}):
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
        with pytest.raises(
            ValueError, match="generation_config.json: eos_token_id = .*: expected a token id or a list"
        ):
            huggingface.stop_ids(str(folder), tokenizer)


def test_end_tokens_are_those_of_config_json_where_no_generation_config_lists_any(folder):
    tokenizer = embedded_tokenizer([])
    edit(folder, eos_token_id=[7, 5])
    assert huggingface.stop_ids(str(folder), tokenizer) == (2, 5, 7)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 9}))
    assert huggingface.stop_ids(str(folder), tokenizer) == (2, 9)


def test_an_export_keeps_generation_config_and_special_ids(folder, random, tmp_path):
    generation = {"eos_token_id": [5, 6], "bos_token_id": 6, "pad_token_id": 6, "temperature": 0.6}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    edit(folder, eos_token_id=5, pad_token_id=4)
    huggingface.save_params(tmp_path / "out", SMALL, random, source=str(folder))
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == generation
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert [config[name] for name in huggingface.SPECIAL] == [6, 5, 4]


def test_who_may_read_the_configuration_may_read_the_weights(folder, tmp_path):
    (tmp_path / "other").touch()
    modes = {file.stat().st_mode for file in [*folder.glob("*.safetensors"), tmp_path / "other"]}
    assert len(modes) == 1


# ---------------------------------------------------------------- damaged weights


def rewrite(folder, change_shapes):
    """Replaces the folder's weights by one file of zeros, with other names or shapes."""
    for file in [*folder.glob("*.safetensors"), *folder.glob("*.index.json")]:
        file.unlink()
    shapes = huggingface.tensor_shapes(SMALL)
    change_shapes(shapes)
    lazy = {name: tensors.LazyTensor(s, lambda s=s: np.zeros(s, np.float32)) for name, s in shapes.items()}
    tensors.write_folder(folder, lazy, np.dtype(np.float32), 1 << 30)


UP = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    "change_shapes, message",
    [
        (lambda s: s.pop(UP), rf"model: no tensor {UP} \[48, 32\] among its 23 tensors"),
        (lambda s: s.update({UP: (48, 31)}), rf"model.safetensors: tensor {UP}: expected \[48, 32\], found \[48, 31\]"),
        (lambda s: s.update({"model.layers.2.mlp.up_proj.weight": (48, 32)}),
         r"1 tensors that 2 layers of this architecture do not have, such as model.layers.2.mlp.up_proj.weight \[48, 32\]"),
        (lambda s: s.update({"model.layers.0.self_attn.q_proj.bias": (32,)}), "such as model.layers.0.self_attn.q_proj.bias"),
    ],
)  # fmt: skip
def test_missing_extra_and_misshapen_tensors_are_named(folder, change_shapes, message):
    rewrite(folder, change_shapes)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_an_untied_model_needs_its_head(folder):
    edit(folder, tie_word_embeddings=False)
    with pytest.raises(ValueError, match=r"no tensor lm_head.weight \[48, 32\]"):
        load(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:100],
        lambda whole: whole[:-4],
        lambda whole: whole + b"more",
        lambda whole: whole[:8] + b"x" + whole[9:],
        lambda whole: whole.replace(b"[32]", b"[33]", 1),
    ],
    ids=["empty", "header cut", "values cut", "too long", "no header", "wrong shape"],
)
def test_a_damaged_file_is_named(folder, damage):
    file = sorted(folder.glob("model-*.safetensors"))[1]
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=rf"{file.name}: truncated, damaged or not safetensors"):
        load(folder)


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(folder, value):
    for file in [*folder.glob("*.safetensors"), *folder.glob("*.index.json")]:
        file.unlink()
    lazy = {
        name: tensors.LazyTensor(shape, lambda n=name, s=shape: np.full(s, value if n == UP else 0, np.float32))
        for name, shape in huggingface.tensor_shapes(SMALL).items()
    }
    tensors.write_folder(folder, lazy, np.dtype(np.float32), 1 << 30)
    with pytest.raises(ValueError, match=f"model.safetensors: tensor {UP}: has values that are not finite"):
        load(folder)


def test_an_unknown_dtype_is_named(folder):
    file = sorted(folder.glob("model-*.safetensors"))[0]
    file.write_bytes(file.read_bytes().replace(b'"F32"', b'"I32"', 1))
    with pytest.raises(ValueError, match="tensor model.* is I32; expected one of F32, F16, BF16"):
        load(folder)


def test_an_index_and_its_files_must_agree(folder):
    index = json.loads((folder / tensors.INDEX).read_text())
    file = index["weight_map"][UP]
    (folder / file).rename(folder / "elsewhere")
    with pytest.raises(ValueError, match=f"{file}: no such file, and {tensors.INDEX} lists it"):
        load(folder)
    (folder / "elsewhere").rename(folder / file)
    for listed, message in [
        ("../x", "expected a file of the same folder"),
        ("..", "expected a file of the same folder"),
        ("", "expected a file of the same folder"),
        (sorted(index["weight_map"].values())[0], UP),
    ]:
        (folder / tensors.INDEX).write_text(json.dumps({"weight_map": index["weight_map"] | {UP: listed}}))
        with pytest.raises(ValueError, match=message):
            load(folder)
    (folder / tensors.INDEX).write_text("{}")
    with pytest.raises(ValueError, match="no weight_map"):
        load(folder)


def test_pickles_and_absent_weights_are_refused(folder):
    for file in [*folder.glob("*.safetensors"), folder / tensors.INDEX]:
        file.unlink()
    with pytest.raises(ValueError, match="no weights; expected model.safetensors or"):
        load(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(ValueError, match="pytorch_model.bin: pickled weights can run code and are not read"):
        load(folder)


# ---------------------------------------------------------------- names of models, export


def test_a_model_is_a_preset_a_folder_or_a_hub_id(saved, monkeypatch):
    assert huggingface.architecture_of(str(saved)) == SMALL
    assert huggingface.architecture_of(str(saved), dtype="bfloat16").dtype == "bfloat16"
    assert huggingface.architecture_of("tiny") == preset("tiny")
    with pytest.raises(ValueError, match="did you mean 'tiny'"):
        huggingface.architecture_of("tinny")
    with pytest.raises(ValueError, match="model = 'nobody/nothing': not a folder, and the hub gave no such model"):
        huggingface.architecture_of("nobody/nothing")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, allow_patterns: str(saved))
    assert huggingface.architecture_of("Qwen/Small") == SMALL


@pytest.mark.slow
def test_an_export_never_overwrites_and_needs_a_family(saved, random, tmp_path):
    with pytest.raises(FileExistsError, match="not empty; expected a new folder"):
        huggingface.save_params(saved, SMALL, random)
    local = change(
        golden.FAMILIES["gemma3_text"], qk_norm=False, sliding_rope_scaled=True
    )  # a Gemma 2 but for its local rotary base
    for name, made in (("qkv_bias = True", change(SMALL, qkv_bias=True)), ("sliding_rope_theta = ", local)):
        with pytest.raises(ValueError, match=f"architecture with .*{name}.*: no family"):
            huggingface.save_params(tmp_path / "both", made, Policy(made).init(rng.key(0, "init")))
    assert not list(tmp_path.iterdir())
