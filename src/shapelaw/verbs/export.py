"""A checkpoint as a folder that transformers loads: shapelaw export run=RUN_FOLDER_OR_CHECKPOINT out=OUT"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from shapelaw.config.option import option, record
from shapelaw.config.places import PlacesConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.export.folder import export
from shapelaw.terminal import write
from shapelaw.verbs.doors import Door


@record()
class ExportConfig(PlacesConfig):
    """A checkpoint for transformers."""

    run: str = option(
        "Folder of a run, whose newest checkpoint is taken, or of a checkpoint (checkpoints/step-NNNNNNNN)."
    )
    out: str = option("Folder to write; it must not exist.")


def export_run(config: DictConfig) -> None:
    """Write the checkpoint that the configuration names and say so."""
    asked: ExportConfig = to_dataclass(config)
    checkpoint = export(Path(asked.run), Path(asked.out))
    write(f"{checkpoint} written to {asked.out}\n")


DOOR = Door(ExportConfig, export_run)
