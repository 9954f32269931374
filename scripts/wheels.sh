#!/usr/bin/env bash
# Gathers the wheels that training needs on a machine that reaches no package registry, as many GPU nodes do not.
#
#   scripts/wheels.sh FOLDER [PACKAGE ...]
#
# They are for Python 3.12 on x86-64 Linux, at the versions of requirements.lock, at most LIMIT_MB (55) together. Left out is what
# such a machine has for its torch (torch, numpy, safetensors, tokenizers, transformers, pytorch-lightning), each PACKAGE named
# here, and what only fits, figures and tables need (scipy, pandas, pyarrow, numba, matplotlib, scikit-learn), which are 160 MB.
# docs/gpu.md says how they are installed. UV names another uv.
set -euo pipefail
: "${UV:=uv}" "${LIMIT_MB:=55}"
[ $# -gt 0 ] || { sed -n '2,/^set/s/^# \?//p' "$0" | head -n -1 >&2; exit 2; }
mkdir -p "$1" && folder=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."
there=(torch numpy safetensors tokenizers transformers pytorch-lightning "$@")
fits=(scipy pandas pyarrow numba matplotlib scikit-learn)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '%s; python_version < "0"\n' "${there[@]}" "${fits[@]}" >"$work/never"
# a constraint of another Python's version would be none of this one's
grep -oE '^[A-Za-z0-9._-]+==[^ ]+( ;.*[^\\ ])?' requirements.lock >"$work/locked"
printf 'hatchling\npytest\nhypothesis\n' >"$work/further.in" # shapelaw itself is built there; benchmarks/gpu.sh runs tests
"$UV" pip compile -q pyproject.toml "$work/further.in" --extra train --python-version 3.12 --python-platform x86_64-manylinux_2_28 \
  --constraint "$work/locked" --override "$work/never" --no-header --no-annotate -o "$work/wheels"
platforms=()
for glibc in 2_5 2_12 2_17 2_24 2_26 2_27 2_28 2_31 2_34; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
  "${platforms[@]}" --platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform manylinux1_x86_64 \
  -r "$work/wheels" -d "$folder"
size_mb=$(du -cm "$folder"/*.whl | tail -1 | cut -f1)
echo "$(ls "$folder"/*.whl | wc -l) wheels, $size_mb MB, in $folder"
[ "$size_mb" -le "$LIMIT_MB" ] || { echo "more than LIMIT_MB=$LIMIT_MB: name packages that the machine has" >&2; exit 1; }
