"""The critical batch of a fitted step-and-batch law beside the gradient noise scale that its runs measured.

python train.py -m sweeps=step_batch noise.every_steps=10 ...                  # the runs
python fit.py method=staged law=steps_batch_e                                  # the law
python -m shapelaw.verbs.noise_scale FIT [--uri URI] [--experiment NAME]       # both, at the losses of the contours
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from shapelaw.errors import UserError
from shapelaw.files import write_text
from shapelaw.fitting.result import load_fit
from shapelaw.step_batch.noise_scale import compared, summary
from shapelaw.verbs.main import BAD_INPUT
from shapelaw.verbs.predict import parser_of


def noise_scale(folder: Path, uri: str, experiment: str) -> pd.DataFrame:
    """Compare both for a fit and the runs of an experiment; the table and its figure are written into the fit's folder.

    Raises:
        UserError: for a fit of another law, or runs that measured no noise.
    """
    from shapelaw.figures.noise import noise_and_critical
    from shapelaw.figures.style import look, save
    from shapelaw.tracking import read_noise

    table = compared(load_fit(folder), read_noise(uri, experiment))
    write_text(folder / "noise_scale.csv", table.to_csv(index=False))
    with look():
        save(noise_and_critical(table), folder, "noise_scale")
    return table


def _main(arguments: list[str]) -> int:
    parser = parser_of("noise_scale", __doc__)
    parser.add_argument("fit", type=Path, help="folder of the fit")
    options = parser.parse_args(arguments)
    try:
        table = noise_scale(options.fit, options.uri, options.experiment)
    except UserError as error:
        sys.stderr.write(f"shapelaw: {error}\n")
        return BAD_INPUT
    sys.stdout.write(summary(table).to_string(float_format="{:.4g}".format) + "\n")
    sys.stdout.write(f"written to {options.fit}/noise_scale.csv, .pdf and .png\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
