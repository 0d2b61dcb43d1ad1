"""A data set in a known layout as rows to predict: what a folder or its ``dermafuse.toml`` says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dermafuse.runtime.batch.table_rows import Columns, Row


class DataRows:
    """Reads a data set as training does, with or without diagnoses.

    Args:
        data: a folder of a known layout, or a ``.toml``.
        fields: metadata fields of the model.

    Raises:
        DataError, ConfigError: as `dermafuse.data.readers.read.read_dataset`.
    """

    def __init__(self, data: Path, *, fields: Sequence[str]) -> None:
        from dermafuse.data.readers.read import read_dataset  # pandas: who predicts a table needs none

        self.table = data
        self._records = read_dataset(data, labelled=False)
        table = self._records.table
        there = [name for name in fields if name in table.columns and bool(table[name].notna().any())]
        absent = tuple(name for name in fields if name not in there)
        places = {str(name): place for place, name in enumerate(table.columns)}
        self.columns = Columns(len(places), places["image_id"], {name: places[name] for name in there}, absent)

    def __len__(self) -> int:
        return len(self._records) + len(self._records.skipped)

    def __iter__(self) -> Iterator[Row]:
        """Yield the images in the order of the data set, then the rows whose image is missing."""
        fields = list(self.columns.fields)
        table = self._records.table
        features = table[fields].astype(object).where(table[fields].notna(), None).to_dict("records")
        rows = zip(table["image_id"], table["path"], features, strict=True)
        for number, (name, path, values) in enumerate(rows, start=1):
            yield Row(number, name, Path(path), {str(field): value for field, value in values.items()})
        for number, (name, reason) in enumerate(
            zip(self._records.skipped["image_id"], self._records.skipped["reason"], strict=True), start=len(table) + 1
        ):
            yield Row(number, name, None, {}, reason)

    def notes(self) -> tuple[str, ...]:
        """Return what was mapped, dropped or left out."""
        return self._records.notes
