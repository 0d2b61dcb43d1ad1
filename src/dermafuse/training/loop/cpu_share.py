"""How the CPUs are shared between the parts of a batch (``side_by_side``); loads no TensorFlow."""

from __future__ import annotations

from typing import Final

from dermafuse.runtime.engine import cpu_count

#: More parts leave too few images in each.
_MOST_PARTS: Final = 4


def parts_of_a_batch() -> int:
    """Return into how many parts a batch is divided on this machine; each has ``threads_of_a_part`` threads."""
    return min(cpu_count(), _MOST_PARTS)


def threads_of_a_part() -> int:
    """Return how many threads one operation may use where the parts of a batch run side by side."""
    return max(1, cpu_count() // parts_of_a_batch())
