"""Names of columns: the usual meaning of a file's own names, and the units that they suggest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from shapelaw.runs.columns import CANONICAL, FURTHER_LOSS, is_canonical, rules_of

USUAL = {
    "run": ("run_name", "run_id", "name", "experiment", "experiment_name", "model", "model_name"),
    "params": (
        *("n", "n_params", "num_params", "nparams", "parameters", "num_parameters", "total_params", "params_total"),
        *("model_size", "size_m", "size_b", "non_embedding", "non_embedding_params", "params_non_embedding"),
        *("params_no_embed", "n_non_embedding", "param_count", "parameter_count"),
    ),
    "tokens": (
        *("d", "n_tokens", "num_tokens", "training_tokens", "train_tokens", "tokens_seen", "total_tokens"),
        *("consumed_tokens", "tokens_trained", "tokens_processed", "data_tokens", "token_count"),
    ),
    "loss": (
        *("l", "final_loss", "val_loss", "eval_loss", "validation_loss", "valid_loss", "test_loss", "loss_val", "nll"),
        *("val_nll", "cross_entropy", "val_ce", "ce_loss", "lm_loss", "ppl", "val_ppl", "perplexity", "bpb", "val_bpb"),
        *("bits_per_byte", "loss_nats", "loss_bits", "held_out_loss", "train_loss"),
    ),
    "width": ("d_model", "dmodel", "hidden_size", "n_embd", "hidden_dim", "embed_dim", "dim"),
    "depth": ("n_layer", "n_layers", "num_layers", "layers", "num_hidden_layers"),
    "vocab_size": ("vocab", "n_vocab", "vocabulary_size"),
    "step": ("global_step", "trainer_global_step", "iter", "iteration", "iterations", "steps", "training_steps"),
    "batch_tokens": ("tokens_per_step", "tokens_per_batch", "batch_size_tokens", "tokens_per_iter"),
    "flops": (
        "c",
        "compute",
        "training_flops",
        "train_flops",
        "total_flops",
        "flop",
        "training_flop",
        "compute_flops",
        "compute_pf_days",
    ),
}
"""Canonical name -> its frequent names in files, as `plain_name` gives them."""
SAMPLES = frozenset(["samples", "consumed_samples", "n_samples", "num_samples", "samples_seen", "total_samples"])
HELD_OUT_BY_NAME = frozenset(
    ["val_loss", "eval_loss", "validation_loss", "valid_loss", "test_loss", "held_out_loss", "val_nll", "val_ce"]
)
"""Names, as `plain_name` gives them, beside which a column loss is likely the training loss."""
LOSS_UNITS = {
    **dict.fromkeys(("nats", "nat", "nats_per_token"), "nats"),
    **dict.fromkeys(("bits", "bit", "bits_per_token"), "bits"),
    **dict.fromkeys(("perplexity", "ppl"), "perplexity"),
    **dict.fromkeys(("bits_per_byte", "bpb"), "bits_per_byte"),
    "nats_per_byte": "nats_per_byte",
}
"""Name of a loss's unit in a file, as `plain_name` gives it -> in `runs.units`."""
_TELLING = {
    "params": re.compile("param"),
    "tokens": re.compile("token"),
    "loss": re.compile("loss|cross_?entropy|perplexity"),
    "flops": re.compile("flop"),
}
"""Canonical name -> parts of a column's name that may mean it, if no usual name is present."""
_RATIO = re.compile(r"(^|_)(per|ratio)(_|$)")
_RATE = re.compile(
    r"(?:^|_)(?:(?:tokens?|toks?|flops?)_(?:per_)?(?:s|secs?|seconds?)|t[gp]s|[kmgtpezy]?flops?_s|flopsps)(?:_|$)"
)
_COUNT_HINT = re.compile(
    r"(?:^|[_ (\[/])(k|m|b|g|t|bn|thousands?|millions?|billions?|trillions?)(?: (?:tokens?|param(?:eter)?s?))?[)\]]?$"
)
_HINTS = {"t": "T", "k": "K", "m": "M", "b": "B", "g": "B", "bn": "B", "th": "K", "mi": "M", "bi": "B", "tr": "T"}
_POWERS = {3: "K", 6: "M", 9: "B", 12: "T"}
_POWER_HINT = re.compile(r"(?:[(\[/]|[(\[/ ]in |[x\u00d7*]) ?(?:1e\+?([0-9]{1,2})|10(?:\^|\*\*)([0-9]{1,2}))[)\]]?$")
_THOUSANDS = re.compile(r"[/(\[]1(?:[,' ]?000)+[)\]]?$")
_PREFIX_HINT = re.compile(r"([kKMGBT])[ _]?(?:[Pp]aram|[Tt]oken)")
_FLOP_HINT = re.compile(r"(?:^|[^a-z])([kmgtpezy])flops?(?:$|[^a-z/])")
_PREFIXES = {"b": 9, "k": 3, "m": 6, "g": 9, "t": 12, "p": 15, "e": 18, "z": 21, "y": 24}
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+")
_SUPERSCRIPTS = str.maketrans("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079", "0123456789")
_BRACKETS = re.compile(r"(?<=\w)\s*[(\[][^()\[\]]*[)\]]$")
_LOGARITHM = re.compile(r"^log_?10(?![0-9a-z])")
_PF_DAYS = re.compile(r"(^|_)pf_?days?(_|$)")
_LOSS_HINTS = {
    "perplexity": r"(?:token_)?(?:ppl|perplexity|perplexities)(?:_per_token)?",
    "nats": r"nats(?:(?:_per)?_token)?|log_(?:ppl|perplexity)",
    "bits": r"(?<!\d_)bits(?:(?:_per)?_token)?|log_?2_(?:ppl|perplexity)",
    "bits_per_byte": r"bpb|bits(?:_per)?_byte",
    "nats_per_byte": r"nats(?:_per)?_byte",
    "bits per character": r"bpc|bits(?:_per)?_char(?:acter)?",
    "nats per character": r"nats(?:_per)?_char(?:acter)?",
    "bits per word": r"bpw|bits(?:_per)?_word",
    "nats per word": r"nats(?:_per)?_word",
    "perplexity per byte": r"byte_(?:ppl|perplexity)|(?:ppl|perplexity)_(?:per_byte|byte$)",
    "perplexity per character": r"char(?:acter)?_(?:ppl|perplexity)|(?:ppl|perplexity)_(?:per_char(?:acter)?|char(?:acter)?$)",
    "perplexity per word": r"word_(?:ppl|perplexity)|(?:ppl|perplexity)_(?:per_word|word$)",
    "decimal logarithms": r"log_?10_(?:ppl|perplexity|loss)|loss_log_?10",
    "binary logarithms": r"log_?2_loss|loss_log_?2",
}
"""Unit of a loss -> words for it in a column's name, as `plain_name` gives them; the longest match counts."""
_LOSS_SIGNS = {unit: re.compile(rf"(?:^|_)({sign})(?=_|$)") for unit, sign in _LOSS_HINTS.items()}


