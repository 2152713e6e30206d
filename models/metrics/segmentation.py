"""Figures of a map of scores against masks."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

Scores = Float[np.ndarray, "*shape"]
Mask = Bool[np.ndarray, "*shape"]
Volume = Float[np.ndarray, "slice row column"]


def dice(marked: Mask, truth: Mask) -> float:
    """Return the Dice coefficient; 1 if both are empty."""
    both = int(marked.sum() + truth.sum())
    return 2 * int((marked & truth).sum()) / both if both else 1.0


def precision_and_recall(scores: Scores, truth: Mask) -> tuple[np.ndarray, np.ndarray]:
    """Return both at every distinct threshold, the highest threshold first."""
    flat, hits = scores.ravel(), truth.ravel()
    order = np.argsort(-flat, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(flat[order])), flat.size - 1)
    found = np.cumsum(hits[order])[ends]
    return found / (ends + 1), found / max(1, int(hits.sum()))


def average_precision(scores: Scores, truth: Mask) -> float:
    """Return the area below the precision-recall curve (as steps); NaN without a positive."""
    if not truth.any():
        return float("nan")
    precision, recall = precision_and_recall(scores, truth)
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def best_dice(scores: Scores, truth: Mask) -> float:
    """Return the Dice at the threshold that is best for this very truth: an optimistic figure."""
    precision, recall = precision_and_recall(scores, truth)
    return float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max())


def auroc(low: Float[np.ndarray, "*low"], high: Float[np.ndarray, "*high"]) -> float:
    """Return the share of pairs in which the second is higher; ties count half."""
    both = np.concatenate([np.ravel(low), np.ravel(high)])
    _, places, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    n, m = np.size(low), np.size(high)
    return float((ranks[n:].sum() - m * (m + 1) / 2) / (n * m))


def regions(marked: Bool[np.ndarray, "slice row column"]) -> np.ndarray:
    """Number the connected regions (6 neighbours) from 1; 0 elsewhere."""
    places = np.flatnonzero(marked)
    number = np.full(marked.size, -1)
    number[places] = np.arange(len(places))
    first, second = [np.empty(0, int)], [np.empty(0, int)]
    for axis, stride in enumerate(np.array(marked.strides) // marked.itemsize):
        inside = places // stride % marked.shape[axis] < marked.shape[axis] - 1
        neighbour = number[places[inside] + stride]
        first.append(np.flatnonzero(inside)[neighbour >= 0])
        second.append(neighbour[neighbour >= 0])
    numbers = np.zeros(marked.size, int)
    joined = components(len(places), np.concatenate(first), np.concatenate(second))
    numbers[places] = np.unique(joined, return_inverse=True)[1] + 1
    return numbers.reshape(marked.shape)


def components(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return a number for each of `count` nodes, the same where edges first-second join them."""
    labels = np.arange(count)
    while True:
        before = labels.copy()
        least = np.minimum(labels[first], labels[second])
        np.minimum.at(labels, labels[first], least)
        np.minimum.at(labels, labels[second], least)
        labels = labels[labels]
        if np.array_equal(before, labels):
            return labels


def lesion_sensitivity(
    scores: Volume, truth: Bool[np.ndarray, "slice row column"], false_regions: int = 1
) -> float:
    """Return the share of lesions that are touched, with at most so many false regions.

    The lowest threshold is used that makes no more false regions than that; NaN without a lesion.
    """
    lesions = regions(truth)
    if not lesions.any():
        return float("nan")
    best = 0.0
    for share in 10.0 ** -np.linspace(4, 1, 25):
        marked = scores > np.quantile(scores, 1 - share)
        numbers = regions(marked)
        touched = np.unique(numbers[truth & marked])
        if len(np.unique(numbers[marked])) - len(touched) > false_regions:
            break
        best = len(np.unique(lesions[marked & truth])) / lesions.max()
    return best
