"""Draw ``docs/belief.png``: four statistics of four layers while ``digits-cnn`` trains.

    python docs/belief.py

The recipe is run with every convolution and the classifier logged every 4 steps. The picture is drawn from
the scalars that BeliefMonitor wrote for TensorBoard.
"""

import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_adabelief.cli.main import main
from lightning_adabelief.recipes.catalog import find

LAYERS = {
    "network.block1.0.weight": "first convolution",
    "network.block2.0.weight": "second convolution",
    "network.block3.0.weight": "third convolution",
    "network.classifier.weight": "classifier",
}
PANELS = {
    "s_t": "s_t: how much gradients disagree with their trend",
    "effective_step_size": "effective_step_size: warmup, then the cosine",
    "step_gain_over_adam": "step_gain_over_adam: how much further than Adam",
    "update_to_weight": "update_to_weight: the fraction of a weight that a step moves",
}


def run(folder: str) -> EventAccumulator:
    """Train the recipe, with its logs in ``folder``, and return the logged scalars."""
    config = yaml.safe_load(find("digits-cnn").path.read_text(encoding="utf-8"))
    config["trainer"]["callbacks"][0]["init_args"] = {"every_n_steps": 4, "include": list(LAYERS)}
    config["trainer"]["logger"]["init_args"]["save_dir"] = folder
    path = Path(folder) / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    assert main(["fit", "--config", str(path)]) == 0
    (log_dir,) = Path(folder).glob("*/version_*")
    return EventAccumulator(str(log_dir), size_guidance={"scalars": 0}).Reload()


def draw(logged: EventAccumulator, path: Path) -> None:
    """Draw one panel for each statistic, with one line for each layer."""
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(2, 2, figsize=(9, 5.2), sharex=True, layout="constrained")
    colors = plt.get_cmap("viridis")([0.0, 0.35, 0.65, 0.9])
    for ax, (statistic, title) in zip(axes.flat, PANELS.items(), strict=True):
        for color, (layer, label) in zip(colors, LAYERS.items(), strict=True):
            events = logged.Scalars(f"belief/{statistic}/{layer}")
            ax.plot([e.step for e in events], [e.value for e in events], color=color, label=label, linewidth=1.3)
        if statistic == "step_gain_over_adam":
            ax.yaxis.set_major_formatter("{x:.1f}x")
        else:
            ax.set_yscale("log")
        ax.set_title(title, loc="left", fontsize=9)
        ax.grid(alpha=0.25, linewidth=0.5)
    for ax in axes[1]:
        ax.set_xlabel("step")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        draw(run(folder), Path(__file__).with_name("belief.png"))
