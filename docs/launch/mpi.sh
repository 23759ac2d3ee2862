#!/usr/bin/env bash
# Training by MPI's launcher, which starts the processes but carries none of their data:
#
#     mpirun -n 8 --hostfile hosts docs/launch/mpi.sh \
#         --config=configs/sevir.py --workdir=runs/sevir
#
# COORDINATOR is the machine of rank 0, by default the first of the hostfile in HOSTS.
set -euo pipefail

HOSTS=${HOSTS:-hosts}
if [ -z "${COORDINATOR:-}" ] && [ -r "$HOSTS" ]; then
    COORDINATOR=$(awk '!/^#/ && NF { print $1; exit }' "$HOSTS")
fi
if [ -n "${COORDINATOR:-}" ]; then
    export JAX_COORDINATOR_ADDRESS="$COORDINATOR:${PORT:-8476}"
fi
exec python -m earthformer_jax.main --distributed "$@"
