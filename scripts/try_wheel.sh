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

python - <<'PYTHON'
import itertools

import numpy as np
import pandas as pd

noise = np.random.default_rng(0)
sizes = itertools.product((32, 64, 128, 256), (1, 2, 4, 8), (1e7, 3e7, 1e8, 3e8, 1e9))
rows = pd.DataFrame(sizes, columns=["width", "depth", "tokens"]).assign(head_size=16, vocab_size=256)
rows["run"] = rows.width.astype(str) + "x" + rows.depth.astype(str)
rows["loss"] = 1.2 + 20 / rows.width**0.8 + 0.4 / rows.depth**0.7 + 900 / rows.tokens**0.4
rows["loss"] *= 1 + 0.002 * noise.standard_normal(len(rows))
rows.to_csv("runs.csv", index=False)
PYTHON
shapelaw --version
shapelaw --help >help.txt
shapelaw sweeps >sweeps.txt
shapelaw fit runs=csv runs.path=runs.csv law=width_depth_tokens bootstrap.n=100
shapelaw prescribe budget=1e15
shapelaw report runs=csv runs.path=runs.csv law=width_depth_tokens 'figures=[fig06]' bootstrap.n=20
test -s outputs/reports/runs/index.html
refused=$(shapelaw train 2>&1 || true)
[ "$refused" = "shapelaw: training needs torch, which is not installed; run: pip install 'shapelaw[train]'" ] ||
  [[ "$refused" == *"no prepared corpus"* ]] || { echo "$refused" >&2; exit 1; }

"$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
  >"$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/train.pth"
mkdir texts && cp "$repository"/docs/*.md texts
shapelaw init mine
export SHAPELAW_SUITE=$PWD/mine
corpus=(data=text data.path="$PWD/texts" data.document_chars=2000 data.val_fraction=0.2)
shapelaw prepare "${corpus[@]}" progress=false
shapelaw train -m "${corpus[@]}" shape.width=16,32 shape.depth=1 tokens=16384 warmup_tokens=2048 validation.every_tokens=8192 \
  validation.tokens=4096
[ "$(find outputs/runs/mine -maxdepth 2 -name state.json | wc -l)" = 2 ]

shapelaw examples # a model, optimizer, rate, tracker and trainer of one's own, as docs/your_model.md and your_trainer.md have them
own=(shape.width=16 shape.depth=1 tokens=16384 warmup_tokens=2048 validation.every_tokens=8192 validation.tokens=4096)
shapelaw train "${corpus[@]}" "${own[@]}" model=examples/swiglu.py:SwiGLU optim=examples/lion.py:lion \
  schedule=examples/courses.py:inverse_sqrt tracker=examples/csv_tracker.py:CsvTracker
test -s losses/*.csv
program="{python} examples/plain_torch.py --width {shape.width} --depth {shape.depth} --lr {lr} --steps {steps} --every 5"
program+=" --batch {batch_sequences} --seq-len {seq_len} --seed {seed} --out {folder} --metrics {metrics}"
shapelaw train -m "${own[@]}" trainer=command "trainer.command=\"$program\""
[ "$(find outputs/runs/mine -maxdepth 2 -name state.json | wc -l)" = 4 ]
