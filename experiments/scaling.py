"""Question: which mesh does a model need on which accelerators, and how fast could a step be there at best?

Command:  python -m experiments.scaling            (from shapes alone; prints the tables of docs/scaling.md; two minutes)
          python -m experiments.scaling --write    (writes them into the page)
          python -m experiments.scaling --check    (fails if the page has other tables)
Memory:   as `python -m amrsd_jax.plan` estimates it. For 1, 2, 4, ... chips, all meshes of fsdp x tensor are tried; the tables
          show the fastest of those that leave a fifth of the memory free, on the smallest number of chips that has any.
Time:     a roofline: for every phase the largest of its FLOPs, its bytes from memory and its bytes over the network, each at the
          chip's published peak. No chip reaches its peak, so a real step takes longer; nothing here was measured.
"""

import argparse
import dataclasses
import functools
import math
import os
import sys
from collections.abc import Iterator

import jax

from amrsd_jax import config as configuration
from amrsd_jax.config import Config
from amrsd_jax.markdown import table as markdown
from amrsd_jax.policy.architecture import PRESETS, Architecture
from amrsd_jax.validate import validate
from experiments.common import ROOT

GIB, HEADROOM = 1 << 30, 0.8
MODELS = ("qwen3-1.7b", "qwen3-8b", "qwen3-32b")
PAGE = ROOT / "docs" / "scaling.md"
BEGIN, END = "<!-- python -m experiments.scaling --write -->\n", "\n<!-- end -->\n"
BFLOAT16, FLOAT32 = 2, 4  # bytes


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published peaks of one chip.

    Attributes:
      flops: dense bfloat16 operations per second.
      memory, bandwidth: bytes; bytes per second.
      link: bytes per second in one direction to the other chips of an island (half of the published sum of both directions).
      island: number of chips with such links.
      network: bytes per second per chip in a mesh of more chips than an island has.
      source: the page that publishes these numbers.
    """

    name: str
    flops: float
    memory: float
    bandwidth: float
    link: float
    island: int
    network: float
    source: str

    def exchange(self, chips: int) -> float:
        """Returns the bytes per second that a chip exchanges with the others of a mesh."""
        return self.link if chips <= self.island else self.network


MOST = 256  # largest number of chips tried
CHIPS = (
    Chip("TPU v5e", 197e12, 16e9, 819e9, 200e9, 256, 200e9, "https://cloud.google.com/tpu/docs/v5e"),
    Chip("TPU v5p", 459e12, 95e9, 2765e9, 600e9, 6144, 600e9, "https://cloud.google.com/tpu/docs/v5p"),
    Chip(  # 900 GB/s of NVLink in both directions, 400 Gb/s of network per GPU
        "H100 SXM", 989e12, 80e9, 3350e9, 450e9, 8, 50e9, "https://www.nvidia.com/en-us/data-center/h100/ (DGX H100)"
    ),
)  # fmt: skip


def batch(model: str, fsdp: int, tensor: int) -> Config:
    """Returns a config: AMR-SD on 32 prompts x 8 responses of up to 512 + 1,024 tokens, one row per device at a time."""
    config = configuration.base()
    config.model, config.tokenizer = model, f"Qwen/{model}"  # the tokenizer is named, but never read
    config.architecture.dtype, config.remat = "bfloat16", "full"
    config.rollout.update(prompts=32, group=8, prompt_length=512, response_length=1024, slots=256, admit=8)
    config.reflection.update(prompt_length=2048, tokens=128, context_length=768, slots=256, admit=2)
    config.scoring.update(rows=fsdp, chunk=1024)
    config.learning.micro_batches = 256 // fsdp
    config.mesh.update(data=1, fsdp=fsdp, tensor=tensor)
    return validate(config)


def seconds(c: Architecture, chip: Chip, config: Config) -> dict[str, float]:
    """Returns the least seconds of each phase of a step in which every row is reflected on and all responses are full."""
    ways, tensor = config.mesh.fsdp, config.mesh.tensor
    chips, rollout, reflection = ways * tensor, config.rollout, config.reflection
    rows = rollout.prompts * rollout.group
    # A pass reads these bytes on a device, after gathering over fsdp; of an untied embedding it reads a few rows, left out here.
    weights = BFLOAT16 * (c.parameters() - (not c.tied) * c.vocab_size * c.width) / tensor
    gathered = weights * (ways - 1) / ways

    def bound(flops: float, memory: float, gathers: float, reduces: float) -> float:
        """Returns the least seconds for these FLOPs, and these bytes read, gathered over the mesh and reduced over tensor."""
        network = gathers / chip.exchange(chips) + reduces / chip.exchange(tensor)
        return max(flops / chip.flops, memory / chip.bandwidth, network)

    def reduced(tokens: float) -> float:
        """Returns the bytes of two all-reduces per layer over the tensor axis, for the tokens of one device."""
        return 2 * c.layers * 2 * (tensor - 1) / tensor * tokens * c.width * BFLOAT16

    def flops(tokens: int, context: float, read: int) -> float:
        """Returns the FLOPs of a forward pass that computes logits at `read` of its tokens."""
        return c.forward_flops(tokens, context) - 2 * c.vocab_size * c.width * (tokens - read)

    def sample(prompts: int, prompt: int, count: int, new: int, slots: int, admit: int) -> float:
        """Returns the seconds of sampling: admissions that gather the weights, and steps that read weights and cache once."""
        of_device, length, admissions = slots // ways, prompt + new / 2, prompts / max(ways, admit)
        prefill = flops(prompts * prompt, prompt / 2, prompts) / chips
        prefill = bound(prefill, admissions * weights, admissions * gathered, reduced(prompts * prompt / ways))
        cache = of_device * length * 2 * c.layers * c.kv_heads * c.head_dim * BFLOAT16 / tensor
        token = bound(flops(of_device, length, of_device) / tensor, weights + cache, 0, reduced(of_device))
        return prefill + token * new * prompts * count / slots

    def passes(prompt: int, times: int, gathers: int, rows_at_a_time: int) -> float:
        """Returns the seconds of `times` forward passes on all rows; each group of rows gathers the weights `gathers` times."""
        length, pieces = prompt + rollout.response_length, rows / rows_at_a_time * gathers
        work = times * flops(rows * length, length / 2, rows * rollout.response_length) / chips
        return bound(work, pieces * weights, pieces * gathered, times * reduced(rows * length / ways))

    micro_batch = rows // config.learning.micro_batches
    # An update is two forward passes, since remat repeats one, and a backward pass that costs two.
    state = 4 * FLOAT32 * c.parameters() / chips  # master weights, gradient and two moments, read and written once
    return {
        "sample": sample(
            rollout.prompts, rollout.prompt_length, rollout.group, rollout.response_length, rollout.slots, rollout.admit
        ),
        "reflect": sample(rows, reflection.prompt_length, 1, reflection.tokens, reflection.slots, reflection.admit),
        "score": passes(rollout.prompt_length, 1, 1, config.scoring.rows)
        + passes(reflection.context_length, 1, 1, config.scoring.rows),
        # Weights are gathered twice, and a gradient as large is reduced over fsdp.
        "update": passes(rollout.prompt_length, 4, 3, micro_batch) + 2 * state / chip.bandwidth,
    }


def meshes() -> Iterator[list[tuple[int, int]]]:
    """Yields the (fsdp, tensor) of 1, 2, 4, ... chips, with a tensor axis of at most 8, the number of key/value heads."""
    for power in range(MOST.bit_length()):
        yield [(2**power // tensor, tensor) for tensor in (1, 2, 4, 8) if tensor <= 2**power]


@functools.cache
def memory(model: str, fsdp: int, tensor: int) -> dict[str, int]:
    """Returns the bytes on one device, by name, in the phase that needs most."""
    from amrsd_jax.plan import plan_of, sizes

    return plan_of(sizes.planned(batch(model, fsdp, tensor)), None, "").largest


def smallest(model: str, chip: Chip) -> tuple[Config, dict[str, float]] | None:
    """Returns config and seconds by phase of the fastest mesh on the smallest number of chips; None if none fits."""
    room = HEADROOM * chip.memory
    for shapes in meshes():
        chips = math.prod(shapes[0])
        if 3 * FLOAT32 * PRESETS[model].parameters() / chips > room:  # master weights and moments alone
            continue
        fitting = [batch(model, *shape) for shape in shapes if sum(memory(model, *shape).values()) <= room]
        if fitting:
            timed = [(config, seconds(PRESETS[model], chip, config)) for config in fitting]
            return min(timed, key=lambda pair: sum(pair[1].values()))
    return None


def cells(model: str, chip: Chip) -> tuple[list[str], list[str]]:
    """Returns a model's rows of the memory table and of the time table; the latter is [] if no mesh is large enough."""
    best = smallest(model, chip)
    if best is None:
        return [model, chip.name, f"more than {MOST}", *[""] * 5], []
    config, phases = best
    fsdp, tensor = config.mesh.fsdp, config.mesh.tensor
    parts, step = memory(model, fsdp, tensor), sum(phases.values())
    state, peak = parts["parameters"] + parts["optimiser"], sum(parts.values())
    gib = [f"{size / GIB:.1f}" for size in (state, peak - state, peak, chip.memory)]
    tokens = config.rollout.prompts * config.rollout.group * config.rollout.response_length
    begin, times = [model, chip.name, str(fsdp * tensor)], [f"{value:.1f}" for value in (*phases.values(), step)]
    return [*begin, f"{fsdp} x {tensor}", *gib], [*begin, *times, f"{tokens / step:,.0f}"]


