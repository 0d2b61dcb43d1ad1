"""``dermafuse predict RUN IMAGE... | --csv TABLE``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermafuse.commands.asking import add_metadata_options, announce, given_metadata, model_and_images
from dermafuse.commands.parsing import add_output
from dermafuse.commands.spreading import add_cluster_options, add_shard_option, cluster_of
from dermafuse.errors import ConfigError, DermafuseError
from dermafuse.files import nearest_path
from dermafuse.labels import DISCLAIMER
from dermafuse.parallel import parse_part
from dermafuse.printable import csv_line, plain

if TYPE_CHECKING:
    from dermafuse.runtime.bundle.folder import Bundle
    from dermafuse.runtime.prediction import Prediction


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "predict",
        parents=[common],
        help="probabilities, prediction set and flags for images or a table of images",
        description="Predict images, all images of a folder, every row of a table, or a data set. On a terminal the "
        f"answer is a small table for reading; piped, or with --out, it is CSV; with --json, JSON. {DISCLAIMER}",
        examples=(
            ("dermafuse predict lesion.jpg --age 55 --sex male --localization back", "ask the released model"),
            ("dermafuse predict RUN a.jpg b.jpg --json", "ask a model of yours, answers as JSON"),
            ("dermafuse predict RUN FOLDER --out predictions.csv", "every image of a folder"),
            ("dermafuse predict RUN --csv table.csv --image-root images --out predictions.csv", "every row of a table"),
            ("dermafuse predict RUN --data clinic/dermafuse.toml --out predictions.csv", "a data set of your own"),
        ),
    )
    verb.add_argument(
        "paths",
        metavar="RUN IMAGE",
        nargs="*",
        type=Path,
        help="a RUN or bundle folder (none: the released model), then images or folders of images",
    )
    verb.add_argument("--csv", metavar="TABLE", type=Path, help="predict every row of this table instead")
    verb.add_argument(
        "--data", metavar="DATA", type=Path, help="or every image of a data set, as its dermafuse.toml or layout says"
    )
    verb.add_argument("--image-column", metavar="NAME", help="its column of image paths or ids")
    verb.add_argument("--image-root", metavar="DIR", type=Path, help="where its images lie (default: beside it)")
    verb.add_argument("--extension", metavar="EXT", help="what to add to its image ids, such as .jpg")
    verb.add_argument(
        "--column", metavar="FIELD=NAME", action="append", default=[], help="its column of a metadata field; repeatable"
    )
    add_output(verb, "--out", metavar="FILE", help=".csv, .jsonl or .parquet; images: .csv, default stdout")
    add_metadata_options(verb)
    verb.add_argument(
        "--spreadsheet-safe", action="store_true", help="in CSV: mark cells that a spreadsheet would take for a formula"
    )
    verb.add_argument("--views", type=int, choices=(1, 8), default=1, help="8: average over flips and quarter turns")
    verb.add_argument("--precision", choices=("auto", "f32", "bf16"), default="auto")
    verb.add_argument("--resume", action="store_true", help="continue an interrupted --csv run")
    verb.add_argument("--overwrite", action="store_true", help="replace --out")
    add_shard_option(verb, "predict that part of --csv; the same command without --shard joins")
    add_cluster_options(verb, "the rows of --csv")
    verb.add_argument("--json", action="store_true", help="print JSON, a list of predictions")
    verb.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Predict; exit 1 where some image, or no row of the table, could be predicted."""
    model, images = model_and_images(arguments.paths)
    metadata = given_metadata(arguments)
    _check_arguments(arguments, images, metadata)
    from dermafuse.runtime.released import load

    many = arguments.csv is not None or arguments.data is not None or len(images) > 8
    predictor = load(model, precision=arguments.precision, mode="throughput" if many else "latency")
    announce(predictor.bundle.info.get("announcements", ()))
    if not images:
        return _table(predictor, arguments)
    return _images(predictor, images, metadata, arguments)


