#!/bin/bash
# The job on many data folders, one GPU each: one line of a list is one task of the array.
#
#   sbatch --array=1-$(wc -l < folders.txt) recipes/slurm/extract-array.sh folders.txt [options of nucpro extract]
#
# One data folder belongs to one task: a second run on the same folder is refused. For one large folder on many GPUs
# see extract-ray.sh. A task that is preempted or out of time is put back into the queue and resumes.
#SBATCH --job-name=nucpro-extract
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=nucpro-extract-%A_%a.log
# Two minutes before the time is up; a run needs seconds to end.
#SBATCH --signal=TERM@120
set -euo pipefail

list=${1:?a file with one data folder per line}
shift
folder=$(sed -n "${SLURM_ARRAY_TASK_ID:?submit this with --array}p" "$list")
if [ -z "$folder" ]; then
    echo "$list has no line $SLURM_ARRAY_TASK_ID" >&2
    exit 2
fi

code=0
srun --ntasks=1 nucpro extract "$folder" "$@" || code=$?
# 143: ended by the signal above, finished files are kept.
if [ "$code" -eq 143 ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
    exit 0
fi
exit "$code"
