"""The verdict on one client: its history beside the truth."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from tests.stress.history import History, Mark, Visit
from tests.stress.truth import Truth

FAULTS = ("lost", "doubled", "disordered", "unexplained", "wrong")
"""Events that never came; that came twice; that came too late; gaps that nothing explains; and everything that must
not be: an event of another feed, a false cursor, a refusal."""


@dataclass(slots=True)
class Verdict:
    """What was wrong.

    Attributes:
        counts: by kind.
        first: the first fault, and the history around it.
        explained: gaps that the run's own purges explain.
    """

    counts: Counter[str] = field(default_factory=Counter)
    first: str = ""
    explained: int = 0
    events: int = 0


class Judge:
    """Walks through one history.

    Every connection is held to the guarantee by itself: from the position that it was asked for (or that it first
    states) each event of the feed comes once, in the stream's order, and nothing it states is false.
    """

    def __init__(self, history: History, truth: Truth, replay_limit: int) -> None:
        self._history = history
        self._truth = truth
        self._replay_limit = replay_limit
        self._at: int | None = None
        self.verdict = Verdict()

    def judge(self) -> Verdict:
        """The verdict on the whole history."""
        for visit in self._history.visits:
            self._visit(visit)
        return self.verdict

    def _visit(self, visit: Visit) -> None:
        if visit.refused:
            self._fault("wrong", 1, f"refused: {visit.refused}", visit, 0)
        if visit.asked is not None and self._at is not None and visit.asked > self._at:
            self._fault("wrong", 1, f"asks for {visit.asked}, but stood at {self._at}", visit, 0)
        self._at = visit.asked
        seen: set[int] = set()
        marks = deque(visit.marks)
        for position in range(len(visit.numbers) + 1):
            while marks and marks[0][0] == position:
                self._mark(marks.popleft()[1], visit, position)
            if position < len(visit.numbers):
                self._event(visit, position, seen)
        self.verdict.events += len(visit.numbers)

    def _event(self, visit: Visit, position: int, seen: set[int]) -> None:
        number, told = visit.numbers[position], visit.sequences[position]
        sequence = self._truth.sequence_of.get(number, 0)
        if not sequence or (told and told != sequence):
            self._fault("wrong", 1, f"event {number} is at {sequence}, the cursor says {told}", visit, position)
            return
        if sequence in seen:
            self._fault("doubled", 1, f"event {number} again", visit, position)
            return
        seen.add(sequence)
        if not self._truth.between(self._history.filters, sequence - 1, sequence):
            self._fault("wrong", 1, f"event {number} of another feed", visit, position)
        elif self._at is not None and sequence <= self._at:
            self._fault("disordered", 1, f"event {number} at {sequence}, behind {self._at}", visit, position)
        else:
            self._reach(sequence, sequence - 1, f"before event {number}", visit, position)

    def _mark(self, mark: Mark, visit: Visit, position: int) -> None:
        if mark.name == "gap":
            self._gap(mark, visit, position)
        elif mark.upto is not None:
            if self._at is not None and mark.upto < self._at:
                self._fault("wrong", 1, f"{mark.name} {mark.upto}, but it stood at {self._at}", visit, position)
            else:
                self._reach(mark.upto, mark.upto, f"before {mark.name} {mark.upto}", visit, position)

    def _gap(self, mark: Mark, visit: Visit, position: int) -> None:
        assert mark.upto is not None
        if mark.after is not None:
            self._reach(mark.after, mark.after, f"before a gap that begins at {mark.after}", visit, position)
        after = mark.after if mark.after is not None else self._at
        gone = [] if after is None else self._truth.between(self._history.filters, after, mark.upto)
        purged = mark.detail == "expired" and mark.upto <= self._truth.purged
        if purged or (mark.detail == "too_far" and 0 < self._replay_limit < len(gone)):
            self.verdict.explained += 1
        else:
            what = f"gap {mark.detail} ({mark.after}, {mark.upto}], purged up to {self._truth.purged}"
            self._fault("unexplained", 1, what, visit, position)
        if self._at is not None and mark.upto < self._at:
            self._fault("wrong", 1, f"a gap back to {mark.upto} from {self._at}", visit, position)
        self._at = mark.upto

    def _reach(self, upto: int, proven: int, where: str, visit: Visit, position: int) -> None:
        """The client stands at `upto` now; whatever it did not get up to `proven` is lost."""
        if self._at is not None:
            lost = self._truth.between(self._history.filters, self._at, proven)
            if lost:
                gone = " (all purged, but no gap was told)" if lost[-1] <= self._truth.purged else ""
                what = f"{len(lost)} lost {where}: {lost[0]} to {lost[-1]}{gone}"
                self._fault("lost", len(lost), what, visit, position)
        self._at = upto

    def _fault(self, kind: str, number: int, what: str, visit: Visit, position: int) -> None:
        self.verdict.counts[kind] += number
        if not self.verdict.first:
            at = self._history.visits.index(visit)
            before = [f"    {each.summary()}" for each in self._history.visits[max(0, at - 3) : at]]
            lines = [f"{self._history.client} on {' '.join(self._history.filters)}: {kind}: {what}", *before]
            self.verdict.first = "\n".join([*lines, f"  > {visit.around(position)}"])

    @property
    def at(self) -> int | None:
        """Where the client stands at the end."""
        return self._at
