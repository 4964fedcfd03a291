"""What compilers say of the programs of a run: the reader of their texts, the contracts, and slices that are not there."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import jaxtyping
import pytest

from amrsd_jax.compile import compiler, contracts, hlo, report
from amrsd_jax.compile.programs import programs
from amrsd_jax.compile.topology import Topology
from amrsd_jax.plan import sizes
from amrsd_jax.validate import validate
from tests.tiny import tiny_config

ROOT = Path(__file__).parents[1]

# Four trips that gather a weight, update a cache in place by a fusion, and read it from the chip.
TEXT = """\
HloModule jit_decode, input_output_alias={ {0}: (1, {}, may-alias), {1}: (2, {}, may-alias) }, entry_computation_layout={()}

FileNames
1 "/somewhere/amrsd_jax/policy/cache.py"
2 "/somewhere/site-packages/flax/nnx/normalization.py"

FunctionNames
1 "append"
2 "norm"

FileLocations
1 {file_name_id=1 function_name_id=1 line=56 end_line=56 column=1 end_column=2}
2 {file_name_id=2 function_name_id=2 line=7 end_line=7 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}

%fused (p0: bf16[8,128], p1: bf16[1,128], p2: s32[]) -> bf16[8,128] {
  %p0 = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %p1 = bf16[1,128]{1,0:T(8,128)(2,1)} parameter(1)
  %p2 = s32[]{:T(128)} parameter(2)
  ROOT %update = bf16[8,128]{1,0:T(8,128)(2,1)} dynamic-update-slice(%p0, %p1, %p2, %p2)
}

%body (state: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {
  %state = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)}, bf16[16,64]{1,0:T(8,128)(2,1)}) parameter(0)
  %step = s32[]{:T(128)} get-tuple-element(%state), index=0
  %cache = bf16[8,128]{1,0:T(8,128)(2,1)} get-tuple-element(%state), index=1
  %shard = bf16[16,64]{1,0:T(8,128)(2,1)} get-tuple-element(%state), index=2
  %all-gather.1 = bf16[128,64]{1,0:T(8,128)(2,1)} all-gather(%shard), metadata={stack_frame_id=2}
  %token = bf16[1,128]{1,0:T(8,128)(2,1)S(1)} custom-call(%all-gather.1), backend_config={"estimated_cycles":"100"}
  %new = bf16[8,128]{1,0:T(8,128)(2,1)} fusion(%cache, %token, %step), kind=kLoop, calls=%fused, metadata={stack_frame_id=1}
  ROOT %out = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)}, bf16[16,64]{1,0:T(8,128)(2,1)}) tuple(%step, %new, %shard)
}

%condition (state.1: (s32[], bf16[8,128], bf16[16,64])) -> pred[] {
  %state.1 = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)}, bf16[16,64]{1,0:T(8,128)(2,1)}) parameter(0)
  %step.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  %limit = s32[]{:T(128)} constant(4)
  ROOT %less = pred[]{:T(128)} compare(%step.1, %limit), direction=LT
}

%rare (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  ROOT %sorted = f32[8]{0} sort(%x), dimensions={0}
}

