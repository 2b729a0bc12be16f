#!/bin/bash
# A job of a cluster: it may read the folder that holds its input, and write one folder of results.
#
#   sbatch examples/slurm/job.sh examples/csv_totals.py examples/data/orders.csv results
#
#SBATCH --job-name=orders
#SBATCH --output=%x-%j.log
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=512M
#SBATCH --time=01:00:00
# SIGTERM a minute before the time is up, to the process of this script alone: B. It is the supervisor then (exec, below),
# which passes it on to the program.
#SBATCH --signal=B:TERM@60
set -euo pipefail

if [ $# -ne 3 ]; then
  echo "usage: $0 PROGRAM INPUT RESULTS" >&2
  exit 2
fi
program=$1
input=$(realpath -- "$2")
mkdir -p -- "$3"
results=$(realpath -- "$3")

# Slurm's exit code of this job is the program's: nothing comes after this line. With further tasks: srun before it, and
# --signal=TERM@60 above, for srun's tasks.
exec sandboxed-python --permission \
  --allow-fs-read="${input%/*}/" --allow-fs-write="$results/" \
  -- "$program" "$input" "$results/totals-${SLURM_JOB_ID:-0}.json"
