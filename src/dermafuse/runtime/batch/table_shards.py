"""A table in shards: blocks of rows that any process may predict, and the output that they make when joined.

The blocks lie in ``OUT.shards`` until all are there. The joined output is byte by byte what one process writes.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermafuse.errors import BundleError, ConfigError, OutputError, examples
from dermafuse.parallel import Part, Runner, ShardFolder, origin
from dermafuse.runtime.batch.row_answers import FinishedBlock, GrowingBlock, predict_rows
from dermafuse.runtime.batch.table_output import Lines, OutputTable
from dermafuse.runtime.batch.table_rows import Block, Row, TableReader
from dermafuse.runtime.batch.unknown_words import UnknownWords
from dermafuse.runtime.bundle.folder import read_bundle
from dermafuse.runtime.engine import Precision
from dermafuse.runtime.prediction import Views
from dermafuse.runtime.predictor import Predictor

#: So many of a block's images are looked for before it is predicted on another machine.
_LOOK_AT = 16


@dataclass(frozen=True)
class TableJob:
    """Predicting blocks of rows, as plain values: see `dermafuse.parallel.Job`.

    Attributes:
        model: folder of the bundle, as every machine sees it.
        digest: what the bundle must be.
        precision: ``f32`` or ``bf16``.
        views: 1 or 8.
        lines: how rows are written.
    """

    model: str
    digest: str
    precision: Precision
    views: Views
    lines: Lines

    def start(self, threads: int) -> Callable[[list[Row]], tuple[bytes, dict[str, Any]]]:
        """Load the model; return what predicts a block: its content, and who did it.

        Raises:
            BundleError: another model lies there. ConfigError: this CPU cannot compute in that precision.
        """
        bundle = read_bundle(Path(self.model))
        if bundle.digest != self.digest:
            raise BundleError(f"{self.model} is another model here than where the command was given; copy it again.")
        predictor = Predictor(bundle, precision=self.precision, mode="throughput", threads=threads)

        def work(rows: list[Row]) -> tuple[bytes, dict[str, Any]]:
            _check_in_sight([row.path for row in rows if row.path is not None][:_LOOK_AT])
            block = GrowingBlock(self.lines, predictor)
            with contextlib.closing(predict_rows(predictor, rows, self.views)) as outcomes:
                for row, outcome in outcomes:
                    block.add(row, outcome)
            return block.content(), origin()

        return work


def _check_in_sight(paths: list[Path]) -> None:
    """Refuse to call images missing that are not: they were seen where the command was given."""
    if paths and not any(path.is_file() for path in paths):
        raise ConfigError(f"{paths[0]} cannot be seen on this machine; have its folder on a disk that all share.")


@dataclass
class Done:
    """What there is of a part: shards of the table and of the part; its rows, those there before, those that failed."""

    unknown: UnknownWords
    shards: int = 0
    own: int = 0
    rows: int = 0
    resumed: int = 0
    failed: int = 0

    def add(self, block: FinishedBlock) -> None:
        """Count a finished block."""
        self.failed += len(block.skipped)
        block.add_unknown(self.unknown)


@dataclass(frozen=True)
class ShardedTable:
    """A table that is predicted block by block.

    Attributes:
        predictor: the model.
        reader: the table.
        lines: how rows are written.
        views: 1 or 8.
        folder: where finished blocks are.
    """

    predictor: Predictor
    reader: TableReader
    lines: Lines
    views: Views
    folder: ShardFolder

    def named_blocks(self) -> Iterator[tuple[str, Block]]:
        """Yield the blocks of the table with their names: number, and a hash of all that their rows say."""
        for block in self.reader.blocks():
            said = repr((block.first, [tuple(row) for row in block.rows])).encode("utf-8", "surrogatepass")
            yield f"{block.number:06d}-{hashlib.sha256(said).hexdigest()[:16]}", block

    def compute(self, part: Part, runner: Runner | None, progress: Callable[[int], None]) -> Done:
        """Predict the blocks of a part that are not there yet, here or (with a runner) elsewhere.

        Raises:
            DermafuseError: as prediction and writing do.
        """
        done = Done(UnknownWords(self.predictor.bundle.encoder))

        def todo() -> Iterator[tuple[str, Block]]:
            for name, block in self.named_blocks():
                done.shards += 1
                if not part.has(block.number):
                    continue
                done.own += 1
                done.rows += len(block)
                before = self.folder.read(name)
                if before is None:
                    yield name, block
                else:
                    done.resumed += len(block)
                    done.add(FinishedBlock.read(before))
                    progress(len(block))

        found = self._here(todo(), progress) if runner is None else self._there(todo(), runner, progress)
        for name, content, by in found:
            block = FinishedBlock.read(content)
            self.folder.publish(name, content, rows=block.count, failed=len(block.skipped), **by)
            done.add(block)
        return done

    def _here(
        self, todo: Iterator[tuple[str, Block]], progress: Callable[[int], None]
    ) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
        # One stream over all blocks, so that no thread waits where one ends and the next begins.
        begun: deque[tuple[str, Block]] = deque()

        def rows() -> Iterator[Row]:
            for name, block in todo:
                begun.append((name, block))
                yield from self.reader.rows_of(block)

        growing = GrowingBlock(self.lines, self.predictor)
        with contextlib.closing(predict_rows(self.predictor, rows(), self.views)) as outcomes:
            for row, outcome in outcomes:
                growing.add(row, outcome)
                progress(1)
                if len(growing) == len(begun[0][1]):
                    yield begun.popleft()[0], growing.content(), origin()
                    growing = GrowingBlock(self.lines, self.predictor)

    def _there(
        self, todo: Iterator[tuple[str, Block]], runner: Runner, progress: Callable[[int], None]
    ) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
        bundle = self.predictor.bundle
        job = TableJob(str(bundle.path.absolute()), bundle.digest, self.predictor.precision, self.views, self.lines)
        for name, (content, by) in runner(job, ((name, list(self.reader.rows_of(block))) for name, block in todo)):
            yield name, content, by
            progress(FinishedBlock.read(content).count)

    def join(self, output: OutputTable) -> list[str]:
        """Append every block to the output, in order; return their names.

        Raises:
            OutputError: a block is no longer there, or no longer what was written.
        """
        names = []
        for name, _ in self.named_blocks():
            content = self.folder.read(name)
            if content is None:
                raise OutputError(f"Shard {name} of {self.folder.folder} was changed meanwhile; run the command again.")
            block = FinishedBlock.read(content)
            skipped = b"".join(self.lines.skipped(*row) for row in block.skipped)
            output.add_block(block.rows, skipped, count=block.count, failed=len(block.skipped))
            names.append(name)
        return names

    def notes(self) -> tuple[str, ...]:
        """Return sentences on shards that were damaged."""
        bad = sorted(self.folder.damaged)
        return (f"{len(bad):,} shard(s) were damaged and computed again ({examples(bad)}).",) if bad else ()
