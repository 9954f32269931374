"""A script in the style of nanoGPT: globals that are overridden by `--key=value`, and a loss on its own validation split."""

import ast
import json
import sys
from pathlib import Path

import torch
from torch import nn

n_embd, n_layer, block_size, batch_size, max_iters, eval_interval = 32, 2, 16, 8, 100, 20
learning_rate, seed, out_dir, metrics_file, resume = 1e-3, 0, "out", "metrics.jsonl", 0
for argument in sys.argv[1:]:
    key, value = argument.removeprefix("--").split("=", 1)
    old = globals()[key]
    globals()[key] = value if isinstance(old, str) else type(old)(ast.literal_eval(value))
torch.manual_seed(seed)

text = torch.tensor(list(Path(ast.__file__).read_bytes()))
train_data, val_data = text[: int(0.9 * len(text))], text[int(0.9 * len(text)) :]


def get_batch(data, count):
    starts = torch.randint(len(data) - block_size - 1, (count,))
    sequences = torch.stack([data[start : start + block_size + 1] for start in starts])
    return sequences[:, :-1], sequences[:, 1:]


class Block(nn.Module):
    """A gated causal convolution in place of attention: it needs no mask and is as short."""

    def __init__(self):
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(n_embd), nn.Conv1d(n_embd, 2 * n_embd, 4, padding=3)

    def forward(self, x):
        mixed, gate = self.mix(self.norm(x).mT)[..., : x.shape[1]].mT.chunk(2, -1)
        return x + mixed * gate.sigmoid()


model = nn.Sequential(nn.Embedding(256, n_embd), *(Block() for _ in range(n_layer)), nn.Linear(n_embd, 256))
optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
checkpoint, iteration = Path(out_dir, "ckpt.pt"), 0
if resume and checkpoint.exists():
    iteration, weights, moments = torch.load(checkpoint)
    model.load_state_dict(weights), optimizer.load_state_dict(moments)
while iteration < max_iters:
    x, y = get_batch(train_data, batch_size)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
    optimizer.step()
    iteration += 1
    if iteration % eval_interval == 0 or iteration == max_iters:
        with torch.no_grad():
            x, y = get_batch(val_data, 64)
            loss = nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten()).item()
        with open(metrics_file, "a") as file:
            file.write(json.dumps({"tokens": iteration * batch_size * block_size, "loss": loss}) + "\n")
        torch.save((iteration, model.state_dict(), optimizer.state_dict()), checkpoint)  # nanoGPT writes in place, too