def plain_name(name: str) -> str:
    """A name in lower case, with one underscore between words instead of any other separator.

    >>> plain_name(" Eval/Loss "), plain_name("_step"), plain_name("Tokens (B)")
    ('eval_loss', 'step', 'tokens_b')
    """
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def taken(names: Iterable[str]) -> dict[str, str]:
    """Canonical name -> the file's column with this name, exactly or else apart from case, spaces and signs.

    >>> taken(["Run", "tokens", "Tokens", "N"])
    {'tokens': 'tokens', 'run': 'Run'}
    """
    listed = list(names)
    found = {name: name for name in listed if is_canonical(name)}
    alike: dict[str, list[str]] = {}
    for name in listed:
        if (plain := plain_name(name)) not in found and plain in CANONICAL:
            alike.setdefault(plain, []).append(name)
    return found | {plain: own[0] for plain, own in alike.items() if len(own) == 1}


def likely(canonical: str, names: Iterable[str]) -> str | None:
    """The one column of a file that usually means this; None if there are none or several."""
    usual = {canonical, *USUAL.get(canonical, ())}
    listed = list(names)
    own = [name for name in listed if {plain_name(name), _last(name), _without_unit(name)} & usual]
    if canonical == "loss" and len(own) > 1:
        own = [name for name in own if "train" not in plain_name(name)]
    if canonical == "loss" and not own:
        own = [name for name in listed if hint("loss", name)] or [n for n in listed if FURTHER_LOSS.fullmatch(n)][:1]
    return own[0] if len(own) == 1 else None


def suggested(canonical: str, names: Iterable[str]) -> str | None:
    """The one column to suggest in a refusal: one with a usual name, or one whose name suggests it; never used unasked.

    >>> suggested("loss", ["N", "smooth loss"]), suggested("params", ["Total_parameters", "tokens_per_param"])
    ('smooth loss', 'Total_parameters')
    """
    listed = list(names)
    if (usual := likely(canonical, listed)) or canonical not in _TELLING:
        return usual
    own = [name for name in listed if _TELLING[canonical].search(plain := plain_name(name)) and not _is_ratio(plain)]
    return own[0] if len(own) == 1 else None


