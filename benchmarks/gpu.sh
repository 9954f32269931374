#!/usr/bin/env bash
# What needs a GPU, part by part; each part takes at most LIMIT_S seconds and can be asked for alone.
#
#   bash benchmarks/gpu.sh                       all parts, in this order
#   bash benchmarks/gpu.sh environment memory    those
#   TINY=1 bash benchmarks/gpu.sh                the same on a CPU with tiny settings: a test of this script
#
#   environment     device, versions, what is missing
#   tests           tests whose names say that they need a GPU (flash attention, batches)
#   speed-SHAPE     benchmarks/train_step.py for each of the shapes
#   memory          estimated over measured peak of a step: all within 15%
#   nano            the nano suite: corpus, twelve runs, eq 1 and eq 2
#   resume          benchmarks/resume.py: a run twice, and killed and continued, bit for bit
#   nano-cooldown   a cooldown of each of those runs: continues from their checkpoints
#   micro-prepare   corpus of the micro suite: source text of all installed packages, byte-pair vocabulary trained on it
#   micro           its twelve runs; cut off by the limit, the same command again continues them
#   micro-fit       their runs table (Parquet), eq 1 and eq 2
#
# A part writes to OUT (default outputs/gpu): PART.log, and its results; those that are kept go to benchmarks/results
# afterwards. A part that fails does not stop the others. Exit code: 0; 1 if a part failed; 75 if one was cut off by its
# limit and none failed; 2 for an unknown part.
#
# Environment: OUT, LIMIT_S (590), PYTHON (.venv/bin/python), LITGPT_PYTHON (see benchmarks/train_step.py), WORKERS (runs at
# once on the device, 2), SHAPES, MICRO_TOKENS (a shape's, 98304000; its quarters are allowed).
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
: "${TINY:=0}" "${OUT:=outputs/gpu}" "${LIMIT_S:=590}" "${PYTHON:=.venv/bin/python}" "${WORKERS:=2}"
: "${LITGPT_PYTHON:=.venv-litgpt/bin/python}" "${MICRO_TOKENS:=98304000}"
mkdir -p "$OUT" || exit 2
OUT=$(cd "$OUT" && pwd)
if [ "$TINY" = 1 ]; then
  : "${SHAPES:=128x2 256x1}"
  SPEED=(--device cpu --context 64 --vocab 1000 --rounds 2)
  MEMORY=(64x2,256,64,4,1 128x2,1024,64,4,2)
  NANO=("shape=16x1,32x1,32x2,48x1,64x1,48x2" "tokens=61440" "warmup_tokens=4096" "validation.every_tokens=8192"
    "validation.tokens=4096" "checkpoint.every_tokens=61440")
  MICRO=("shape=128x16,256x4,256x8,384x4,512x2,512x4" "seq_len=32" "batch_tokens=256" "tokens=5120" "warmup_tokens=512"
    "validation.every_tokens=512" "validation.tokens=512" "checkpoint.every_tokens=5120")
  RESUME=("validation.tokens=4096")
  FIT=("bootstrap=none") CORPUS=("data.path=$OUT/site") # one small package beside the standard library
else
  : "${SHAPES:=256x23 512x12 768x45 1024x28 2048x27}"
  SPEED=() MEMORY=() FIT=() CORPUS=() RESUME=() NANO=("shape=glob(*)")
  MICRO=("shape=glob(*)" "tokens=$MICRO_TOKENS" "warmup_tokens=$((MICRO_TOKENS / 15))")
fi
export SHAPELAW_OUTPUTS="$OUT/outputs"

environment() {
  command -v nvidia-smi >/dev/null && nvidia-smi
  "$PYTHON" - <<'PYTHON'
import importlib.util, platform, torch
print("Python", platform.python_version(), "torch", torch.__version__, "CUDA", torch.version.cuda, "ROCm", torch.version.hip)
print("device:", torch.cuda.get_device_name() if torch.cuda.is_available() else "none: parts run on the CPU")
for name in ("triton", "flash_attn", "axonn", "transformers"):
    print(f"{name}:", "there" if importlib.util.find_spec(name) else "missing")
import lightning, mlflow, shapelaw
print("lightning", lightning.__version__, "mlflow", mlflow.__version__)
PYTHON
  [ "$TINY" = 1 ] || "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'
}

