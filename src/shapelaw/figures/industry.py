"""Other people's models beside ours: shapes of earlier scaling studies, and shapes and losses of widely used models, as the
Gemstones' authors published them; tokens as their makers state."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from shapelaw.errors import UserError
from shapelaw.figures.evidence import Evidence
from shapelaw.files import check_sealed_table, read_json
from shapelaw.runs.fetch import fetch
from shapelaw.runs.registry import GEMSTONES, INDUSTRY_MODELS

COLUMNS = ("name", "params", "width", "depth", "tokens", "loss")
WIDELY_USED, EVALUATED = "widely used models", "models evaluated"
"""Names of groups of models."""
LLAMA_2 = "Touvron et al. 2023, arXiv 2307.09288, Table 1"
LLAMA_3 = "Llama Team 2024, arXiv 2407.21783: about 15T"
LLAMA_3_2 = "Llama 3.2's model card: up to 9T"
GEMMA = "Gemma Team 2024, arXiv 2403.08295"
GEMMA_2 = "Gemma Team 2024, arXiv 2408.00118"
QWEN_2 = "Yang et al. 2024, arXiv 2407.10671"
QWEN_2_5 = "Qwen Team 2024, arXiv 2412.15115"
TOKENS = {
    "Llama-2-": (2e12, LLAMA_2),
    "Llama-3-": (15e12, LLAMA_3),
    "Llama-3.1-": (15e12, LLAMA_3),
    "Llama-3.2-": (9e12, LLAMA_3_2),
    "Gemma-2b": (3e12, GEMMA),
    "Gemma-7b": (6e12, GEMMA),
    "Gemma-2-2b": (2e12, GEMMA_2),
    "Gemma-2-9b": (8e12, GEMMA_2),
    "Gemma-2-27b": (13e12, GEMMA_2),
    "Qwen2-0.5B": (12e12, QWEN_2),
    "Qwen2-": (7e12, QWEN_2),
    "Qwen2.5-": (18e12, QWEN_2_5),
}
"""Start of a name -> training tokens and who states them; the first match counts."""

SHAPES = {
    "Gemma": {
        "Gemma-2b": (2048, 18), "Gemma-7b": (3072, 28),
        "Gemma-2-2b": (2304, 26), "Gemma-2-9b": (3584, 42), "Gemma-2-27b": (4608, 46),
    },
    "Llama": {
        "Llama-2-7b": (4096, 32), "Llama-2-13b": (5120, 40), "Llama-2-70b": (8192, 80), "Llama-3-8B": (4096, 32),
        "Llama-3.1-70B": (8192, 80), "Llama-3.2-1B": (2048, 16), "Llama-3.2-3B": (3072, 28),
    },
    "Qwen": {
        "Qwen2-0.5B": (896, 24), "Qwen2-1.5B": (1536, 28), "Qwen2-7B": (3584, 28), "Qwen2.5-0.5B": (896, 24),
        "Qwen2.5-1.5B": (1536, 28), "Qwen2.5-3B": (2048, 36), "Qwen2.5-7B": (3584, 28), "Qwen2.5-14B": (5120, 48),
        "Qwen2.5-32B": (5120, 64),
    },
}  # fmt: skip
"""Family -> model -> (width, depth), from the authors' file, so that shapes alone need no download."""

STUDIES = {
    "Porian et al. 2024": (
        (96, 3), (128, 4), (160, 5), (224, 6), (288, 8), (320, 9), (384, 10), (480, 12), (576, 14), (640, 15), (704, 18),
        (832, 21), (1024, 23), (1120, 26), (1312, 26), (1504, 30),
    ),
    "Hoffmann et al. 2022": (
        (512, 8), (576, 9), (640, 10), (640, 13), (640, 16), (768, 12), (768, 15), (768, 18), (896, 14), (896, 16), (896, 18),
        (1024, 16), (1024, 18), (1024, 20), (1280, 18), (1280, 21), (1408, 18), (1280, 24), (1408, 21), (1536, 19), (1408, 24),
        (1536, 22), (1536, 25), (1792, 20), (1792, 23), (1792, 26), (2048, 22), (2176, 22), (2048, 25), (2048, 28), (2176, 25),
        (2304, 24), (2176, 28), (2304, 28), (2304, 32), (2560, 26), (2560, 30), (2560, 34), (2688, 36), (2816, 36), (2944, 36),
        (3072, 36), (3584, 40), (4096, 42), (4352, 47), (4608, 44), (4608, 47), (4864, 47), (4992, 49), (5120, 47),
    ),
}  # fmt: skip
"""Earlier study -> (width, depth) of its models, from plotters/plot_feasible_model_shapes.ipynb of the repository; the second
is Table A9 of arXiv 2203.15556."""


