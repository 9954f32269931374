#!/usr/bin/env bash
# Writes requirements.lock: every package that CI installs, at one version, with its hashes. torch and what it brings for GPUs are
# left out: their build is the machine's (scripts/setup.sh). Versions stay where they can; --upgrade takes the newest. UV=PATH
# names another uv.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${UV:=uv}"
lock=$(mktemp -d)
trap 'rm -rf "$lock"' EXIT
echo 'torch==2.13.0' >"$lock/constraints.txt"
cp requirements.lock "$lock/all.txt" # uv keeps the versions it finds there
"$UV" pip compile -q pyproject.toml --extra dev -c "$lock/constraints.txt" --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-header --no-annotate -o "$lock/all.txt" "$@"
{
  echo "# Made by scripts/lock.sh: make setup LOCKED=yes installs exactly this."
  awk '/^[a-zA-Z]/ { keep = !/^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z-]+)(==|\[)/ } keep' "$lock/all.txt"
} >requirements.lock
