"""The plots of `stillscan evaluate` (matplotlib, from the extra `evaluate`)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillscan.app.evaluation.noise_cases import noise_case
from stillscan.app.evaluation.summary import Group, groups

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Record = dict[str, Any]
Draw = Callable[["Axes"], None]

SIZE = (8.0, 5.0)  # inches
VISIBILITIES = (0.0, 1.5, 3.0, 5.0, 8.0, 20.0)


def draw_plots(records: Sequence[Record], folder: Path) -> list[tuple[str, Path]]:
    """Write every plot that these measurements allow and return titles and files."""
    import matplotlib as mpl

    mpl.use("Agg")  # no display
    from matplotlib import pyplot as plt

    written = []
    for name, title, draw in _plots(list(groups(records))):
        figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
        draw(axes)
        axes.set_title(title)
        axes.grid(alpha=0.3)
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=110, metadata={"Software": None})
        plt.close(figure)
        written.append((title, path))
    return written


def _plots(found: Sequence[Group]) -> Iterator[tuple[str, str, Draw]]:
    white = [group for group in found if not group.costly and group.noise.startswith("gaussian")]
    if len(white) > 1:
        yield "psnr", "PSNR above the noisy image, white noise", lambda axes: _gains(axes, white)
    for group in found:
        few = " (middle of one slice each)" if group.costly else ""
        name = group.noise.replace(" ", "-").replace(".", "_") + ("-costly" if group.costly else "")
        yield (
            f"perception-{name}",
            f"Perception and distortion, {group.noise}{few}",
            _with(_perception, group),
        )
        if any(group.lesions.values()):
            yield (
                f"lesions-{name}",
                f"Inserted lesions, {group.noise}{few}",
                _with(_lesions, group),
            )


def _with(draw: Callable[[Axes, Group], None], group: Group) -> Draw:
    return lambda axes: draw(axes, group)


def _gains(axes: Axes, white: Sequence[Group]) -> None:
    """Draw one line per method: its PSNR gain over the noisy image at each sigma."""
    methods = dict.fromkeys(name for group in white for name in group.methods if name != "noisy")
    for number, method in enumerate(methods):
        points = []
        for group in white:
            gain = group.difference(method, "noisy") if method in group.methods else None
            if gain is not None:
                points.append((noise_case(group.noise).strength * 255, gain))
        if not points:
            continue
        points.sort(key=lambda point: point[0])
        sigma = [x for x, _ in points]
        errors = (
            [gain.value - gain.low for _, gain in points],
            [gain.high - gain.value for _, gain in points],
        )
        axes.errorbar(
            sigma,
            [gain.value for _, gain in points],
            yerr=errors,
            marker=_marker(number),
            capsize=2,
            label=method,
        )
    axes.set_xscale("log")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("sigma / 255")
    axes.set_ylabel("PSNR gain in dB (95 % interval)")
    axes.legend(fontsize=7)


def _perception(axes: Axes, group: Group) -> None:
    """Draw distortion against perception (Blau and Michaeli 2018)."""
    for number, method in enumerate(group.methods):
        distortion = group.mean(method, "psnr")
        perception = group.mean(method, "patch_distance")
        if distortion is None or perception is None:
            continue
        rmse = 255 * 10 ** (-distortion.value / 20)
        axes.plot(rmse, 255 * perception.value, linestyle="", marker=_marker(number), label=method)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}")
        axis.set_tick_params(which="both", labelsize=8)
    axes.set_xlabel("distortion: RMSE / 255, from the mean PSNR")
    axes.set_ylabel("perception: Frechet distance of patches / 255")
    axes.legend(fontsize=7)


def _lesions(axes: Axes, group: Group) -> None:
    """Draw one line per method: the share of lesions kept, by their visibility."""
    bins = list(itertools.pairwise(VISIBILITIES))
    for number, method in enumerate(group.methods):
        kept = [(low, *group.lesions_kept(method, low, high)) for low, high in bins]
        kept = [each for each in kept if each[2] > 0]
        middle = [low + 0.1 * (number % 7 - 3) / 3 for low, _, _ in kept]
        value = [100 * share.value for _, share, _ in kept]
        errors = (
            [100 * max(0.0, share.value - share.low) for _, share, _ in kept],
            [100 * max(0.0, share.high - share.value) for _, share, _ in kept],
        )
        axes.errorbar(middle, value, yerr=errors, marker=_marker(number), capsize=2, label=method)
    axes.set_xlabel("visibility from (matched filter; 5 is visible)")
    axes.set_ylabel("kept, % (95 % interval)")
    axes.legend(fontsize=7)


def _marker(number: int) -> str:
    return "osD^v<>PX*hd"[number % 12]