def study_shapes() -> pd.DataFrame:
    """A row per model of an earlier study: study, width, depth."""
    rows = [(study, *shape) for study, some in STUDIES.items() for shape in some]
    return pd.DataFrame(rows, columns=["study", "width", "depth"])


def shapes() -> pd.DataFrame:
    """A row per model: name, family, width, depth."""
    rows = [(name, family, *shape) for family, some in SHAPES.items() for name, shape in some.items()]
    return pd.DataFrame(rows, columns=["name", "family", "width", "depth"])


def models() -> pd.DataFrame:
    """A row per model: name, family, width, depth, params, tokens, tokens_source, loss, flops (6N per token, as in the paper),
    aspect_ratio, tokens_per_param. The loss is on the Gemstones' validation text, per token of the model's own tokenizer.

    Raises:
        UserError: if the file is not available.
    """
    content = read_json(fetch(INDUSTRY_MODELS, GEMSTONES))
    frame = pd.DataFrame({name: content[name] for name in ("width", "depth", "params", "loss")})
    names = [str(name).split("/")[-1].removesuffix("-hf") for name in content["hf_name"]]
    stated = [next(one for start, one in TOKENS.items() if name.startswith(start)) for name in names]
    family = [name.split("-")[0].rstrip("0123456789.") for name in names]
    frame = frame.assign(
        name=names, family=family, tokens=[count for count, _ in stated], tokens_source=[source for _, source in stated]
    )
    return _derived(frame.assign(kind=WIDELY_USED))


def read(path: Path) -> pd.DataFrame:
    """Models of a table from `shapelaw evaluate`, in the columns of `models`; those without tokens have no FLOPs. A table
    made by hand has no seal, and is not verified.

    Raises:
        UserError: if it is not such a table.
        Damaged: if it is sealed and was changed after it was written.
    """
    frame = _frame(path)
    if lacking := [name for name in COLUMNS if name not in frame]:
        raise UserError(f"models={path}: has no column {lacking[0]}; its columns are {', '.join(COLUMNS)}; add it")
    if frame.empty:
        raise UserError(f"models={path}: holds no models; add a row for each")
    for name in COLUMNS[1:]:
        frame[name] = _numbers(frame, name, path)
    return _derived(frame[list(COLUMNS)].assign(family=EVALUATED, kind=EVALUATED, tokens_source=str(path)))


def _frame(path: Path) -> pd.DataFrame:
    try:
        check_sealed_table(path, "run shapelaw evaluate again")
        return pd.read_csv(path)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"models={path}: cannot be read ({error}); give a table of shapelaw evaluate") from error


def _numbers(frame: pd.DataFrame, name: str, path: Path) -> pd.Series:
    """A column of numbers, with empty cells for unknown values."""
    numbers = pd.to_numeric(frame[name], errors="coerce")
    wrong = frame.loc[(numbers.isna() & frame[name].notna()) | (numbers <= 0), ["name", name]]
    if len(wrong):
        model, given = wrong.iloc[0]
        raise UserError(
            f"models={path}: {name} of {model} is {given}; allowed is a number above 0, or nothing; mend it"
        )
    return numbers


def beside(evidence: Evidence) -> dict[str, pd.DataFrame]:
    """The table `industry` of the models to show beside the runs: widely used ones beside the paper's runs, and evaluated
    ones; empty if there are none."""
    tables = [models()] if evidence.published else []
    tables += [evidence.models] if evidence.models is not None else []
    return {"industry": pd.concat(tables, ignore_index=True)} if tables else {}


def _derived(frame: pd.DataFrame) -> pd.DataFrame:
    """With FLOPs, aspect ratio and tokens per parameter."""
    return frame.assign(
        flops=6.0 * frame["params"] * frame["tokens"],
        aspect_ratio=frame["width"] / frame["depth"],
        tokens_per_param=frame["tokens"] / frame["params"],
    )
