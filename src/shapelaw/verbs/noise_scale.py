"""The critical batch of a fitted step-and-batch law beside the gradient noise scale that its runs measured.

shapelaw train -m sweeps=step_batch noise.every_steps=10 ...                  # the runs
shapelaw fit method=staged law=steps_batch_e                                  # the law
shapelaw noise_scale fit=FOLDER                                      # both, at the losses of the contours
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from shapelaw.config import NoiseScaleConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.files import check_room, write_text
from shapelaw.fitting.result import load_fit
from shapelaw.step_batch.noise_scale import compared, summary
from shapelaw.terminal import write

FILES_BYTES = 2e5
"""Approximate bytes of the table and its figure."""


def compare_with_noise(config: DictConfig) -> None:
    """Compare both for the fit and the runs that the configuration names, and print a summary."""
    asked: NoiseScaleConfig = to_dataclass(config)
    fit = Path(asked.fit)
    folder = fit if fit.is_dir() else fit.parent
    table = noise_scale(folder, asked.uri, asked.experiment)
    write(summary(table).to_string(float_format="{:.4g}".format) + "\n")
    write(f"written to {folder}/noise_scale.csv, .pdf and .png\n")


def noise_scale(folder: Path, uri: str, experiment: str) -> pd.DataFrame:
    """Compare both for a fit and the runs of an experiment; the table and its figure are written into the fit's folder.

    Raises:
        UserError: for a fit of another law, or runs that measured no noise.
    """
    from shapelaw.figures.noise import noise_and_critical
    from shapelaw.figures.style import look, save
    from shapelaw.tracking import read_noise

    check_room(folder, FILES_BYTES, "a comparison")
    table = compared(load_fit(folder), read_noise(uri, experiment))
    write_text(folder / "noise_scale.csv", table.to_csv(index=False))
    with look():
        save(noise_and_critical(table), folder, "noise_scale")
    return table


DOOR = compare_with_noise
