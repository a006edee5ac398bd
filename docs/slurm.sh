#!/usr/bin/env bash
# Trains on SLURM and goes on by itself after its time is over or the machine is taken away:
#   sbatch docs/slurm.sh exp=ddpm_cifar [key=value …]
#SBATCH --job-name=score_lightning
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=SIGUSR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail

# one process per GPU, started by srun; five minutes before the end they save and leave with code 75
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" .venv/bin/python -m score_lightning.train "$@" resume=auto \
    trainer.num_nodes="$SLURM_JOB_NUM_NODES" trainer.devices="$SLURM_NTASKS_PER_NODE" trainer.progress=false
code=$?
if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
