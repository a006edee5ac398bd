#!/usr/bin/env bash
# Trains on several machines without a scheduler. Run on each of them, with the same FIRST:
#   NODES=2 NODE=0 FIRST=host0 docs/torchrun.sh exp=ddpm_cifar [key=value …]
#   NODES=2 NODE=1 FIRST=host0 docs/torchrun.sh exp=ddpm_cifar [key=value …]
set -euo pipefail
: "${NODES:=1}" "${NODE:=0}" "${FIRST:=localhost}" "${PROCESSES:=1}" "${PORT:=29500}"

exec .venv/bin/torchrun --nnodes="$NODES" --node-rank="$NODE" --nproc-per-node="$PROCESSES" \
    --master-addr="$FIRST" --master-port="$PORT" -m score_lightning.train "$@" resume=auto \
    trainer.num_nodes="$NODES" trainer.devices="$PROCESSES"