can() { # fit|test: whether what fits and tests need is here; scripts/wheels.sh leaves it out
  "$PYTHON" -c 'import numba, pandas, pyarrow, scipy' || { echo "this Python cannot $1: the package above is missing"; return 1; }
}

tests() {
  can test || return 0
  "$PYTHON" -m pytest -n 0 -q -rs tests/model tests/training/test_memory.py tests/training/test_loop.py -k "gpu or flash"
}

speed() {
  "$PYTHON" benchmarks/train_step.py --shape "$1" --litgpt-python "$LITGPT_PYTHON" --out "$OUT/train_step_$1.txt" "${SPEED[@]}"
}

memory() { "$PYTHON" benchmarks/memory.py "${MEMORY[@]}" | tee "$OUT/memory.txt"; }

nano() {
  SHAPELAW_SUITE=nano "$PYTHON" prepare.py progress=false && SHAPELAW_SUITE=nano sweep "${NANO[@]}" && fits nano
}

nano-cooldown() { SHAPELAW_SUITE=nano sweep "${NANO[@]}" cooldown=linear10; }

resume() { SHAPELAW_SUITE=nano "$PYTHON" prepare.py progress=false && "$PYTHON" benchmarks/resume.py "${RESUME[@]}" | tee "$OUT/resume.txt"; }

micro-prepare() {
  if [ "$TINY" = 1 ] && [ ! -d "$OUT/site" ]; then
    local from
    from=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    mkdir "$OUT/site" && cp -r "$from"/iniconfig "$from"/iniconfig-*.dist-info "$OUT/site" || return
  fi
  SHAPELAW_SUITE=micro "$PYTHON" prepare.py progress=false "${CORPUS[@]}"
}

micro() { SHAPELAW_SUITE=micro sweep "${MICRO[@]}"; }

micro-fit() { fits micro; }

sweep() { # OVERRIDE...: runs of the suite in force
  local start=$SECONDS
  "$PYTHON" train.py -m "$@" lr_base=5 "hydra.launcher.workers=$WORKERS" && echo "$((SECONDS - start)) s in this part"
}

fits() { # SUITE: runs table and laws
  can fit || return 0
  export SHAPELAW_SUITE=$1
  "$PYTHON" - "$1" "sqlite:///$SHAPELAW_OUTPUTS/mlflow.db" "$OUT/runs_$1.parquet" <<'PYTHON' || return
import sys
from shapelaw import load_runs
runs = load_runs("mlflow", uri=sys.argv[2], experiment=sys.argv[1])
print(len(runs), "validations:", runs.to_parquet(sys.argv[3]))
PYTHON
  for law in params_tokens width_depth_params_tokens; do # eq 1, eq 2
    "$PYTHON" fit.py "law=$law" "${FIT[@]}" | tee "$OUT/fit_$1_$law.txt" || return
  done
}

parts=(environment tests)
for shape in $SHAPES; do parts+=("speed-$shape"); done
parts+=(memory nano resume nano-cooldown micro-prepare micro micro-fit)
asked=("$@")
[ $# -gt 0 ] || asked=("${parts[@]}")
for part in "${asked[@]}"; do
  [[ " ${parts[*]} " == *" $part "* ]] || { echo "$part: no such part; there are ${parts[*]}" >&2; exit 2; }
done

export -f can environment tests speed memory nano resume nano-cooldown micro-prepare micro micro-fit sweep fits
run_part() { # in a shell of its own, with the limit
  local words=("$1")
  [[ $1 == speed-* ]] && words=(speed "${1#speed-}")
  timeout --signal=INT --kill-after=30 "$LIMIT_S" bash -c "$(declare -p SPEED MEMORY NANO RESUME MICRO FIT CORPUS)
set -uo pipefail; $(printf '%q ' "${words[@]}")"
}
export TINY OUT PYTHON WORKERS LITGPT_PYTHON

code=0
for part in "${asked[@]}"; do
  start=$SECONDS
  run_part "$part" >"$OUT/$part.log" 2>&1
  got=$?
  case $got in
    0) verdict=done ;;
    124 | 130 | 137) verdict="cut off after $LIMIT_S s; the same command continues it" ; [ $code = 0 ] && code=75 ;;
    *) verdict="FAILED with code $got: $(tail -1 "$OUT/$part.log")" ; code=1 ;;
  esac
  echo "$part: $verdict ($((SECONDS - start)) s, $OUT/$part.log)" | tee -a "$OUT/summary.txt"
done
exit $code
