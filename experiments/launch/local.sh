#!/usr/bin/env bash
# Starts one run in several processes on this machine, to try what a cluster will do; CPUs communicate over gloo.
#
#   experiments/launch/local.sh 2 --config=configs/quickstart.py --workdir=runs/two --config.mesh.fsdp=2
#
# The first argument is the number of processes, the others go to amrsd_jax.main. This is also the pattern for a cluster
# without a scheduler: the same three variables on every host, with the address of the host of process 0.

set -euo pipefail
cd "$(dirname "$0")/../.."
export JAX_NUM_PROCESSES=${1:?number of processes} JAX_COORDINATOR_ADDRESS=${JAX_COORDINATOR_ADDRESS:-localhost:12355}
shift
python=$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)

set -m # own process groups, so that Ctrl-C reaches the processes once, through the trap: a second signal stops them at once
pids=()
trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' INT TERM
for ((number = 0; number < JAX_NUM_PROCESSES; number++)); do
  JAX_PROCESS_ID=$number "$python" -m amrsd_jax.main "$@" &
  pids+=("$!")
done
for pid in "${pids[@]}"; do
  while kill -0 "$pid" 2>/dev/null; do wait "$pid" || status=$?; done
done
exit "${status:-0}"
