"""Checkpoints as folders that transformers loads: shapelaw export run=RUN_FOLDER_OR_CHECKPOINT out=OUT"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from shapelaw.config import ExportConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.export.folder import export
from shapelaw.export.release import push, release
from shapelaw.terminal import write
from shapelaw.training.stored import folders_of


def export_run(config: DictConfig) -> None:
    """Write the export that the configuration names, and print its place."""
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


DOOR = export_run
