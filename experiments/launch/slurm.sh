#!/usr/bin/env bash
# Starts one run on several GPU nodes under Slurm: one process per GPU; JAX finds the others by itself.
#
#   sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 experiments/launch/slurm.sh \
#     --config=configs/quickstart.py --workdir=SHARED/runs/name --config.mesh.fsdp=8 --config.mesh.tensor=1
#
# Everything after the script's name goes to amrsd_jax.main. The repository, its .venv (installed with .[cuda12] or .[cuda13])
# and the workdir must be on a file system that all nodes see; so must the rows and the model, if they are files.
# The same command again continues the run.

#SBATCH --job-name=amrsd
#SBATCH --cpus-per-task=8
#SBATCH --output=%x-%j.log
#SBATCH --signal=TERM@180
#SBATCH --requeue

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?to be started with sbatch}"

# Slurm sends SIGTERM to every step 180 seconds before the time limit: all processes leave the sampling
# or finish the step, write a checkpoint and end. --kill-on-bad-exit ends the others when one process dies; they would wait for it.
srun --kill-on-bad-exit=1 --label .venv/bin/python -m amrsd_jax.main "$@"
