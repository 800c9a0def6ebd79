#!/bin/bash
# Vectors for many FASTA files, one GPU each: one line of a list is one task of the array.
#
#   sbatch --array=1-$(wc -l < files.txt)%16 recipes/slurm/embed-array.sh files.txt vectors [options of nucpro embed]
#
# Each file of vectors is written whole or not at all, and one that is there is left as it is: to repeat what failed,
# submit the same array again.
#SBATCH --job-name=nucpro-embed
#SBATCH --gpus=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --output=nucpro-embed-%A_%a.log
set -euo pipefail

list=${1:?a file with one FASTA file per line}
target=${2:?the folder for the vectors}
shift 2
fasta=$(sed -n "${SLURM_ARRAY_TASK_ID:?submit this with --array}p" "$list")
if [ -z "$fasta" ]; then
    echo "$list has no line $SLURM_ARRAY_TASK_ID" >&2
    exit 2
fi

mkdir -p "$target"
# The line's number keeps files of the same name in different folders apart.
output=$target/$SLURM_ARRAY_TASK_ID.$(basename "$fasta").pt
if [ -e "$output" ]; then
    echo "$output is there already"
    exit 0
fi
srun --ntasks=1 nucpro embed "$fasta" -o "$output" "$@"
