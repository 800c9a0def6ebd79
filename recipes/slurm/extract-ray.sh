#!/bin/bash
# The job on one large data folder with all GPUs of one node.
#
#   sbatch recipes/slurm/extract-ray.sh DATA [options of nucpro extract]
#
# Ray comes with: pip install 'nucpro[ray]'. A job that is preempted or out of time resumes.
#SBATCH --job-name=nucpro-extract
#SBATCH --nodes=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=8
#SBATCH --mem=0
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=nucpro-extract-%j.log
#SBATCH --signal=TERM@120
set -euo pipefail

data=${1:?the data folder}
shift
code=0
srun --ntasks=1 --cpus-per-task="${SLURM_CPUS_ON_NODE:?submit this with sbatch}" \
    nucpro extract "$data" --engine ray "$@" || code=$?
if [ "$code" -eq 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$code"