ENTRY %main (a: s32[], b: bf16[8,128], c: bf16[16,64]) -> bf16[8,128] {
  %a = s32[]{:T(128)} parameter(0)
  %b = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(1)
  %c = bf16[16,64]{1,0:T(8,128)(2,1)} parameter(2)
  %start = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)}, bf16[16,64]{1,0:T(8,128)(2,1)}) tuple(%a, %b, %c)
  %loop = (s32[], bf16[8,128]{1,0}, bf16[16,64]{1,0}) while(%start), condition=%condition, body=%body
  %flag = s32[]{:T(128)} get-tuple-element(%loop), index=0
  %scores = f32[8]{0:T(128)} convert(%flag)
  %chosen = f32[8]{0} conditional(%flag, %scores, %scores), branch_computations={%rare, %rare}
  ROOT %result = bf16[8,128]{1,0:T(8,128)(2,1)} get-tuple-element(%loop), index=1
}
"""


@pytest.fixture(scope="module")
def summary():
    return hlo.summary(hlo.Text(TEXT))


def test_work_is_counted_by_loop_level_and_trips(summary):
    levels = summary["levels"]
    assert list(levels) == ["0", "0?", "1"]
    assert levels["0?"]["operations"] == 1  # the branch's sort, which need not run
    assert levels["1"]["operations"] == 4 and levels["1"]["launches"] == 16  # the condition's comparison among them
    assert levels["1"]["cycles"] == 4 * 100 and levels["0"]["cycles"] == 0


def test_bytes_are_those_of_memory_and_an_update_in_place_counts_once(summary):
    gather, call, update = 2 * 64 * (16 + 128), 2 * 64 * 128, 2 * 128  # the token itself stays on the chip
    index = 4  # the fusion and the comparison read the counter
    assert summary["levels"]["1"]["bytes"] == 4 * (gather + call + update + index + index + 4 + 1)


def test_collectives_and_temporaries_have_sizes_and_source_lines(summary):
    (gather,) = summary["collectives"]
    assert gather == dict(
        kind="all-gather", level="1", times=4, array="bf16[128,64]", bytes=128 * 64 * 2,
        source="amrsd_jax/policy/cache.py:56", count=1,
    )  # fmt: skip
    assert summary["exchanged"] == {"1": {"all-gather": 4 * 128 * 64 * 2}}
    largest = summary["temporaries"][0]
    assert largest["array"] == "bf16[128,64]" and largest["bytes"] == 128 * 128 * 2  # tiles have 128 columns
    assert "bf16[8,128]" not in {one["array"] for one in summary["temporaries"]}  # it was there before
    assert summary["aliased"] == 2


def test_a_source_line_may_stand_in_the_operation_itself():
    text = TEXT.replace(
        "metadata={stack_frame_id=1}", 'metadata={op_name="x" source_file="/a/amrsd_jax/b.py" source_line=3}'
    )
    read = hlo.Text(text)
    (new,) = (operation for operation, _ in read.operations() if operation.name == "new")
    assert read.source(new) == "amrsd_jax/b.py:3"


# ---------------------------------------------------------------- contracts


@pytest.fixture(scope="module", autouse=True)
def shapes_stand_for_arrays():
    """Programs are lowered from shapes, which are not of the types that records are annotated with."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = tiny_config(mesh__fsdp=8, architecture__vocab_size=2048, scoring__chunk=16)
    return sizes.planned(validate(config), tmp_path_factory.mktemp("nowhere"))


def lines(run, name, text, **fields):
    """The contracts that a program of that name and text breaks, with room for everything by default."""
    (program,) = (one for one in programs(run) if one.name == name)
    row = dict(needed=0, held=0, alias=1 << 40, memory=1 << 40) | fields
    return contracts.broken(run, program, hlo.Text(text), row)


def body(line):
    """The text with one more operation in the loop."""
    return TEXT.replace("  %token =", f"  {line}\n  %token =")


def test_a_program_must_fit_beside_what_is_held(run):
    assert lines(run, "score", TEXT) == []
    (line,) = lines(run, "score", TEXT, needed=3 << 30, held=2 << 30, memory=4 << 30)
    assert "5.00 GiB" in line and "of 4.00" in line


def test_decoding_gathers_no_weight(run):
    assert lines(run, "rollout.decode", TEXT.replace("all-gather(", "all-reduce(")) == []
    (line,) = lines(run, "rollout.decode", TEXT)
    assert "bf16[128,64]" in line and "policy/cache.py:56" in line
    logits = TEXT.replace("bf16[128,64]{1,0:T(8,128)(2,1)} all-gather", "f32[32,2048]{1,0} all-gather")
    assert lines(run, "rollout.decode", logits) == []


def test_the_cache_is_aliased_and_not_copied(run):
    text = TEXT.replace("all-gather(", "all-reduce(")
    (line,) = lines(run, "rollout.decode", text, alias=0)
    assert "not aliased" in line
    layer = "f32[4,1,64,32]{3,2,1,0}"
    fused = f"%turned (t: f32[4]) -> {layer} {{\n  %t = {layer} parameter(0)\n  ROOT %u = {layer} transpose(%t)\n}}\n\nENTRY"
    for operation in ("copy(%b)", "fusion(%b), kind=kLoop, calls=%turned"):
        copied = text.replace("  %start =", f"  %b.2 = {layer} {operation}\n  %start =").replace("ENTRY", fused)
        for program in ("rollout.admit", "rollout.admit_reflections"):
            (line,) = lines(run, program, copied)
            assert "copied: f32[4,1,64,32]" in line


def test_the_head_is_exchanged_outside_of_loops_only(run):
    share = "%g = f32[2048,8]{1,0} reduce-scatter(%shard), dimensions={1}, metadata={stack_frame_id=1}"
    (line,) = lines(run, "single_update", body(share))
    assert "reduce-scatter f32[2048,8]" in line and "policy/cache.py:56" in line
    outside = TEXT.replace("  %start =", f"  {share}\n  %start =")
    assert lines(run, "score", outside) == []


