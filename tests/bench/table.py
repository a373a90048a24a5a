"""What a scenario found, and how it is put on the screen."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Goal:
    """A number that shall not be above its limit."""

    name: str
    value: float
    limit: float
    unit: str

    @property
    def holds(self) -> bool:
        return self.value <= self.limit

    def __str__(self) -> str:
        verdict = "holds" if self.holds else "MISSED"
        return f"goal {verdict}: {self.name} {self.value:.2f} {self.unit} (limit {self.limit:g} {self.unit})"


@dataclass(frozen=True)
class Table:
    """The result of one scenario: a head, rows, what they mean, and the goals it decides."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    goals: Sequence[Goal] = field(default=())

    def __str__(self) -> str:
        widths = [max(len(row[at]) for row in (self.head, *self.rows)) for at in range(len(self.head))]
        lines = [f"== {self.title}"]
        for row in (self.head, *self.rows):
            first, *others = (
                cell.ljust(width) if at == 0 else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            lines.append("   ".join([first, *others]))
        lines += [f"   {note}" for note in self.notes]
        return "\n".join(lines)
