"""CPU seconds of an evaluation over those of a bare transformers forward loop with loss over the same tokens, one thread.

    python benchmarks/evaluate.py

The model is a Llama of 4 blocks 256 wide over bytes, context 512; the text is that of Python's standard library. What an
evaluation does besides, is reading, decoding, encoding and checking the text, and adding up. Both load the model.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from shapelaw.config import Precision
from shapelaw.data import BytesChoice, Corpus, TextSource, load_corpus, prepare
from shapelaw.data.tokenizers import SEPARATOR
from shapelaw.evaluation.evaluate import Evaluations, Wanted, subjects_of
from shapelaw.evaluation.models import Place
from shapelaw.export.folder import byte_tokenizer

CONTEXT, BATCH, WINDOWS, REPEATS = 512, 8, 160, 5


def model(folder: Path) -> Path:
    """A Llama of random weights, and its tokenizer."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=256, max_position_embeddings=CONTEXT + 1)).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer(), eos_token=SEPARATOR).save_pretrained(folder)
    return folder


def corpus(folder: Path) -> Corpus:
    """A part of the standard library's own text."""
    prepare(TextSource((str(Path(statistics.__file__).parent / "[a-d]*.py"),)), BytesChoice(), folder, val_fraction=0.3)
    return load_corpus(folder)


def ours(place: Path, held: Corpus, out: Path) -> float:
    """Mean loss by an evaluation."""
    wanted = Wanted(tokens=WINDOWS * CONTEXT, context=CONTEXT, batch_sequences=BATCH)
    (subject,) = subjects_of([str(place)], wanted)
    cpu = Place(torch.device("cpu"), Precision.fp32)
    return Evaluations(held, out, wanted, cpu).of(subject, lambda done, total: None).loss


def bare(place: Path, rows: torch.Tensor) -> float:
    """Mean loss by a loop over batches, as anybody would write it."""
    model, total = AutoModelForCausalLM.from_pretrained(place).eval(), 0.0
    with torch.inference_mode():
        for batch in rows.split(BATCH):
            logits = model(input_ids=batch[:, :-1], use_cache=False).logits
            total += float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())) * len(batch)
    return total / len(rows)


def cpu_seconds(work: Callable[[], float]) -> tuple[float, float]:
    """CPU seconds of a call, and what it returned."""
    begun = time.process_time()
    value = work()
    return time.process_time() - begun, value


def main() -> None:
    """Time both in turn."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        place, held = model(root / "model"), corpus(root / "corpus")
        stream = torch.from_numpy(held.val.view(0, held.val.tokens).astype("int64"))
        starts = torch.arange(WINDOWS) * held.val.windows(CONTEXT) // WINDOWS * CONTEXT
        rows = stream[starts[:, None] + torch.arange(CONTEXT + 1)]
        bare(place, rows[:BATCH])  # imports, and first uses
        ratios = []
        for repeat in range(REPEATS):
            loop, expected = cpu_seconds(lambda: bare(place, rows))
            mine, loss = cpu_seconds(lambda number=repeat: ours(place, held, root / f"out{number}"))  # type: ignore[misc]
            assert abs(loss - expected) < 1e-5, (loss, expected)
            ratios.append(mine / loop)
            print(f"{WINDOWS * CONTEXT:,} tokens: loop {loop:.2f} s, evaluation {mine:.2f} s, ratio {mine / loop:.3f}")
    print(f"median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
