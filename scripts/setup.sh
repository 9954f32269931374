#!/usr/bin/env bash
# Makes the environment. torch comes first, in the build that $TORCH names, so that nothing else pulls in CUDA's packages
# where there is no GPU:
#   auto     a wheel from a folder that pip is configured with, if there is one; else the build for this machine's GPU,
#            or the one without CUDA where there is no GPU (uv knows where each lies)
#   cpu, cu128, rocm6.3, ...   that build
# LOCKED=yes installs nothing whose hash is not in torch.lock (uv, torch) or requirements.lock (all else).
set -euo pipefail
: "${PYTHON:=python3}" "${VENV:=.venv}" "${TORCH:=auto}" "${LOCKED:=no}"
version=2.13.0

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "shapelaw needs Python 3.11 or newer; PYTHON=$PYTHON is $("$PYTHON" --version)" >&2; exit 2; }
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
pip() { "$VENV/bin/python" -m pip "$@"; }

uv() { "$VENV/bin/uv" "$@" --python "$VENV/bin/python"; }

if [ "$LOCKED" = yes ]; then
  locked=$(mktemp -d)
  trap 'rm -rf "$locked"' EXIT
  for name in uv torch; do awk -v name="$name" '/^[a-z]/ { keep = index($0, name "==") == 1 } keep' torch.lock >"$locked/$name"; done
  what_is_uv=(--require-hashes -r "$locked/uv")
  what_is_torch=(--require-hashes --no-deps -r "$locked/torch")
else
  what_is_uv=('uv>=0.9')
  what_is_torch=("torch==$version")
fi

have_torch() { "$VENV/bin/python" -c 'import torch' 2>/dev/null; }
from_folder() { [ "$TORCH" = auto ] && pip install -q --no-index --no-deps "${what_is_torch[@]}" 2>/dev/null; }
with_uv() { pip install -q "${what_is_uv[@]}" && uv pip install -q --torch-backend "$TORCH" "${what_is_torch[@]}"; }

if ! have_torch; then
  if [ "$(uname)" = Darwin ]; then
    pip install -q "${what_is_torch[@]}"
  elif from_folder; then
    :
  elif ! with_uv; then
    [ "$LOCKED" = no ] || { echo "torch.lock has no hash of torch's build TORCH=$TORCH for this machine; leave LOCKED=yes out" >&2; exit 2; }
    [ "$TORCH" = auto ] || { echo "torch's build TORCH=$TORCH could not be installed" >&2; exit 2; }
    echo "the small build of torch could not be had; taking the index's default one" >&2
    pip install -q "torch==$version"
  fi
fi
if [ "$LOCKED" = yes ]; then
  pip install -q "${what_is_uv[@]}"
  uv pip install -q --require-hashes --no-deps -r requirements.lock
  pip install -q --no-build-isolation --no-deps -e .
  uv pip check -q
else
  pip install -q -e '.[dev]'
fi
