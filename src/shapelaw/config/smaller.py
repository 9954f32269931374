"""Options of the verbs that have few of them."""

from __future__ import annotations

import re
from typing import Any

from shapelaw.config.fitting import NamedConfig, RunsConfig
from shapelaw.config.option import option, record
from shapelaw.config.places import PlacesConfig
from shapelaw.config.preparing import part_of_corpus
from shapelaw.config.prescribing import RulesConfig, ShapeLimits
from shapelaw.config.running import TrackerConfig
from shapelaw.config.values import THREADS_MAX, Precision, file_name
from shapelaw.errors import UserError

LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@record()
class EvaluateConfig(PlacesConfig):
    """Held-out loss of models that exist."""

    model: Any = option(
        "What is evaluated: the folder of a run (its newest checkpoint), of a checkpoint, or of a model of transformers; a "
        "name on the Hugging Face hub whose model is in the hub's cache; a pattern such as 'outputs/runs/nano/*'; or a "
        "list of these."
    )
    corpus: str = option(
        "Prepared corpus whose held-out part is used: its folder under data_dir, such as stdlib-bytes; of a mixture also "
        "CORPUS@SOURCE, the held-out part of one source."
    )
    tokens: float | None = option(
        "Predicted tokens of the sample, spread over the held-out part as in a run's validations; null for all of it.",
        default=None,
        low=1,
        whole=True,
        unit="tokens",
    )
    context: int | None = option(
        "Predicted tokens of one window; null for the run's seq_len, or for the longest context of a model of "
        "transformers, up to 4096.",
        default=None,
        low=1,
        unit="tokens",
    )
    checkpoints: str = option("Which of a run's checkpoints are evaluated.", choices=("newest", "all"))
    record: bool = option(
        "Whether the losses of our own runs are recorded with their tracked runs, as val/NAME/loss: a column of the runs table."
    )
    name: str | None = option(
        "Name of that loss, which fit.py takes as runs.loss=NAME: letters, digits and _ only; null for the name of the corpus.",
        default=None,
    )
    trained_tokens: float | None = option(
        "Tokens that a model of transformers was trained on, for its row of the table.",
        default=None,
        above=0,
        unit="tokens",
    )
    revision: str | None = option("Branch, tag or commit of a model on the hub.", default=None)
    download: bool = option("Whether a model that is not in the hub's cache is downloaded.")
    batch_sequences: int | None = option(
        "Windows of one forward pass; null for as many as fit in 256 MB of logits, at most 64.",
        default=None,
        low=1,
        unit="windows",
    )
    precision: Precision = option("Number format of the matrix products: bf16, fp32; auto: bf16 on a GPU.")
    accelerator: str = option(
        "Device for the evaluation: auto (a GPU if available), cpu, gpu.", choices=("auto", "cpu", "gpu")
    )
    threads: int = option("CPU threads; 0 leaves the choice to torch.", low=0, high=THREADS_MAX)
    progress: bool = option("Whether progress is shown, as a bar or, without a terminal, as a line every 30 s.")
    tracker: TrackerConfig

    def check(self) -> None:
        """Models are named by text; the name of a loss is a part of its metric's."""
        if not self.names or not all(isinstance(name, str) and name for name in self.names):
            raise UserError(
                f"model={self.model}: allowed values are folders, patterns and names; give one, or a list of them"
            )
        part_of_corpus(self.data_dir, "corpus", self.corpus)
        if not re.fullmatch(r"[A-Za-z0-9_]+", self.loss_name):
            raise UserError(
                f"name={self.name}: cannot name a loss; allowed characters are letters, digits and _; give another"
            )

    @property
    def names(self) -> list[str]:
        """What is evaluated."""
        return list(self.model) if isinstance(self.model, list | tuple) else [self.model]

    @property
    def loss_name(self) -> str:
        """Of the further loss."""
        return self.name if self.name is not None else re.sub(r"\W", "_", self.corpus, flags=re.A)


