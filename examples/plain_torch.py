"""A plain PyTorch script that knows nothing of shapelaw: a small causal transformer on the bytes of Python's own sources."""

import argparse
import json
from pathlib import Path

import torch
from torch import nn

KINDS = dict.fromkeys(("width", "depth", "steps", "batch", "seq-len", "seed", "every"), int)
options = argparse.ArgumentParser()
for name, kind in {**KINDS, "lr": float, "out": Path, "metrics": Path}.items():
    options.add_argument(f"--{name}", type=kind, required=True)
args = options.parse_args()
torch.manual_seed(args.seed)

text = b"".join(path.read_bytes() for path in sorted(Path(argparse.__file__).parent.glob("[a-d]*.py")))
data = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
held_out, data = data[: 2**13], data[2**13 :]


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(256, args.width), nn.Linear(args.width, 256)
        layer = nn.TransformerEncoderLayer(args.width, args.width // 8, 4 * args.width, 0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, args.depth, enable_nested_tensor=False)

    def loss(self, sequences):
        mask = nn.Transformer.generate_square_subsequent_mask(args.seq_len)
        hidden = self.blocks(self.embedding(sequences[:, :-1]), mask=mask, is_causal=True)
        return nn.functional.cross_entropy(self.head(hidden).flatten(0, 1), sequences[:, 1:].flatten())


def batch(text, starts):
    return torch.stack([text[start : start + args.seq_len + 1] for start in starts])


model, first, checkpoint = Model(), 0, args.out / "checkpoint.pt"
optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
if checkpoint.exists():
    first, weights, moments = torch.load(checkpoint)
    model.load_state_dict(weights)
    optimizer.load_state_dict(moments)
for step in range(first + 1, args.steps + 1):
    torch.manual_seed(args.seed * 1_000_003 + step)
    loss = model.loss(batch(data, torch.randint(len(data) - args.seq_len - 1, (args.batch,))))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % args.every == 0 or step == args.steps:
        with torch.no_grad():
            held = model.loss(batch(held_out, range(0, len(held_out) - args.seq_len - 1, args.seq_len))).item()
        line = {"tokens": step * args.batch * args.seq_len, "loss": held, "train_loss": loss.item()}
        line["params"] = sum(parameter.numel() for parameter in model.parameters())
        with args.metrics.open("a") as file:
            file.write(json.dumps(line) + "\n")
        torch.save((step, model.state_dict(), optimizer.state_dict()), args.out / "aside.pt")
        (args.out / "aside.pt").rename(checkpoint)  # so that it is whole, whenever the script is killed
