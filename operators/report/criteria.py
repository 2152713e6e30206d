"""Every verdict and measurement of a series in a sentence with its limit, and a traffic light."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from stillscan.operators.denoising.gate_limits import GateLimits
from stillscan.operators.report.outcome import SeriesOutcome, counted, noise_change, unit_suffix

Light = Literal["within", "look", "measured", "unknown"]
LIGHTS: dict[Light, str] = {
    "within": "within its limit",
    "look": "look at this",
    "measured": "measured",
    "unknown": "not measured",
}
EXPLANATIONS = Path(__file__).with_name("templates") / "criteria.md"
WATER_HU = 1000.0  # above air: the signal of a CT
MINUS = "\N{MINUS SIGN}"


class Criterion(NamedTuple):
    """One line of a report.

    Attributes:
        topic: heading in `templates/criteria.md`, which explains it.
        light: whether the measurement is within its limit; `measured` if there is none.
        sentence: what was measured, its limit, and what followed.
    """

    topic: str
    light: Light
    sentence: str

    @property
    def meaning(self) -> str:
        """Return the light in words."""
        return LIGHTS[self.light]

    @property
    def explanation(self) -> str:
        """Return what the criterion means and what to do."""
        return explanations()[self.topic]

    @property
    def anchor(self) -> str:
        """Return the anchor of the topic on the page of the documents."""
        return self.topic.lower().replace(" ", "-")


@cache
def explanations() -> dict[str, str]:
    """Return the explanations of `templates/criteria.md` by their headings."""
    text = EXPLANATIONS.read_text(encoding="utf-8")
    sections = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return {
        topic: " ".join(explained.split())
        for topic, explained in zip(sections[::2], sections[1::2], strict=True)
    }


def summary(outcome: SeriesOutcome) -> str:
    """Say in a few sentences what happened to a derived series and what to check."""
    made = outcome.provenance
    if made is not None and made.is_control:
        return "Control without noise reduction: every pixel of the derived series is the original."
    if outcome.verdict is None:  # nothing was removed: a map, an interpolated cine
        return "Derived. Read every finding on the original."
    change = noise_change(outcome.noise_before, outcome.noise_after).replace("-", MINUS)
    noise = f"its noise changed by {change}" if change else "the change of its noise: not measured"
    held = {
        "change-drawn-back": "the whole correction was scaled down",
        "structure-clamped": "parts of the correction that looked like structure were put back",
        "coarse-change-put-back": "the coarse part of the correction was put back",
    }
    said = [held.get(each, each) for each in outcome.verdict.reasons]
    gate = f" The quality gate intervened: {' and '.join(said)}." if said else ""
    check = (
        "Look at what was put back, there the network removed more than noise"
        if said
        else "Page through what was removed: it must look like noise"
    )
    return f"Derived; {noise}.{gate} {check}. Read every finding on the original."


def criteria(outcome: SeriesOutcome) -> list[Criterion]:
    """Return the criteria of a derived series, in the order of a reader's questions."""
    return [*_noise(outcome), *_gate(outcome), *_support(outcome), *_stored(outcome)]


def _noise(outcome: SeriesOutcome) -> Iterator[Criterion]:
    before, after, unit = outcome.noise_before, outcome.noise_after, unit_suffix(outcome.unit)
    if before is None:
        yield Criterion("Noise", "unknown", "The noise of the series: not measured.")
        return
    parts = [f"Standard deviation of the noise: {before:.3g}{unit} before"]
    if after is None:
        parts.append("after: not measured")
    else:
        change = noise_change(before, after).replace("-", MINUS)
        parts.append(f"{after:.3g}{unit} after{f' ({change})' if change else ''}")
    known: Light = "unknown" if after is None else "measured"
    yield Criterion("Noise", known, ", ".join(parts) + ".")
    signal = WATER_HU if outcome.unit == "HU" else outcome.signal
    of = "water against air" if outcome.unit == "HU" else "the bright half of the images"
    if not signal or before <= 0:
        yield Criterion("Signal-to-noise ratio", "unknown", "Signal-to-noise ratio: not measured.")
    else:
        then = f"{signal / after:.3g} after" if after else "after: not measured"
        sentence = f"Signal-to-noise ratio of {of}: {signal / before:.3g} before, {then}."
        yield Criterion("Signal-to-noise ratio", "measured", sentence)


