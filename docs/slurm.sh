#!/usr/bin/env bash
# Trains on SLURM and resumes by itself after a time limit or a preemption:
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

# srun starts one process per GPU; five minutes before the time limit they save a checkpoint and exit with code 75
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" .venv/bin/python -m score_lightning.train "$@" resume=auto \
    trainer.num_nodes="$SLURM_JOB_NUM_NODES" trainer.devices="$SLURM_NTASKS_PER_NODE" trainer.progress=false
code=$?
if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
