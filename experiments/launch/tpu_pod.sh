#!/usr/bin/env bash
# Starts one run on all hosts of a Cloud TPU slice: one process per host; JAX finds the others by itself.
#
#   TPU=my-slice ZONE=us-west4-a experiments/launch/tpu_pod.sh setup
#   TPU=my-slice ZONE=us-west4-a experiments/launch/tpu_pod.sh run \
#     --config=configs/quickstart.py --workdir=/mnt/shared/runs/name --config.mesh.fsdp=16
#   TPU=my-slice ZONE=us-west4-a experiments/launch/tpu_pod.sh stop
#
#   EXTRAS=tpu,wandb ... setup                              further extras of setup.py
#   ENVIRONMENT='WANDB_API_KEY=... HF_TOKEN=...' ... run    variables of the processes; HF_TOKEN is for gated models and private data
#
# Start it from the repository, on a machine where gcloud is logged in. `setup` copies the repository's last commit to every host and
# installs it there; `run` starts the same command on all of them and shows their output; `stop` asks them for a checkpoint. The workdir, and rows and model if they are files, must be on a file system that all
# hosts see (Filestore over NFS, or a bucket mounted with gcsfuse). The same `run` again continues. The hosts' python3 must be 3.11
# or later, as in images of Ubuntu 24.04.

set -euo pipefail
: "${TPU:?name of the slice}" "${ZONE:?its zone}"

# gcloud runs the command in a shell of each host.
everywhere() {
  gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$1"
}

action=${1:?setup, run or stop}
shift
case $action in
  setup)
    archive=$(mktemp --suffix=.tar.gz)
    trap 'rm -f "$archive"' EXIT
    git archive --format=tar.gz --output="$archive" HEAD
    gcloud compute tpus tpu-vm scp "$archive" "$TPU:amrsd_jax.tar.gz" --zone="$ZONE" --worker=all
    everywhere 'mkdir -p amrsd_jax && tar xzf amrsd_jax.tar.gz -C amrsd_jax && cd amrsd_jax &&
      python3 -m venv .venv && .venv/bin/pip install -q -e ".['"${EXTRAS:-tpu}"']"'
    ;;
  run)
    # Quoted once more, because ssh passes one line to the remote shell.
    everywhere "cd amrsd_jax && exec env ${ENVIRONMENT:-} .venv/bin/python -m amrsd_jax.main $(printf '%q ' "$@")"
    ;;
  stop)
    # One host is enough: all hosts agree on the step. The brackets keep the pattern from matching this shell itself.
    gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=0 \
      --command="pkill -TERM -f '[a]mrsd_jax.main'"
    ;;
  *)
    echo "$action: expected setup, run or stop" >&2
    exit 2
    ;;
esac