def _gate(outcome: SeriesOutcome) -> Iterator[Criterion]:
    measured = outcome.verdict.measurements if outcome.verdict else {}
    limits = outcome.limits or GateLimits()
    if not measured:
        yield Criterion("Size of the correction", "unknown", "The correction: not measured.")
        return
    reasons = outcome.verdict.reasons if outcome.verdict else ()
    size, limit = measured["residual_deviation"], limits.residual_deviation
    drawn = "change-drawn-back" in reasons
    yield Criterion(
        "Size of the correction",
        "look" if drawn or size > limit else "within",
        f"In the worst slice the correction was {size:.2f} times the measured noise; "
        f"the limit is {limit:g}{'; it was scaled down' if drawn or size > limit else ''}.",
    )
    mean = measured["residual_mean"]
    yield Criterion(
        "Mean of the correction",
        "within" if mean <= limits.residual_mean else "look",
        f"The correction moved the mean of a slice by at most {mean:.3f} times the noise; "
        f"the limit is {limits.residual_mean:g}.",
    )
    score, share = measured["highest_score"], measured["clamped_share"]
    what = (
        f"{100 * share:.2g} % of the worst slice was put back; the limit is "
        f"{100 * limits.clamped_share:g} %"
        if share > 0
        else "nothing was put back"
    )
    yield Criterion(
        "Structure in the correction",
        "look" if share > 0 else "within",
        f"The strongest structure in the correction was {score:.1f} standard deviations; the "
        f"limit is {limits.clamp_score:g}: {what}.",
    )
    figures = [
        (measured.get("residual_correlation"), "with its neighbour"),
        (measured.get("edge_correlation"), "with edges"),
    ]
    said = [f"{value:.2f} {of}" for value, of in figures if value is not None]
    if said:
        sentence = f"Correlation of the correction: {', '.join(said)}; no limit is set."
        yield Criterion("Correlation of the correction", "measured", sentence)


def _support(outcome: SeriesOutcome) -> Iterator[Criterion]:
    unit = unit_suffix(outcome.unit)
    for witness in outcome.witnesses:
        doubt = "" if witness.proven else "; it may contain structure and was not used"
        yield Criterion(
            "Independent measurements of the noise",
            "measured",
            f"Noise by {witness.name}: {witness.sigma:.3g}{unit}{doubt}.",
        )
    check = outcome.repeats
    if check is None:
        yield Criterion(
            "Repeated acquisitions",
            "unknown",
            "The series has no repeated acquisitions that could confirm the correction.",
        )
        return
    partly = check.confirmed_share < 1
    change = noise_change(check.before, check.after).replace("-", MINUS)
    yield Criterion(
        "Repeated acquisitions",
        "look" if partly else "within",
        f"{counted(check.slices, 'slice')} compared with another acquisition: "
        f"{100 * check.confirmed_share:.0f} % of the correction is confirmed"
        f"{'; only that part was applied' if partly else ''}. Difference between acquisitions: "
        f"{check.before:.3g}{unit} before, {check.after:.3g}{unit} after ({change}).",
    )


def _stored(outcome: SeriesOutcome) -> Iterator[Criterion]:
    derived = outcome.derived
    if derived is None:
        return
    unit = unit_suffix(outcome.unit)
    yield Criterion(
        "Stored values",
        "within",
        f"{100 * derived.changed_share:.1f} % of the pixels differ from the original, "
        f"{100 * derived.clipped_share:.2g} % were clipped to the stored bits (limit 0.1 %); the "
        f"mean of a slice moved by at most {abs(derived.mean_shift):.2g}{unit}.",
    )
