"""Question: which mesh does a model need on which accelerators, and how fast could a step be there at best?

Command:  python -m experiments.scaling            (from shapes alone; prints the tables of docs/scaling.md)
          python -m experiments.scaling --write    (and puts them there)
Memory:   that of `python -m amrsd_jax.plan`. For each number of chips, beginning at one, meshes of fsdp x tensor are tried; shown
          is the fastest of those that fit, with a fifth of the memory left over, on the smallest number that has any.
Time:     a roofline: of every phase the largest of its FLOPs, its bytes from memory and its bytes over the network, each at the
          chip's published peak. Nothing reaches its peak, so that a real step takes longer; nothing here was measured.
"""

import argparse
import dataclasses
import functools
import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
from ml_collections import ConfigDict

from amrsd_jax.policy.architecture import PRESETS, Architecture

GIB, HEADROOM = 1 << 30, 0.8
MODELS = ("qwen3-1.7b", "qwen3-8b", "qwen3-32b")
PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
BEGIN, END = "<!-- python -m experiments.scaling --write -->\n", "<!-- end -->\n"
_BFLOAT16, _FLOAT32 = 2, 4  # bytes


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published peaks of one chip.

    Attributes:
      flops: a second, dense bfloat16.
      memory, bandwidth: bytes, bytes a second.
      link: bytes a second to the other chips of an island, one direction (half of what is published for both).
      island: chips that are linked so; a mesh of more goes through `network`, bytes a second and chip.
      most: chips that are tried.
      source: of these numbers.
    """

    name: str
    flops: float
    memory: float
    bandwidth: float
    link: float
    island: int
    network: float
    source: str
    most: int = 256

    def reach(self, chips: int) -> float:
        """Bytes a second that a chip exchanges with the others of a mesh."""
        return self.link if chips <= self.island else self.network


CHIPS = (
    Chip("TPU v5e", 197e12, 16e9, 819e9, 200e9, 256, 200e9, "https://cloud.google.com/tpu/docs/v5e"),
    Chip("TPU v5p", 459e12, 95e9, 2765e9, 600e9, 6144, 600e9, "https://cloud.google.com/tpu/docs/v5p"),
    Chip(  # 900 GB/s of NVLink both ways, 400 Gb/s of network a GPU
        "H100 SXM", 989e12, 80e9, 3350e9, 450e9, 8, 50e9, "https://www.nvidia.com/en-us/data-center/h100/ (DGX H100)"
    ),
)  # fmt: skip


def batch(model: str, fsdp: int, tensor: int) -> ConfigDict:
    """AMR-SD on 32 prompts x 8 responses of at most 512 + 1,024 tokens; one row a device in what keeps activations."""
    from amrsd_jax import config as configuration

    config = configuration.base()
    config.model, config.tokenizer = model, f"Qwen/{model}"  # which is named and never read
    config.architecture.dtype, config.remat = "bfloat16", "full"
    config.rollout.update(prompts=32, group=8, prompt_length=512, response_length=1024, slots=256, admit=8)
    config.reflection.update(prompt_length=2048, tokens=128, context_length=768, slots=256, admit=2)
    config.scoring.update(rows=fsdp, chunk=1024)
    config.learning.micro_batches = 256 // fsdp
    config.mesh.update(data=1, fsdp=fsdp, tensor=tensor)
    return configuration.resolve(config)


def seconds(c: Architecture, chip: Chip, config: ConfigDict) -> dict[str, float]:
    """Least seconds of each phase of a step in which every row needs a reflection and all responses are of full length."""
    ways, tensor, chips = config.mesh.fsdp, config.mesh.tensor, config.mesh.fsdp * config.mesh.tensor
    rollout, reflection = config.rollout, config.reflection
    rows = rollout.prompts * rollout.group
    weights = _BFLOAT16 * c.parameters() / tensor  # of a device, when it reads or gathers them all
    gathered = weights * (ways - 1) / ways

    def bound(flops: float, memory: float, gathers: float, reduces: float) -> float:
        network = gathers / chip.reach(chips) + reduces / chip.reach(tensor)
        return max(flops / chip.flops, memory / chip.bandwidth, network)

    def reduced(tokens: float) -> float:
        """Bytes of two all-reduces over the tensor axis in every layer, for tokens of one device."""
        return 2 * c.layers * 2 * (tensor - 1) / tensor * tokens * c.width * _BFLOAT16

    def flops(tokens: int, context: float, read: int) -> float:
        """Of a forward pass that computes logits at `read` of its tokens."""
        return c.forward_flops(tokens, context) - 2 * c.vocab_size * c.width * (tokens - read)

    def sample(prompts: int, prompt: int, count: int, new: int, slots: int) -> float:
        """Prefill is done by every device for all prompts; decoding reads weights and cache once a token of all slots."""
        mine, length = slots // ways, prompt + new / 2
        prefill = flops(prompts * prompt, prompt / 2, prompts) / tensor
        prefill = bound(prefill, weights, 0, reduced(prompts * prompt))
        cache = mine * length * 2 * c.layers * c.kv_heads * c.head_dim * _BFLOAT16
        token = bound(flops(mine, length, mine) / tensor, weights + cache, 0, reduced(mine))
        return prefill + token * new * prompts * count / slots

    def passes(prompt: int, times: int, gathers: int, each: int) -> float:
        """`times` forward passes' worth of work on all rows, `each` rows at a time, which gather the weights `gathers` times."""
        length, answer, pieces = prompt + rollout.response_length, rollout.response_length, rows / each * gathers
        work = times * flops(rows * length, length / 2, rows * answer) / chips
        return bound(work, pieces * weights, pieces * gathered, times * reduced(rows * length / ways))

    micro = rows // config.learning.micro_batches
    state = 4 * _FLOAT32 * c.parameters() / chips  # master, gradient and two moments, read and written once
    return {
        "sample": sample(rollout.prompts, rollout.prompt_length, rollout.group, rollout.response_length, rollout.slots),
        "reflect": sample(rows, reflection.prompt_length, 1, reflection.tokens, reflection.slots),
        "score": passes(rollout.prompt_length, 1, 1, config.scoring.rows)
        + passes(reflection.context_length, 1, 1, config.scoring.rows),
        "learn": passes(rollout.prompt_length, 4, 4, micro) + 2 * state / chip.bandwidth,  # forward twice, backward
    }


