#!/usr/bin/env bash
# Fails where a package of requirements.lock or torch.lock was yanked or removed from the index since. FILE ... checks others.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${VENV:=.venv}" "${UV:=$VENV/bin/uv}"
[ "$#" -gt 0 ] || set -- requirements.lock torch.lock
for file in "$@"; do
  said=$("$UV" pip install --dry-run --reinstall --refresh --require-hashes --no-deps --python "$VENV/bin/python" -r "$file" 2>&1) ||
    { echo "$said" >&2; exit 1; }
  yanked=$(grep 'is yanked' <<<"$said" || true)
  [ -z "$yanked" ] || { printf '%s: %s\n' "$file" "$yanked" >&2; exit 1; }
done