def _check_arguments(arguments: argparse.Namespace, images: list[Path], metadata: dict[str, str]) -> None:
    if bool(images) + (arguments.csv is not None) + (arguments.data is not None) != 1:
        raise ConfigError("Name images to predict, or one table with --csv, or a data set with --data (one of them).")
    if arguments.data is not None:
        _check_data(arguments, metadata)
    if arguments.csv is not None and metadata:
        name = next(iter(metadata))
        raise ConfigError(
            f"'{name}' is given for all rows of {arguments.csv.name}; have it in a column of the table, and name that "
            f"with --column {name}=COLUMN."
        )
    if arguments.csv is not None and not arguments.csv.exists():
        raise ConfigError(f"The table {arguments.csv} does not exist; check the path.{nearest_path(arguments.csv)}")
    if arguments.csv is not None and arguments.out is None:
        raise ConfigError("Add --out FILE (.csv, .jsonl or .parquet) for the predictions of --csv.")
    spread = next((name for name in ("shard", "cluster", "jobs") if getattr(arguments, name) is not None), None)
    if arguments.csv is None and spread:
        raise ConfigError(f"--{spread} divides a table; name one with --csv.")
    if arguments.csv is None and arguments.column:
        raise ConfigError("--column names a column of a --csv table; give values with --set-feature NAME=VALUE.")


def _check_data(arguments: argparse.Namespace, metadata: dict[str, str]) -> None:
    if not arguments.data.exists():
        raise ConfigError(f"The data {arguments.data} does not exist; check the path.{nearest_path(arguments.data)}")
    if arguments.out is None:
        raise ConfigError("Add --out FILE (.csv, .jsonl or .parquet) for the predictions of --data.")
    ways = ("image_column", "image_root", "extension", "column")
    told = [f"--{name.replace('_', '-')}" for name in ways if getattr(arguments, name)]
    if told or metadata:
        what = told[0] if told else f"'{next(iter(metadata))}'"
        raise ConfigError(
            f"{what} belongs to --csv or to images; of --data, the layout or its dermafuse.toml says all that."
        )


def _images(predictor: Any, images: list[Path], metadata: dict[str, str], arguments: argparse.Namespace) -> int:
    from dermafuse.runtime.batch.unknown_words import UnknownWords
    from dermafuse.runtime.prediction import Query
    from dermafuse.runtime.released import model_facts, which_model

    predictor.check_fields(metadata)
    answers = list(predictor.stream((Query(image, metadata) for image in images), views=arguments.views))
    pairs = list(zip(map(str, images), answers, strict=True))
    good = [(image, answer) for image, answer in pairs if not isinstance(answer, DermafuseError)]
    for_a_person = arguments.out is None and not arguments.json and sys.stdout.isatty()
    if for_a_person:
        _write("\n".join(answer_text(image, answer, predictor.bundle) for image, answer in good), arguments)
    else:
        rows = [
            {"image": image, "error": str(answer)}
            if isinstance(answer, DermafuseError)
            else {"image": image, **answer.to_dict()}
            for image, answer in pairs
        ]
        if arguments.json:
            facts = model_facts(predictor.bundle)
            _write(json.dumps([{**row, "model": facts} for row in rows], indent=2) + "\n", arguments)
        else:
            _write(_as_csv(rows, predictor.classes, spreadsheet=arguments.spreadsheet_safe), arguments)
        print(which_model(model_facts(predictor.bundle)), file=sys.stderr)
    unknown = UnknownWords(predictor.bundle.encoder)
    for _, answer in good:
        unknown.add(answer)
    for text in unknown.sentences():
        print(text, file=sys.stderr)
    for _, answer in pairs:
        if isinstance(answer, DermafuseError):
            print(f"dermafuse: {plain(answer)}", file=sys.stderr)
    return 1 if len(good) < len(pairs) else 0


def _as_csv(rows: list[dict[str, Any]], classes: tuple[str, ...], *, spreadsheet: bool) -> str:
    flags = ("prediction_set", "out_of_distribution", "missing", "error")
    lines = [["image", "predicted", *(f"p_{code}" for code in classes), "malignant", *flags]]
    for row in rows:
        chances = row.get("probabilities", {})
        lines.append(
            [
                row["image"],
                row.get("label", ""),
                *(f"{chances[code]:.6f}" if code in chances else "" for code in classes),
                "" if row.get("malignant_probability") is None else f"{row['malignant_probability']:.6f}",
                "|".join(row.get("prediction_set") or ()),
                "" if row.get("out_of_distribution") is None else str(row["out_of_distribution"]).lower(),
                "|".join(row.get("missing", ())),
                row.get("error", ""),
            ]
        )
    return "".join(csv_line(cells, spreadsheet=spreadsheet) for cells in lines)


