#!/usr/bin/env bash
# Builds the wheel and uses it as someone would who has nothing else: in an environment that holds the core dependencies only, and
# in an empty directory. Then training, with the packages that $VENV has already: torch is not fetched twice.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${VENV:=.venv}"
repository=$PWD
venv=$(cd "$VENV" && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
unset SHAPELAW_SUITE SHAPELAW_OUTPUTS

"$venv/bin/python" -m pip wheel -q --no-deps --no-build-isolation -w "$place" .
wheel=$(echo "$place"/*.whl)
bytes=$(wc -c <"$wheel")
echo "the wheel has $bytes bytes"
[ "$bytes" -lt 2000000 ] || { echo "the wheel has 2 MB or more" >&2; exit 1; }

"$venv/bin/python" -m venv "$place/bare"
"$venv/bin/python" -m pip list --format=freeze --exclude-editable >"$place/constraints.txt"
"$place/bare/bin/pip" install -q -c "$place/constraints.txt" "$wheel"
mkdir "$place/empty" && cd "$place/empty"
PATH="$place/bare/bin:$PATH"

python - "$repository/docs/data/step_batch_runs.parquet" <<'PYTHON'
import sys
import pandas as pd

runs = pd.read_parquet(sys.argv[1]).query("batch_tokens == 768")
runs[["run", "width", "depth", "head_size", "vocab_size", "tokens", "loss"]].to_csv("runs.csv", index=False)
PYTHON
shapelaw --version
shapelaw --help >help.txt
shapelaw sweeps >sweeps.txt
shapelaw fit runs=csv runs.path=runs.csv law=interaction bootstrap.n=100
shapelaw prescribe budget=1e13
shapelaw report runs=csv runs.path=runs.csv 'figures=[fig06]' bootstrap.n=20
test -s outputs/reports/runs/index.html
refused=$(shapelaw train 2>&1 || true)
[ "$refused" = "shapelaw: training needs torch, which is not installed; run: pip install 'shapelaw[train]'" ] ||
  [[ "$refused" == *"no prepared corpus"* ]] || { echo "$refused" >&2; exit 1; }

"$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
  >"$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/train.pth"
mkdir texts && cp "$repository"/docs/*.md texts
shapelaw init mine
export SHAPELAW_SUITE=$PWD/mine
corpus=(data=text data.path="$PWD/texts")
shapelaw prepare "${corpus[@]}" progress=false
shapelaw train -m "${corpus[@]}" shape.width=16,32 shape.depth=1 tokens=16384 warmup_tokens=2048 validation.every_tokens=8192
[ "$(find outputs/runs/mine -name state.json | wc -l)" = 2 ]
