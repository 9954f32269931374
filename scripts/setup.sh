#!/usr/bin/env bash
# Makes the environment. torch comes first, in the build that $TORCH names, so that nothing else pulls in CUDA's packages
# where there is no GPU:
#   auto     a wheel from a folder that pip is configured with, if there is one; else the build for this machine's GPU,
#            or the one without CUDA where there is no GPU (uv knows where each lies)
#   cpu, cu128, rocm6.3, ...   that build
# LOCKED=yes then installs what requirements.lock lists, with its hashes, and nothing else.
set -euo pipefail
: "${PYTHON:=python3}" "${VENV:=.venv}" "${TORCH:=auto}" "${LOCKED:=no}"
version=2.13.0

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "shapelaw needs Python 3.11 or newer; PYTHON=$PYTHON is $("$PYTHON" --version)" >&2; exit 2; }
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
pip() { "$VENV/bin/python" -m pip "$@"; }

have_torch() { "$VENV/bin/python" -c 'import torch' 2>/dev/null; }
from_folder() { [ "$TORCH" = auto ] && pip install -q --no-index --no-deps "torch==$version" 2>/dev/null; }
with_uv() { pip install -q 'uv>=0.9' && "$VENV/bin/uv" pip install -q --python "$VENV/bin/python" --torch-backend "$TORCH" "torch==$version"; }

if ! have_torch; then
  if [ "$(uname)" = Darwin ]; then
    pip install -q "torch==$version"
  elif from_folder; then
    :
  elif ! with_uv; then
    [ "$TORCH" = auto ] || { echo "torch's build TORCH=$TORCH could not be installed" >&2; exit 2; }
    echo "the small build of torch could not be had; taking the index's default one" >&2
    pip install -q "torch==$version"
  fi
fi
if [ "$LOCKED" = yes ]; then
  pip install -q --require-hashes --no-deps -r requirements.lock
  pip install -q --no-build-isolation --no-deps -e .
  pip check >/dev/null || { pip check >&2; exit 1; }
else
  pip install -q -e '.[dev]'
fi
