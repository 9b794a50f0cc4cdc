"""What was found along the way from the files to the evaluator: one entry for each step and cause."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .objects import Difference

__all__ = ["Finding", "Link", "Proof", "check_chain", "check_counterparts"]

MOST_IMAGES = 5  # that a line names
MOST_NUMBERS = 12


class Link(NamedTuple):
    """A place between file and evaluator.

    Attributes:
        step: What made it so, such as ``"train pipeline, step 3 (Resize)"``.
        found: What the image has there: objects or a label map.
    """

    step: str
    found: Any


@dataclass
class Finding:
    """One cause at one step.

    Attributes:
        step: Where it happens.
        kind: A word.
        text: What happens.
        count: Objects or pixels.
        images: Their images.
    """

    step: str
    kind: str
    text: str
    count: int = 0
    images: list[str] = field(default_factory=list)

    def line(self) -> str:
        """Return it as one line."""
        named = ", ".join(self.images[:MOST_IMAGES])
        more = f" and {len(self.images) - MOST_IMAGES} more" if len(self.images) > MOST_IMAGES else ""
        amount = f"{self.count} in {len(self.images)} " if self.count else f"{len(self.images)} "
        where = f" ({amount}{'image' if len(self.images) == 1 else 'images'}: {named}{more})" if self.images else ""
        return f"{self.step}: {self.text}{where}"


@dataclass
class Proof:
    """What a perfect prediction gets, and where it is lost.

    Attributes:
        images: Images whose prediction was evaluated.
        objects: Objects, or label maps, that were predicted.
        judged: How many numbers had to be 1.
        below: Those that were not.
        losses: What makes a perfect prediction lose, or training learn something else.
        exceptions: What is left out by design.
        notes: What the proof left out, for people.
    """

    images: int = 0
    objects: int = 0
    judged: int = 0
    below: dict[str, float] = field(default_factory=dict)
    losses: list[Finding] = field(default_factory=list)
    exceptions: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_perfect(self) -> bool:
        """Whether every number is 1 and nothing changes on the way."""
        return not self.below and not self.losses and self.judged > 0

    def add(self, step: str, difference: Difference, image: str) -> None:
        """Count a difference of an image."""
        findings = self.exceptions if difference.expected else self.losses
        for each in findings:
            if (each.step, each.text) == (step, difference.text):
                break
        else:
            each = Finding(step, difference.kind, difference.text)
            findings.append(each)
        each.count += difference.count
        if image not in each.images:
            each.images.append(image)

    def add_everywhere(self, step: str, difference: Difference) -> None:
        """Count a difference that is not one image's."""
        if not any((each.step, each.text) == (step, difference.text) for each in self.losses):
            self.losses.append(Finding(step, difference.kind, difference.text))

    def lines(self) -> list[str]:
        """Return it for people."""
        lines = [f"exception: {each.line()}" for each in self.exceptions]
        lines += [f"note: {each}" for each in self.notes]
        lines += [f"lost: {each.line()}" for each in self.losses]
        lines += [f"below 1: {name} = {value:.4g}" for name, value in list(self.below.items())[:MOST_NUMBERS]]
        if len(self.below) > MOST_NUMBERS:
            lines.append(f"below 1: {len(self.below) - MOST_NUMBERS} more numbers")
        amount = f"{self.images} images, {self.objects} objects or label maps, {self.judged} numbers"
        if self.is_perfect:
            return [*lines, f"perfect: the evaluation sees what training sees ({amount})"]
        if not self.judged:
            lines.append("below 1: the evaluator gives none of AP, AR and IoU")
        return [*lines, f"not perfect: {len(self.losses)} causes, {len(self.below)} numbers below 1 ({amount})"]

    def as_dict(self) -> dict[str, Any]:
        """Return it for a JSON file."""
        return {
            "perfect": self.is_perfect,
            "images": self.images,
            "objects": self.objects,
            "numbers": self.judged,
            "below": self.below,
            "losses": [vars(each) for each in self.losses],
            "exceptions": [vars(each) for each in self.exceptions],
            "notes": self.notes,
        }


Compare = Callable[[Any, Any], Sequence[Difference]]


def check_chain(proof: Proof, image: str, chain: Sequence[Link], compare: Compare) -> None:
    """Compare each place of a chain with the one before it, and count what changed at which step.

    Args:
        proof: Where it is counted.
        image: The image's name.
        chain: Its places in order.
        compare: Returns what changed between two places.
    """
    for before, after in itertools.pairwise(chain):
        for difference in compare(before.found, after.found):
            proof.add(after.step, difference, image)


def check_counterparts(
    proof: Proof, step: str, first: Mapping[str, Any], second: Mapping[str, Any], compare: Compare
) -> None:
    """Compare what two readers have for the same images, and name an image whose content is another image's.

    Args:
        proof: Where it is counted.
        step: What differs between the readers.
        first: Of each image, by its name, what the first reader has.
        second: The same of the second reader.
        compare: Returns what changed between the two.
    """
    for image in [each for each in first if each in second]:
        found = compare(first[image], second[image])
        if not any(not each.expected for each in found):
            for difference in found:
                proof.add(step, difference, image)
            continue
        others = (each for each in first if each != image)
        owner = next((each for each in others if not compare(first[each], second[image])), None)
        if owner is not None and _is_something(second[image]):
            proof.add(
                step, Difference("other image", "an image has the content of another one", 1), f"{image} ({owner}'s)"
            )
            continue
        for difference in found:
            proof.add(step, difference, image)


def _is_something(found: Any) -> bool:
    return len(found) > 0