def _is_ratio(plain: str) -> bool:
    """Whether a name is that of tokens per parameter, or of another ratio."""
    return bool(
        _RATIO.search(plain)
        or is_rate(plain)
        or (_TELLING["params"].search(plain) and _TELLING["tokens"].search(plain))
    )


def is_rate(name: str) -> bool:
    """Whether a name is that of tokens or FLOPs per second.

    >>> is_rate("throughput/device/tokens_per_second"), is_rate("TFLOP/s/GPU"), is_rate("tokens")
    (True, True, False)
    """
    return bool(_RATE.search(plain_name(name)))


def mapping(missing: Iterable[str], names: Iterable[str]) -> str:
    """The options that name the missing columns, as far as the file's own names tell.

    >>> mapping(["params", "tokens", "loss"], ["size_M", "D", "eval/ppl"])
    "'runs.columns={params: size_M, tokens: D, loss: eval/ppl}' 'runs.units={params: M, loss: perplexity}'"
    """
    listed = list(names)
    found = {name: suggested(name, listed) for name in missing}
    hints = {name: hint(name, own) for name, own in found.items() if own}
    units = {name: str(unit) for name, unit in hints.items() if isinstance(unit, float) or unit in rules_of(name).units}
    columns = f"'runs.columns={_braces({name: own or 'COLUMN' for name, own in found.items()})}'"
    return columns + (f" 'runs.units={_braces(units)}'" if units else "")


def hint(canonical: str, name: str) -> str | float | None:
    """The unit that a column's name suggests: `tokens (B)`, `size_M`, `N (x10^6)`, `val_ppl`, `log10(N)`, `C (PF-days)`.

    For a loss it may be one that `runs.units` does not know.

    >>> hint("loss", "Val loss (bits/byte)"), hint("loss", "log_ppl"), hint("loss", "word_perplexity")
    ('bits_per_byte', 'nats', 'perplexity per word')
    >>> hint("params", "Mparams"), hint("tokens", "D/1e9"), hint("flops", "C (EFLOPs)"), hint("flops", "C (1e21)")
    ('M', 'B', 1e+18, 1e+21)
    """
    if canonical == "loss" or canonical.startswith("loss_"):
        found = {unit: match[1] for unit, sign in _LOSS_SIGNS.items() if (match := sign.search(plain_name(name)))}
        return max(found, key=lambda unit: len(found[unit]), default=None)
    if _LOGARITHM.search(name.lower()):
        return "log10"
    if canonical == "flops" and _PF_DAYS.search(plain_name(name)):
        return "PF-days"
    raised = _RAISED.sub(lambda digits: f"^{digits[0].translate(_SUPERSCRIPTS)}", name.strip())
    if power := _power(canonical, raised):
        return _POWERS.get(power, 10.0**power)
    match = _COUNT_HINT.search(name.lower().strip()) if canonical != "flops" else None
    return (_HINTS.get(match[1]) or _HINTS[match[1][:2]]) if match else None


def _power(canonical: str, name: str) -> int:
    """The power of ten that a column's name gives as its unit; 0 if it gives none."""
    if match := _POWER_HINT.search(name.lower()):
        return int(match[1] or match[2])
    if match := _THOUSANDS.search(name):
        return match[0].count("0")
    if canonical == "flops":
        if "log" in name.lower():
            return 0
        match = _FLOP_HINT.search(name.lower())
        return _PREFIXES[match[1]] if match else 0
    prefix = _PREFIX_HINT.match(name)
    return _PREFIXES[prefix[1].lower()] if prefix else 0


def _braces(entries: Mapping[str, str | None]) -> str:
    """Entries in the form of the command line; a name with special characters is quoted."""
    shown = {key: value if re.fullmatch(r"[\w/.@+-]*", str(value)) else f'"{value}"' for key, value in entries.items()}
    return "{" + ", ".join(f"{key}: {value}" for key, value in shown.items()) + "}"


def _last(name: str) -> str:
    """The last part of a name from nested records."""
    return plain_name(name.rsplit(".", 1)[-1])


def _without_unit(name: str) -> str:
    """A name without a unit at its end, and without the last brackets: `C (PF-days)` is `c`."""
    return plain_name(_BRACKETS.sub("", _LOGARITHM.sub("", _COUNT_HINT.sub("", name.lower().strip()))))
