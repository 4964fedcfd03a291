"""What a config becomes: every sampler ends where the config says, and what is not used is not refused."""

import pytest

from amrsd_jax.experiment import make_experiment
from amrsd_jax.policy.tokenizer import absent_ids
from amrsd_jax.validate import validate
from tests.tiny import tiny_config


def test_every_sampler_ends_where_the_config_says_and_samples_no_id_that_the_tokenizer_lacks(tmp_path):
    run = make_experiment(validate(tiny_config(rollout__stop=("####",))), tmp_path)
    assert set(run.samplers) == {"rollout", "reflection", "critic"}
    for sampler in (*run.samplers.values(), run.evaluator.sampler):
        assert sampler.stop_strings.strings == ("####",)
        assert sampler.stop_tokens == (run.tokenizer.eos_token_id,)
        assert sampler.absent == absent_ids(run.tokenizer) != ()


def test_a_run_without_reflections_needs_no_slots_for_them(tmp_path):
    """Four devices, which three slots do not divide over."""
    fields = dict(mesh__data=4, reflection__slots=3)
    make_experiment(validate(tiny_config("grpo", **fields)), tmp_path)
    with pytest.raises(ValueError, match="reflection.slots = 3 does not divide over 4 devices"):
        make_experiment(validate(tiny_config("amrsd", **fields)), tmp_path)
