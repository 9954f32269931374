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
program="{python} examples/nanogpt_style.py --n_embd={shape.width} --n_layer={shape.depth} --learning_rate={lr} --seed={seed}"
program+=" --max_iters={steps} --eval_interval=5 --batch_size={batch_sequences} --block_size={seq_len} --out_dir={folder}"
program+=" --metrics_file={metrics} --resume={resume}"
shapelaw train "${own[@]}" trainer=command "trainer.command=\"$program\""
[ "$(find outputs/runs/mine -maxdepth 2 -name state.json | wc -l)" = 5 ]

# two sweeps beside each other, by a program that learns nothing and a command of several lines, and a fit of both
cat >lab.py <<'PYTHON'
import json
import sys

given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
with open(given["--metrics"], "a") as file:
    for tokens in range(4096, int(given["--tokens"]) + 1, 2048):
        loss = 2 + (9 if given["--arch"] == "swiglu" else 10) / (int(given["--width"]) * tokens) ** 0.1
        file.write(json.dumps({"tokens": tokens, "loss": loss}) + "\n")
PYTHON
lab="{python} lab.py \\
  --arch {sweep.name} --width {shape.width} \\
  --tokens {tokens} --metrics {metrics}"
sweeps=(trainer=command "trainer.command=\"$lab\"" shape.width=16,32 sweep.name=swiglu,geglu)
shapelaw train -m "${own[@]}" "${sweeps[@]}" hydra/launcher=plan >plan.txt
grep -q "lab.py --arch geglu --width 32 --tokens 16384 --metrics $PWD/outputs/runs/mine" plan.txt
shapelaw train -m "${own[@]}" "${sweeps[@]}"
both='subset.where="sweep == \"swiglu\" or sweep == \"geglu\""'
shapelaw fit law=power_flops "$both" "speedup='sweep == \"geglu\"'" bootstrap.n=20 plots=false
