"""How a run ended, in a value and in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mnist_bn.config import RunConfig
from mnist_bn.errors import UserError

NOT_BEGUN = "not begun"
FINISHED_ELSEWHERE = "finished already, by another process: left as it is"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its last log entry, or the one line that says why it failed or was left.

    Attributes:
        left: why it was left as it is, such as stopped by a signal.
        status: the exit status that its error stands for; see `errors`.
    """

    config: RunConfig
    entry: dict | None = None
    error: str | None = None
    left: str | None = None
    status: int = UserError.status

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do for the run: it is finished, or failed."""
        return self.left is None or self.left == FINISHED_ELSEWHERE

    @property
    def is_success(self) -> bool:
        """Whether the run is finished, by this process or another."""
        return self.error is None and self.is_over

    def __str__(self) -> str:
        """One line, without the run's name."""
        if self.entry is None:
            return self.error or self.left or NOT_BEGUN
        entry, parts = self.entry, []
        if diverged_at := entry.get("diverged_at"):
            where, value = diverged_at["iteration"], diverged_at["value"]
            parts.append(f"diverged at iteration {where} (training loss {value:g})")
        elif not math.isfinite(entry["main/loss"]):
            parts.append(f"diverged (training loss {entry['main/loss']})")
        if "validation/main/accuracy" in entry:
            parts.append(f"validation accuracy {entry['validation/main/accuracy']:.4f}")
        parts.append(f"{entry['elapsed_time']:.0f} s")
        return ", ".join(parts)

    def describe(self) -> str:
        """Returns one line that begins with the run's name."""
        if self.entry is None:
            return f"{self.config.name}: {self}"
        unit = self.config.unit
        return f"{self.config.name}: {unit} {self.entry[unit]}, {self}"
