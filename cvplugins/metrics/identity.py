"""Identity: how much of each true track one single tracked track covers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .assignment import assign
from .track_counts import Counts, ratio
from .track_pairs import TrackPairs, number

__all__ = ["IdentityCounts", "identity_counts"]


@dataclass(frozen=True)
class IdentityCounts(Counts):
    """Boxes under the best one-to-one assignment of whole tracks.

    Attributes:
        idtp: True boxes that the track assigned to theirs covers.
        idfp: Tracked boxes that cover no such box.
        idfn: True boxes that are not covered so.
    """

    idtp: NDArray[Any]
    idfp: NDArray[Any]
    idfn: NDArray[Any]

    def measures(self) -> dict[str, float]:
        """Return the measures of a sum of counts; NaN where a divisor is 0."""
        return {
            "IDF1": ratio(self.idtp, self.idtp + 0.5 * self.idfp + 0.5 * self.idfn),
            "IDP": ratio(self.idtp, self.idtp + self.idfp),
            "IDR": ratio(self.idtp, self.idtp + self.idfn),
            "IDTP": float(self.idtp),
            "IDFP": float(self.idfp),
            "IDFN": float(self.idfn),
        }


def identity_counts(pairs: TrackPairs, threshold: float) -> IdentityCounts:
    """Count as TrackEval's ``Identity``; arrays ``(units,)``.

    Reference: Ristani et al., Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking, 2016,
    arXiv:1609.01775.

    Args:
        pairs: What overlaps.
        threshold: Smallest IoU that covers.
    """
    near = pairs.near(threshold)
    num_tracks = int(pairs.tracked.track.max()) + 1 if len(pairs.tracked.track) else 0
    pair, num_pairs = number(near.truths.track[near.truth] * num_tracks + near.tracked.track[near.found])
    # Where one track pair meets often, any of its meetings tells the tracks.
    some = np.zeros(num_pairs, np.int64)
    some[pair] = np.arange(len(pair))
    covered = np.bincount(pair, minlength=num_pairs)
    truth = near.truth[some]
    # Fewest IDFN and IDFP together are most IDTP, because every box that is not covered is one of them.
    chosen = assign(near.truths.track[truth], near.tracked.track[near.found[some]], covered.astype(np.float64))
    unit = near.truths.unit[truth[chosen]]
    idtp = np.bincount(unit, covered[chosen], minlength=pairs.num_units).astype(np.int64)
    return IdentityCounts(
        idtp=idtp,
        idfp=np.bincount(pairs.tracked.unit, minlength=pairs.num_units) - idtp,
        idfn=np.bincount(pairs.truths.unit, minlength=pairs.num_units) - idtp,
    )
