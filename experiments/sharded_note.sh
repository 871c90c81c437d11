#!/usr/bin/env bash
# The note on many machines that share a disk, as two SLURM arrays: the train parts, then the test parts.
#
#     MODEL=facebook/dinov2-base DATA=ILSVRC/imagenet-1k OUT=runs/dinov2 N=16 experiments/sharded_note.sh
#
# The second array is the same command without --stage; the first of its tasks fits the probes, the last makes the tables.
# A task that failed or was stopped is run again as it is: what is done is not done twice. Without SLURM on the machine
# all parts run here, one after the other, which gives the same bytes.
set -euo pipefail
: "${MODEL:?}" "${DATA:?}" "${OUT:?}"
N=${N:-16}
OPTIONS=(--data "$DATA" --out "$OUT" --quiet ${EXTRA:-}) # EXTRA="--train-per-class 200"
SBATCH=(--parsable --array "1-$N" --gpus-per-task 1 --cpus-per-task 8 --time 4:00:00 --requeue ${SLURM_EXTRA:-})

if command -v sbatch >/dev/null; then
  part() { printf 'clsinterp run %q' "$MODEL"; printf ' %q' "${OPTIONS[@]}" "$@"; printf ' --shard "$SLURM_ARRAY_TASK_ID/%s"' "$N"; }
  train=$(sbatch "${SBATCH[@]}" --job-name note-train --wrap "$(part --stage train)")
  sbatch "${SBATCH[@]}" --job-name note-test --dependency "afterok:$train" --wrap "$(part)"
else
  for i in $(seq "$N"); do clsinterp run "$MODEL" "${OPTIONS[@]}" --stage train --shard "$i/$N"; done
  for i in $(seq "$N"); do clsinterp run "$MODEL" "${OPTIONS[@]}" --shard "$i/$N"; done
fi