def _write(text: str, arguments: argparse.Namespace) -> None:
    if arguments.out is None:
        sys.stdout.write(text)
        return
    from dermafuse.files import write_atomic

    if arguments.out.exists() and not arguments.overwrite:
        raise ConfigError(f"{arguments.out} exists already; add --overwrite to replace it.")
    write_atomic(arguments.out, text)


def _table(predictor: Any, arguments: argparse.Namespace) -> int:
    from dermafuse.progress import Terminal
    from dermafuse.runtime.batch.data_rows import DataRows
    from dermafuse.runtime.batch.predict_table import predict_table
    from dermafuse.runtime.batch.table_rows import count_rows
    from dermafuse.runtime.released import model_facts, which_model

    columns = {}
    for text in arguments.column:
        field, separator, name = text.partition("=")
        if not separator:
            raise ConfigError(f"--column takes FIELD=NAME, not '{text}'; for example --column age=age_approx.")
        columns[field] = name
    shard = parse_part(arguments.shard) if arguments.shard else None
    rows = None if arguments.data is None else DataRows(arguments.data, fields=predictor.fields)
    total = count_rows(arguments.csv) // (shard.of if shard else 1) if rows is None else len(rows)
    report = Terminal()
    with cluster_of(arguments, report) as cluster, report.bar("Predicting", total, "images") as advance:
        done = predict_table(
            predictor,
            arguments.csv if rows is None else rows,
            arguments.out,
            image_column=arguments.image_column,
            columns=columns or None,
            image_root=arguments.image_root,
            extension=arguments.extension,
            views=arguments.views,
            spreadsheet_safe=arguments.spreadsheet_safe,
            resume=arguments.resume,
            overwrite=arguments.overwrite,
            progress=advance,
            shard=shard,
            runner=cluster.shards if cluster else None,
        )
    for text in done.unknown_notes:
        print(text, file=sys.stderr)
    status = 0 if done.predicted or shard is not None else 1
    if arguments.json:
        facts = {**dataclasses.asdict(done), "out": str(done.out), "skipped": done.skipped and str(done.skipped)}
        print(json.dumps({**facts, "model": model_facts(predictor.bundle)}))
        return status
    for note in done.notes:
        print(note)
    if shard is not None and done.shards is not None:
        own, every = done.shards
        print(
            f"Part {shard}: {own:,} of {every:,} shards ({done.rows:,} rows, {done.failed:,} without a prediction) are "
            f"in {done.out}; when all parts are done, the same command without --shard joins them."
        )
        return 0
    rate = (done.rows - done.resumed) / max(done.seconds, 1e-9)
    print(f"{done.predicted:,} of {done.rows:,} rows predicted into {done.out} ({rate:,.0f} rows/s).")
    if done.failed:
        print(f"{done.failed:,} rows have no prediction; the reasons are in {done.skipped}.")
    if done.absent:
        print(f"No column for {', '.join(done.absent)}: predicted as unknown.")
    print(which_model(model_facts(predictor.bundle)))
    return status


#: Characters of a bar that stands for a probability of 1.
_BAR = 30


def answer_text(image: str, said: Prediction, bundle: Bundle) -> str:
    """Return the lines that a terminal shows of one prediction."""
    from dermafuse.runtime.released import model_facts, which_model

    width = max(len(plain(code)) for code in bundle.classes)
    names = max(len(plain(name)) for name in bundle.names.values())
    lines = [
        f"{plain(image)}: {plain(said.name)} ({plain(said.label)}), probability {said.probabilities[said.label]:.1%}"
    ]
    for code, chance in said.ranked:
        bar = "#" * round(chance * _BAR)
        lines.append(f"  {plain(code):<{width}}  {plain(bundle.names[code]):<{names}}  {chance:6.1%}  {bar}".rstrip())
    if said.malignant_probability is not None:
        lines.append(f"  Malignant, all together: {said.malignant_probability:.1%}")
    sets = said.prediction_set
    if sets is not None and sets != (said.label,):
        lines.append(f"  Cannot be excluded: {', '.join(map(plain, sets)) if sets else 'none of the classes fits'}")
    if said.out_of_distribution:
        lines.append("  UNLIKE the images this model was trained on: do not trust this answer.")
    silent = [name for name in said.missing if name not in said.unknown]
    if silent:
        lines.append(f"  Not known, which makes the answer less sure: {', '.join(map(plain, silent))}")
    lines.append(f"  {which_model(model_facts(bundle))}")
    return "\n".join(lines) + "\n"
