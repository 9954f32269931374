"""Checkpoints as folders that transformers loads: shapelaw export run=RUN_FOLDER_OR_CHECKPOINT out=OUT"""

from __future__ import annotations

import re
from pathlib import Path

from omegaconf import DictConfig

from shapelaw.config.option import option, record
from shapelaw.config.places import PlacesConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.config.values import file_name
from shapelaw.errors import UserError
from shapelaw.export.folder import export
from shapelaw.export.release import push, release
from shapelaw.terminal import write
from shapelaw.training.stored import folders_of
from shapelaw.verbs.doors import Door

LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@record()
class ExportConfig(PlacesConfig):
    """Checkpoints for transformers."""

    run: str = option(
        "Folder of a run, whose newest checkpoint is taken, or of a checkpoint (checkpoints/step-NNNNNNNN); with "
        "revisions=true also a pattern, such as 'outputs/runs/nano/*'."
    )
    out: str = option("Folder to write; it must not exist, or with revisions=true hold nothing but repositories.")
    revisions: bool = option(
        "Whether every checkpoint is written, as revision step-N of the repository NAMESPACE/RUN, in the layout of the Hugging "
        "Face hub's cache."
    )
    namespace: str = option("revisions=true: user or organisation of the repositories on the hub.")
    license: str = option("Licence of the weights in the model card, as the hub names it, such as apache-2.0.")
    push: bool = option(
        "revisions=true: whether the repositories are uploaded to the hub, by the login of huggingface_hub."
    )
    private: bool = option("push=true: whether repositories that are made on the hub are private.")

    def check(self) -> None:
        """Names that the hub takes, and revisions where they are asked for."""
        file_name("namespace", self.namespace)
        if not LICENSE.fullmatch(self.license):
            raise UserError(
                f"license={self.license!r}: allowed are the hub's names, such as apache-2.0, mit, unknown; give one"
            )
        if self.push and not self.revisions:
            raise UserError("push=true: uploads revisions; give revisions=true, too")


def export_run(config: DictConfig) -> None:
    """Write what the configuration names and say so."""
    asked: ExportConfig = to_dataclass(config)
    if not asked.revisions:
        checkpoint = export(Path(asked.run), Path(asked.out), asked.license)
        write(f"{checkpoint} written to {asked.out}\n")
        return
    sources = folders_of(asked.run, "run")
    repositories = release(sources, Path(asked.out), asked.namespace, asked.license, _say)
    for repository in repositories if asked.push else []:
        push(repository, asked.private, _say)


def _say(line: str) -> None:
    write(f"{line}\n")


DOOR = Door(ExportConfig, export_run)
