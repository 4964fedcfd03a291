"""The program `amrsd`, from a folder outside of the repository and from the files that an installation has."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from amrsd_jax.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]
FLAGS = {  # some flags of each command
    "train": ["config", "workdir", "dry_run"],
    "evaluate": ["config", "checkpoint", "out"],
    "compare": ["rollouts", "methods", "out", "step"],
    "plan": ["config", "devices", "memory_gib", "topology"],
    "sweep": ["config", "out", "seeds", "set", "dry_run"],
    "report": ["workdir", "figure", "out"],
    "export": ["workdir", "out", "adapters", "dtype"],
    "grade": ["kind", "input", "output", "form"],
    "compile": ["config", "topology", "check"],
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Returns the folder of what setup.py installs."""
    pytest.importorskip("setuptools")
    base = tmp_path_factory.mktemp("build")
    command = [sys.executable, "setup.py", "-q", "build", "--build-base", str(base), "--build-lib", str(base / "lib")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return base / "lib"


def python(*arguments, cwd, path=ROOT):
    command = [sys.executable, *arguments]
    environment = {"PYTHONPATH": str(path), "PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def amrsd(*arguments, cwd, path=ROOT):
    return python("-m", "amrsd_jax", *arguments, cwd=cwd, path=path)


def test_help_lists_the_commands_and_imports_no_jax(tmp_path):
    program = "import sys; from amrsd_jax.__main__ import main; sys.argv[1:] = ['--help']; main(); print(*sys.modules)"
    done = python("-c", program, cwd=tmp_path)
    assert done.returncode == 0
    *lines, modules = done.stdout.splitlines()
    for name, (module, about) in COMMANDS.items():
        assert any(line.split(maxsplit=1) == [name, about] for line in lines)
        assert importlib.util.find_spec(module)
    assert not {"jax", "absl", "pydantic", "ml_collections"}.intersection(modules.split())


def test_an_unknown_command_names_the_nearest_one(tmp_path):
    done = amrsd("trian", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'train'" in done.stderr and done.stderr.count("\n") == 1
    assert amrsd(cwd=tmp_path).returncode == 2


@pytest.mark.slow
def test_an_argument_that_is_no_flag_is_refused_but_by_report(tmp_path):
    done = amrsd("compare", "runs/one", "--rollouts=runs/two", "--out=there", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr == "error: 'runs/one': expected only flags, --NAME=VALUE\n"
    done = amrsd("report", "runs/one", cwd=tmp_path)
    assert done.returncode == 1 and "expected only flags" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_lists_its_flags(command, tmp_path):
    done = amrsd(command, "--help", cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr
    for flag in FLAGS[command]:
        assert f"  --{flag}:" in done.stdout or f"  --[no]{flag}:" in done.stdout
    assert ("--config.FIELD=VALUE" in done.stdout) == ("config" in FLAGS[command])


@pytest.mark.slow
def test_the_module_has_the_same_help_and_all_fields(tmp_path):
    done = python("-m", "amrsd_jax.main", "--helpfull", cwd=tmp_path)
    assert done.returncode == 0 and "  --config:" in done.stdout
    assert "  --config.rollout.group=8    int >= 1\n      G, responses per problem\n" in done.stdout
    assert "  smollm2\n      A pretrained model of 135 million parameters" in done.stdout


def test_what_is_installed(installed):
    names = {path.name for path in (ROOT / "configs").glob("*.py")}
    assert {path.name for path in (installed / "amrsd_jax" / "configs").glob("*.py")} == names
    assert (installed / "amrsd_jax" / "py.typed").exists()
    assert [path.name for path in installed.iterdir()] == ["amrsd_jax"]  # no `configs` or `tests` beside it


@pytest.mark.slow
def test_an_installed_package_plans_a_run_by_its_name_and_writes_nothing(installed, tmp_path):
    done = amrsd("train", "--config=baselines:sdpo", "--config.steps=3", "--dry_run", cwd=tmp_path, path=installed)
    assert done.returncode == 0, done.stderr
    assert "* steps = 3    (default 30)\n" in done.stdout and "  teacher.kind = 'ema'\n" in done.stdout
    assert "\npeak " in done.stdout and not list(tmp_path.iterdir())
    too_large = ("--config.model=qwen3-32b", "--config.warmup.documents=0")
    done = amrsd("train", "--config=quickstart", *too_large, "--dry_run", cwd=tmp_path, path=installed)
    assert done.returncode == 1 and "do not fit into" in done.stdout
    done = amrsd("train", "--config=quickstart", "--config.steps=0", "--dry_run", cwd=tmp_path, path=installed)
    assert done.returncode == 1 and done.stderr.startswith("config error: steps = 0")


@pytest.mark.slow
def test_configs_of_an_installed_package_can_be_imported(installed, tmp_path):
    (tmp_path / "mine.py").write_text("from configs.baselines import get_config\n")
    program = (
        "from amrsd_jax.config_files import read; print(read('mine.py:sdpo').credit.rule)\n"
        "from amrsd_jax.configs import baselines; print(baselines.get_config('rlsd').credit.rule)"
    )
    done = python("-c", program, cwd=tmp_path, path=installed)
    assert done.stdout.split() == ["sdpo", "rlsd"], done.stderr
