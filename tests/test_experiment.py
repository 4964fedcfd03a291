"""What a config becomes: every sampler ends where the config says."""

from amrsd_jax.experiment import make_experiment
from amrsd_jax.policy.tokenizer import absent_ids
from amrsd_jax.validate import validate
from tests.tiny import tiny_config


def test_every_sampler_ends_where_the_config_says_and_samples_no_id_that_the_tokenizer_lacks(tmp_path):
    run = make_experiment(validate(tiny_config(rollout__stop=("####",))), tmp_path)
    assert set(run.samplers) == {"rollout", "evaluation", "reflection", "critic"}
    for sampler in (*run.samplers.values(), run.evaluator.sampler):
        assert sampler.stop_strings.strings == ("####",)
        assert sampler.stop_tokens == (run.tokenizer.eos_token_id,)
        assert sampler.absent == absent_ids(run.tokenizer) != ()
