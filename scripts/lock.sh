#!/usr/bin/env bash
# Writes requirements.lock: every package that CI installs, at one version, with its hashes; and torch.lock: uv, and torch, whose
# build is the machine's (scripts/setup.sh). What torch brings for GPUs is in neither. Versions stay where they can; --upgrade
# takes the newest. UV=PATH names another uv.
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

builds='
6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl
' # of PyTorch's own index, which the compilation does not see
cp torch.lock "$lock/torch.txt"
printf 'torch==2.13.0\nuv>=0.9\n' >"$lock/torch.in"
"$UV" pip compile -q "$lock/torch.in" --no-deps --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
  --no-annotate -o "$lock/torch.txt" "$@"
{
  echo "# Made by scripts/lock.sh: make setup LOCKED=yes installs these before requirements.lock."
  awk -v builds="$builds" '{ print }
    /^torch==/ { n = split(builds, word); for (i = 1; i < n; i += 2) print "    --hash=sha256:" word[i] " \\" }' "$lock/torch.txt"
} >torch.lock