@record()
class ExportConfig(PlacesConfig):
    """Checkpoints for transformers."""

    run: str = option(
        "Folder of a run, whose newest checkpoint is taken, or of a checkpoint (checkpoints/step-NNNNNNNN); with "
        "revisions=true also a pattern, such as 'outputs/runs/nano/*'."
    )
    out: str = option(
        "Folder to write. It must not exist; with revisions=true it may hold repositories, but nothing else."
    )
    revisions: bool = option(
        "Whether every checkpoint is written, as revision step-N of the repository NAMESPACE/RUN, in the layout of the Hugging "
        "Face hub's cache."
    )
    namespace: str = option("revisions=true: user or organisation of the repositories on the hub.")
    license: str = option("Licence of the weights in the model card, as the hub names it, such as apache-2.0.")
    push: bool = option(
        "revisions=true: whether the repositories are uploaded to the hub, with the login of huggingface_hub."
    )
    private: bool = option("push=true: whether repositories created on the hub are private.")

    def check(self) -> None:
        """Names that the hub takes, and revisions where they are asked for."""
        file_name("namespace", self.namespace)
        if not LICENSE.fullmatch(self.license):
            raise UserError(
                f"license={self.license!r}: allowed values are the hub's names, such as apache-2.0, mit, unknown; give one"
            )
        if self.push and not self.revisions:
            raise UserError("push=true: only revisions are uploaded; give revisions=true too")


@record()
class MigrateConfig(PlacesConfig):
    """Runs of an earlier version, to be found again by the commands that trained them."""

    tracker: TrackerConfig
    precision: Precision = option(
        "Number format, fp32 or bf16, of runs that left it open and did not record it; auto leaves such runs unchanged."
    )


@record("target")
class TargetConfig:
    """What is to be known: the best size for a budget, or the loss of a size."""

    budget: float | None = option(
        "The budget whose best size is wanted; without any target, ten times the budget of a run.",
        default=None,
        above=0,
        unit="FLOPs",
    )
    width: int | None = option(
        "With depth and tokens: the width of the shape whose loss is wanted.", default=None, low=1
    )
    depth: int | None = option("With width: the number of blocks of that shape.", default=None, low=1)
    params: float | None = option(
        "Instead of width and depth, for a law without them: parameters as the law counts them.", default=None, above=0
    )
    tokens: float | None = option("With a size: its training tokens.", default=None, above=0, unit="tokens")

    def check(self) -> None:
        """One target, whole."""
        given = {name for name, value in vars(self).items() if value is not None}
        if given not in (set(), {"budget"}, {"width", "depth", "tokens"}, {"params", "tokens"}):
            names = ", ".join(f"target.{name}" for name in vars(self) if name in given)
            raise UserError(
                f"{names}: allowed values are target.budget alone, target.width, target.depth and target.tokens together, or "
                "target.params and target.tokens together; give one of these, or none"
            )


@record()
class NextConfig(PlacesConfig):
    """The run to train next."""

    fit: str | None = option(
        "Folder of a fit, or its fit.json; null takes the newest under outputs_dir/fits whose law has width and depth.",
        default=None,
    )
    budget: float = option("Most training FLOPs of one run.", above=0, unit="FLOPs")
    next: int = option(
        "How many runs to plan; each is chosen as if those before it were trained.",
        low=1,
        high=100,
        advice="5 is usual",
    )
    target: TargetConfig
    axes: dict[str, float] = option(
        "Values of the further columns that the law reads, at which the target is wanted: 'axes={experts: 8}'; a column that "
        "is left out takes the median of the runs.",
        default_factory=dict,
    )
    unique_tokens: float | None = option(
        "Different tokens available for training, for a fit of a law of repeated data.",
        default=None,
        above=0,
        unit="tokens",
    )
    rules: RulesConfig
    limits: ShapeLimits
    vocab_size: int | None = option("Vocabulary size, if the runs do not name it.", default=None, low=1)
    seq_len: int | None = option(
        "Context of the models to train; null takes that of the runs.", default=None, low=2, unit="tokens"
    )
    flops: NamedConfig


@record()
class NoiseScaleConfig(PlacesConfig):
    """The critical batch and the gradient noise scale, side by side."""

    fit: str = option("Folder of a fit with method=staged, or its fit.json.")
    uri: str = option("Tracking store of the runs that measured their noise (noise.every_steps).")
    experiment: str = option("MLflow experiment of those runs: the suite.")


@record()
class PredictConfig(PlacesConfig):
    """The outcome of a prediction."""

    prediction: str = option("YAML file that shapelaw prescribe wrote for a width, a depth and tokens.")
    runs: RunsConfig
    tracker: TrackerConfig


@record()
class ReplayConfig(PlacesConfig):
    """Delivery of what runs recorded while their store was away."""

    folders: list[str] = option("Folders of runs, or folders above them; the outputs folder by default.")
    tracker: TrackerConfig
    uri: str | None = option(
        "Store that receives all records instead of the store of each run, for example after a server moved or lost "
        "its database.",
        default=None,
    )
    deliver: bool = option("Whether the remaining records are delivered; false only lists them.")
