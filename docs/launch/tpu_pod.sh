#!/usr/bin/env bash
# Training on all machines of a TPU pod slice, by ssh from your own machine:
#
#     TPU=my-pod ZONE=us-east5-a docs/launch/tpu_pod.sh \
#         --config=configs/sevir.py --workdir=/mnt/shared/runs/sevir
#
# The package must be installed on all machines, for example by
#
#     gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
#         --command="pip install 'earthformer-jax[tpu]'"
#
# and the workdir must lie on a file system that all of them share. JAX asks the
# metadata of the machine for the others, so nothing has to be told.
set -euo pipefail

: "${TPU:?the name of the TPU, e.g. TPU=my-pod}"
: "${ZONE:?its zone, e.g. ZONE=us-east5-a}"

# One word for the shells of the machines, whatever the arguments contain.
printf -v arguments '%q ' "$@"

# Machines of a pod come and go for maintenance; the same command continues.
for attempt in $(seq "${ATTEMPTS:-5}"); do
    gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
        --command="python3 -m earthformer_jax.main --distributed $arguments" && exit 0
    echo "attempt $attempt has failed" >&2
done
exit 1
