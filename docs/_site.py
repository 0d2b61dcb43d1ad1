"""What the site adds to the pages that are written by hand: the command line, the settings, a sample report and card.

MkDocs calls the functions named ``on_...`` (``hooks`` in mkdocs.yml). Everything is made from the program itself, so it
cannot fall behind. ``DERMAFUSE_DOCS_SAMPLE=tiny`` makes the sample from a training of seconds, for tests.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

REPORT = "sample/report.html"
CARD = "sample/card.md"
EXPLAINED = "sample/explained.png"
#: The training behind the sample: the reference recipe on 400 drawn lesions; for tests, what is needed for a page.
SAMPLE = {"lesions": 400, "backbone": "efficientnet_lite1"}
TINY = {"lesions": 40, "backbone": "efficientnet_lite0", "weights": "random", "image_size": 64, "epochs": 1}


def on_files(files: Files, *, config: Any) -> Files:
    """Add the generated pages."""
    made = {"reference/cli.md": command_line(), "reference/settings.md": settings(), **sample()}
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


# --- the command line, from the parser


def command_line() -> str:
    """Return the page of all verbs: what each does, its arguments, examples."""
    from dermafuse.cli import parser

    top = parser()
    verbs = next(action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    parts = [
        "# Command line",
        "Made from the program's own parser; `dermafuse VERB --help` says the same.",
        "Exit status: 0 done; 1 the verb says what failed; 2 a mistake that you can mend, in one sentence; "
        "130, 143 and 129: ended by Ctrl-C, SIGTERM and SIGHUP. `--debug`, which every verb has, shows the traceback.",
    ]
    for name, verb in verbs.choices.items():
        parts += [f"## dermafuse {name}", escaped(" ".join((verb.description or "").split()))]
        usage = verb.format_usage().removeprefix("usage: ")
        parts += [f"```text\n{usage.strip()}\n```", arguments(verb)]
        examples = getattr(verb, "examples", ())
        if examples:
            lines = [f"# {meaning}\n{command}" for command, meaning in examples]
            parts += ["```sh\n" + "\n".join(lines) + "\n```"]
        elif verb.epilog:
            parts += [escaped(verb.epilog)]
    return "\n\n".join(parts) + "\n"


def arguments(verb: argparse.ArgumentParser) -> str:
    """Return the table of a verb's arguments and options."""
    rows = []
    for action in verb._actions:
        if action.dest in ("help", "debug") or action.help == argparse.SUPPRESS:
            continue
        metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        if action.choices is not None and action.metavar is None:
            metavar = "|".join(map(str, action.choices))
        value = "" if action.nargs == 0 else f" {metavar}"
        name = ", ".join(f"{option}{value}" for option in action.option_strings) or metavar
        needed = " **Required.**" if action.required and action.option_strings else ""
        cell = name.replace("|", "\\|")
        rows.append(f"| `{cell}` | {escaped(' '.join((action.help or '').split()))}{needed} |")
    return "\n".join(["| argument | meaning |", "|---|---|", *rows])


# --- recipes and settings, from the configuration


def settings() -> str:
    """Return the page of all recipes and settings."""
    from dermafuse.commands.train_settings import _allowed, _plain
    from dermafuse.training.config import TrainConfig, resolve
    from dermafuse.training.loop.experimental import EXPERIMENTAL
    from dermafuse.training.recipes import DEFAULT_RECIPE, MEANINGS, RECIPES

    resolved = {name: resolve(name).model_dump() for name in RECIPES}
    names = sorted(RECIPES, key=lambda name: name != DEFAULT_RECIPE)
    parts = [
        "# Settings and recipes",
        "Made from the configuration itself. A recipe names values for all settings. Change one with "
        "`--set key=value` (repeatable), in a file for `--config`, or as an argument of `df.train`. "
        "`RUN/config.toml` holds what a run took, and `dermafuse train --config RUN/config.toml --out AGAIN` repeats "
        "it.",
        "## Recipes",
        "\n".join(
            f"- **`{name}`**{' (the default)' if name == DEFAULT_RECIPE else ''}: {escaped(MEANINGS[name])}."
            for name in names
        ),
        "## Settings",
        "One column a recipe; an empty cell: as in the first one. Experimental: in no recipe, and may change.",
        "\n".join(setting_rows(TrainConfig.model_fields, resolved, names, EXPERIMENTAL, _plain, _allowed)),
    ]
    return "\n\n".join(parts) + "\n"


def setting_rows(
    fields: Any, resolved: dict[str, dict[str, Any]], names: list[str], experimental: Any, plain: Any, allowed: Any
) -> Iterator[str]:
    """Yield the lines of the table of settings."""
    yield "| setting | meaning | " + " | ".join(f"`{name}`" for name in names) + " |"
    yield "|---" * (len(names) + 2) + "|"
    for key, field in fields.items():
        usual = resolved[names[0]][key]
        values = [f"`{plain(resolved[name][key])}`" for name in names]
        cells = [values[0], *("" if resolved[name][key] == usual else cell for name, cell in
                              zip(names[1:], values[1:], strict=True))]  # fmt: skip
        if key == "recipe":
            cells = values
        mark = " *(experimental)*" if key in experimental else ""
        yield f"| `{key}` | {escaped(field.description + allowed(field))}{mark} | " + " | ".join(cells) + " |"


def escaped(text: str) -> str:
    """Return text whose characters Markdown would take for marks (``<``, ``*``, ``_``, ``|``, ``[``) written out."""
    return re.sub(r"([\\`*_\[\]<|])", r"\\\1", text)


# --- a sample report and card


def sample() -> dict[str, str | bytes]:
    """Return path in the site -> content: report, card and an explained image, from generated data."""
    import dermafuse as df
    from dermafuse.data.synthetic.dataset import write_synthetic
    from dermafuse.progress import SILENT
    from dermafuse.training.demo import explain_one

    chosen = dict(TINY if os.environ.get("DERMAFUSE_DOCS_SAMPLE") == "tiny" else SAMPLE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write_synthetic(folder / "GENERATED", lesions=int(chosen.pop("lesions")), seed=0)
        run = df.train(str(data), out=folder / "RUN", recipe="seed", split="lesion", progress=False, **chosen)
        explain_one(data, folder / "explained.png", SILENT)
        card = (run.path / "model" / "README.md").read_text(encoding="utf-8")
        card = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)  # what a hub of models reads, not people
        said = (
            '!!! warning "Generated data"\n    This card is a sample. Its model was trained on lesions drawn by a '
            "computer. Its figures say nothing about skin.\n\n"
        )
        return {
            REPORT: (run.path / "report.html").read_bytes(),
            CARD: said + card,
            EXPLAINED: (folder / "explained.png").read_bytes(),
        }
