"""litgpt's GPT as a rival: runs in an environment of its own and obeys commands, one JSON object a line.

    {"do": "step", "steps": 3}                         -> {"seconds": [...]} of CPU or wall time for each step
    {"do": "parity", "given": FILE, "out": FILE}       -> loads weights and tokens, saves logits, loss and gradients

Called by train_step.py, which passes the sizes as one JSON object on the command line. Imports nothing of shapelaw.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from litgpt import GPT, Config
from litgpt.utils import chunked_cross_entropy


def build(sizes: dict[str, Any]) -> GPT:
    """The model of the same function; "Gemma" in the name makes litgpt's norms add 1 to their weights."""
    config = Config(
        name="Gemma-like",
        block_size=sizes["seq_len"],
        padded_vocab_size=sizes["vocab_size"],
        n_layer=sizes["depth"],
        n_embd=sizes["width"],
        n_head=sizes["n_head"],
        n_query_groups=sizes["n_kv_head"],
        head_size=sizes["head_size"],
        intermediate_size=sizes["intermediate"],
        rotary_percentage=1.0,
        rope_base=sizes["rope_base"],
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=sizes["norm_eps"],
        mlp_class_name="GemmaMLP",
        gelu_approximate="tanh",
        scale_embeddings=True,
    )
    torch.manual_seed(0)
    return GPT(config)


def loss_of(model: GPT, tokens: torch.Tensor, chunk_size: int) -> torch.Tensor:
    """litgpt's own loss, as its pretraining script calls it (chunk_size 128) or in one piece (0)."""
    return chunked_cross_entropy(model(tokens[:, :-1]), tokens[:, 1:], chunk_size=chunk_size)


def stepper(model: GPT, sizes: dict[str, Any]) -> Callable[[], None]:
    """One full training step: gradients, clip, AdamW in torch's fused form (its pretraining asks for it on CUDA alone)."""
    tokens = torch.randint(sizes["vocab_size"], (sizes["batch"], sizes["seq_len"] + 1))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step() -> None:
        optimiser.zero_grad()
        loss_of(model, tokens, sizes["chunk_size"]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    return step


def parity(model: GPT, given: str, out: str) -> None:
    """Saves logits, loss and gradients for the given weights and tokens."""
    case = torch.load(given)
    model.load_state_dict(case["weights"])
    model.zero_grad()
    loss = loss_of(model, case["tokens"], chunk_size=0)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    logits = model(case["tokens"][:, :-1]).detach()
    torch.save({"logits": logits, "loss": loss.detach(), "gradients": gradients}, out)


def main() -> None:
    """Serves commands until the input ends."""
    sizes = json.loads(sys.argv[1])
    torch.set_num_threads(sizes["threads"])
    clock = getattr(time, sizes["clock"])
    model = build(sizes)
    step = stepper(model, sizes)
    print(json.dumps({"params": sum(p.numel() for p in model.parameters()), "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any] = {}
        if command["do"] == "parity":
            parity(model, command["given"], command["out"])
        else:
            seconds = []
            for _ in range(command["steps"]):
                start = clock()
                step()
                seconds.append(clock() - start)
            answer = {"seconds": seconds}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
