"""Draw ``docs/regions.png``: the step of each optimizer in three regions of a loss curve.

    python docs/landscapes.py

It is the ``regions.png`` of ``adabelief landscapes --out DIR``.
"""

from pathlib import Path

from lightning_adabelief.landscapes.experiment import DPI
from lightning_adabelief.landscapes.optimizers import NAMED, make_contenders
from lightning_adabelief.landscapes.region_figure import draw_regions
from lightning_adabelief.landscapes.regions import measure_all_steps

if __name__ == "__main__":
    figure = draw_regions(measure_all_steps(make_contenders(list(NAMED)), seed=0), seed=0)
    figure.savefig(Path(__file__).with_name("regions.png"), dpi=DPI)
