"""One-hot columns: one column a diagnosis, 1 where it is that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dermafuse.data.tables import parse_numbers
from dermafuse.errors import DataError, examples

#: Words that people write for 1 and 0.
_TRUTH = {"true": "1", "yes": "1", "false": "0", "no": "0", "": "0"}


def marked_column(
    frame: pd.DataFrame, columns: Sequence[str], ids: Sequence[str], path: Path, *, required: bool
) -> list[str | None]:
    """Return for every row the one of ``columns`` that holds a 1; ``None`` where none does.

    Args:
        frame: cells as text.
        columns: of ``frame``, as it spells them.
        ids: image ids of the rows, for the message.
        path: the table, for the message.
        required: whether every row must mark one.

    Raises:
        DataError: a cell that is neither 0 nor 1, more than one 1 in a row, or none where one is required.
    """
    cells = ([_TRUTH.get(str(cell).lower(), str(cell)) for cell in frame[name]] for name in columns)
    numbers = [parse_numbers(list(column), ids, name, path) for column, name in zip(cells, columns, strict=True)]
    values = np.column_stack(numbers).reshape(len(ids), len(columns))
    total = values.sum(axis=1)  # (n,)
    wrong = ~np.isin(values, (0.0, 1.0)).all(axis=1) | (total > 1) | ((total == 0) if required else False)
    if wrong.any():
        shown = examples([ids[row] for row in np.flatnonzero(wrong).tolist()], int(wrong.sum()))
        raise DataError(
            f"{path}: {int(wrong.sum()):,} row(s) do not mark exactly one diagnosis with 1 ({shown}); mend them."
        )
    best: list[int] = values.argmax(axis=1).tolist()
    return [columns[place] if some else None for place, some in zip(best, total > 0, strict=True)]