def test_the_logits_of_all_tokens_never_exist_at_once(run):
    tokens = run.config.scoring.rows * run.response_length // 8
    assert lines(run, "score", body(f"%l = f32[{tokens // 2},2048]{{1,0}} custom-call(%shard)")) == []
    (line,) = lines(run, "score", body(f"%l = f32[1,{tokens},2048]{{2,1,0}} custom-call(%shard)"))
    assert "logits of all tokens: f32[1,32,2048]" in line


@pytest.mark.slow
def test_a_program_on_eight_devices_says_what_it_needs(run):
    target = Topology("eight CPU devices", jax.devices(), 1 << 30, None)
    (program,) = compiler.chosen(run, ["rollout.decode"])
    row = compiler.examine(run, program, target)
    cache = (
        run.config.rollout.slots * 64 * 2 * 2 * 32 * 4 // 8
    )  # a block of 64 positions, 2 layers, keys and values of 32
    assert row["alias"] >= cache and row["needed"] > cache and row["held"] > 0
    assert not [line for line in row["broken"] if "copied" not in line]  # the CPU's compiler copies it
    assert row["levels"]["1"]["bytes"] > row["levels"]["0"]["bytes"] > 0
    with pytest.raises(ValueError, match="'decode' is none of .*rollout.decode"):
        compiler.chosen(run, ["decode"])


# ---------------------------------------------------------------- tables


def test_the_comparison_shows_both_figures_where_they_differ():
    level = dict(operations=3, launches=3, bytes=2_000_000_000, cycles=1_500_000)
    row = dict(program="score", argument=1 << 30, alias=0, temp=1 << 30, needed=2 << 30, held=0, memory=4 << 30, planned=2 << 30,
               levels={"0": level}, exchanged={"0": {"all-gather": 10**9}})  # fmt: skip
    old = dict(clock=1.5e9, programs=[row, row | dict(program="gone")])
    new = dict(clock=1.5e9, programs=[row | dict(temp=1 << 29, exchanged={})])
    text = report.comparison(old, new).splitlines()
    assert report.comparison(old, new | dict(programs=[])) == "nothing to compare: the other file has score, gone"
    assert len(text) == 3 and "1.00 -> 0.50" in text[2] and "0: 1.00 -> " in text[2] and "0: 2.00 |" in text[2]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"programs": []}'])
def test_another_file_is_refused_before_anything_is_compiled(text, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"other.json: no file of --out"):
        report.read(path)


def test_the_plan_stands_beside_the_program_that_needs_most():
    row = dict(program="rollout.admit", phase="prefill", needed=1 << 30, held=1 << 30, planned=3 << 30)
    rows = [row | dict(program="reflection.admit", needed=2 << 30), row, row | dict(program="gone", error="too large")]
    assert report.agreement(rows).splitlines()[2:] == ["| prefill | reflection.admit | 3.00 | 3.00 | 1.00 |"]


# ---------------------------------------------------------------- compilers


def command(*arguments):
    given = [sys.executable, "-m", "amrsd_jax.compile", *arguments]
    return subprocess.run(given, cwd=ROOT, capture_output=True, text=True)


def test_unknown_hardware_is_one_line():
    done = command("--config=configs/quickstart.py", "--topology=abacus:2x4")
    assert done.returncode == 1 and "topology = 'abacus:2x4'" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install libtpu")
@pytest.mark.parametrize(("slice_", "names"), [("v5e:1x1", "rollout.decode"), ("v5p:2x2x2", "rollout.decode,score")])
def test_the_tpu_compiler_takes_the_programs(slice_, names, tmp_path):
    """Two layers of the widths of Qwen3-0.6B, on one chip and on a slice."""
    ways = 1 if slice_ == "v5e:1x1" else 8
    given = ["--config=configs/gsm8k.py", "--config.model=Qwen/Qwen3-0.6B", f"--config.mesh.fsdp={ways}", "--layers=2"]
    given += ["--config.rollout.response_length=1024", "--config.rollout.prompt_length=256"]
    done = command(*given, f"--topology={slice_}", f"--programs={names}", f"--out={tmp_path / 'out.json'}", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "out.json").read_text())["programs"]
    assert [row["program"] for row in rows] == names.split(",")
    for row in rows:
        assert 0 < row["needed"] + row["held"] < row["memory"] and row["levels"]["0"]["bytes"] > 0