def tables() -> str:
    """Formats the page's tables."""
    by_memory, by_time = zip(*(cells(model, chip) for model in MODELS for chip in CHIPS), strict=True)
    peaks = []
    for chip in CHIPS:
        rates = (chip.flops / 1e3, chip.memory, chip.bandwidth, chip.link, chip.island * 1e9, chip.network)
        peaks.append([chip.name, *(f"{rate / 1e9:,.0f}" for rate in rates), chip.source])
    chosen = ["model", "chip", "chips"]
    times = [*chosen, "sample", "reflect", "score", "update", "step", "new tokens per second"]
    columns = ["chip", "TFLOP/s", "memory", "bandwidth", "links, one way", "chips linked so", "beyond them", "source"]
    return "\n\n".join([
        "GiB on each device:",
        markdown([*chosen, "mesh fsdp x tensor", "state", "largest phase", "peak", "of"], by_memory),
        "Least seconds, by the roofline:",
        markdown(times, filter(None, by_time)),
        "Published peaks of a chip, TFLOP/s in bfloat16, GB and GB/s:",
        markdown(columns, peaks),
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the tables into docs/scaling.md")
    parser.add_argument("--check", action="store_true", help="exit with 1 if docs/scaling.md has other tables")
    given = parser.parse_args()
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={MOST}"  # devices that need not exist
    jax.config.update("jax_platforms", "cpu")
    text, page = tables(), PAGE.read_text()
    print(text)
    before, _, rest = page.partition(BEGIN)
    new = f"{before}{BEGIN}{text}{END}{rest.partition(END)[2]}"
    if given.write:
        PAGE.write_text(new)
    sys.exit(given.check and page != new)


if __name__ == "__main__":
    main()