def meshes(most: int) -> Iterator[list[tuple[int, int]]]:
    """(fsdp, tensor) of one chip, of two, of four, ...; a tensor axis of at most 8, the key/value heads."""
    chips = 1
    while chips <= most:
        yield [(chips // tensor, tensor) for tensor in (1, 2, 4, 8) if chips % tensor == 0 and chips // tensor <= 256]
        chips *= 2


@functools.cache
def held(model: str, fsdp: int, tensor: int) -> dict[str, int]:
    """Bytes on one device in the phase that holds most, by name."""
    from amrsd_jax.plan import make_plan

    with tempfile.TemporaryDirectory() as nowhere:
        return make_plan(batch(model, fsdp, tensor), Path(nowhere)).largest


def smallest(model: str, chip: Chip) -> tuple[ConfigDict, dict[str, float]] | None:
    """Config and seconds by phase of the fastest mesh on the smallest number of chips; None if none fits."""
    room = HEADROOM * chip.memory
    for shapes in meshes(chip.most):
        chips = math.prod(shapes[0])
        if 3 * _FLOAT32 * PRESETS[model].parameters() / chips > room:  # masters and moments alone
            continue
        fitting = [batch(model, *shape) for shape in shapes if sum(held(model, *shape).values()) <= room]
        if fitting:
            timed = [(config, seconds(PRESETS[model], chip, config)) for config in fitting]
            return min(timed, key=lambda pair: sum(pair[1].values()))
    return None


def cells(model: str, chip: Chip) -> tuple[list[str], list[str]]:
    """A model's row of the table of memory and of that of time; the latter is empty if no mesh is large enough."""
    best = smallest(model, chip)
    if best is None:
        return [model, chip.name, f"more than {chip.most}", *[""] * 5], []
    config, phases = best
    fsdp, tensor = config.mesh.fsdp, config.mesh.tensor
    parts, step = held(model, fsdp, tensor), sum(phases.values())
    state, peak = parts["parameters"] + parts["optimiser"], sum(parts.values())
    gib = [f"{size / GIB:.1f}" for size in (state, peak - state, peak, chip.memory)]
    tokens = config.rollout.prompts * config.rollout.group * config.rollout.response_length
    begin = [model, chip.name, str(fsdp * tensor)]
    times = [f"{value:.1f}" for value in (*phases.values(), step)]
    return [*begin, f"{fsdp} x {tensor}", *gib], [*begin, *times, f"{tokens / step:,.0f}"]


def tables() -> str:
    """The page's tables, in Markdown."""
    memory, time = zip(*(cells(model, chip) for model in MODELS for chip in CHIPS), strict=True)
    peaks = []
    for chip in CHIPS:
        rates = (chip.flops / 1e3, chip.memory, chip.bandwidth, chip.link, chip.island * 1e9, chip.network)
        peaks.append([chip.name, *(f"{rate / 1e9:,.0f}" for rate in rates), chip.source])
    return "\n".join(
        [
            "GiB on each device:\n",
            markdown("model, chip, chips, mesh fsdp x tensor, state, largest phase, peak, of", memory),
            "Least seconds, by the roofline:\n",
            markdown(
                "model, chip, chips, sample, reflect, score, learn, step, new tokens a second", filter(None, time)
            ),
            "Published peaks of a chip, TFLOP/s in bfloat16, GB and GB/s:\n",
            markdown(
                "chip, TFLOP/s, memory, its bandwidth, links one way, chips linked so, beyond them, source", peaks
            ),
        ]
    )


def markdown(columns: str, rows: Iterable[list[str]]) -> str:
    """A table from the names of its columns and its cells."""
    names = columns.split(", ")
    return "".join(line(row) for row in (names, ["---"] * len(names), *rows))


def line(row: list[str]) -> str:
    return f"| {' | '.join(row)} |\n"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--write", action="store_true", help="put the tables into docs/scaling.md")
    write = arguments.parse_args().write
    most = max(chip.most for chip in CHIPS)
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={most}"  # chips to imagine
    jax.config.update("jax_platforms", "cpu")
    text = tables()
    print(text)
    if write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}{text}{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
