"""What `pip install dermafuse` brings, and which of it each verb loads.

Run with the Python of an environment that holds dermafuse and nothing else, and name an image and a small data set:

    dist/venv/bin/python benchmarks/install_size.py examples/lesion.jpg DATA
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

LOADED = """
import json, sys
from dermafuse.cli import main
status = main(sys.argv[1:])
print("LOADED" + json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
raise SystemExit(status)
"""


def sizes() -> dict[str, float]:
    """Return distribution -> megabytes of its files (compiled Python included), the largest first."""
    found = {}
    for each in metadata.distributions():
        paths = {Path(str(each.locate_file(file))) for file in each.files or ()}
        folders = {path.parent / "__pycache__" for path in paths if path.suffix == ".py"}
        paths |= {path for folder in folders if folder.is_dir() for path in folder.iterdir()}
        found[each.metadata["Name"]] = sum(path.stat().st_size for path in paths if path.is_file()) / 1e6
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def loaded(*words: str) -> set[str]:
    """Return the top-level modules that a command has loaded when it ends."""
    done = subprocess.run([sys.executable, "-c", LOADED, *words], capture_output=True, text=True)
    line = next((line for line in done.stdout.splitlines() if line.startswith("LOADED")), None)
    if done.returncode or line is None:
        raise SystemExit(f"{words}: {done.stderr[-2000:]}")
    return set(json.loads(line.removeprefix("LOADED")))


def main() -> None:
    """Print a table in Markdown."""
    image, data = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        judged = f"{folder}/judged"
        verbs = {
            "predict": loaded("predict", image, "--json"),
            "explain": loaded("explain", image, "--out", f"{folder}/why.png"),
            "evaluate": loaded("evaluate", "ham10000-lite1", data, "--out", judged),
            "report": loaded("report", judged),
        }
    homes: dict[str, set[str]] = {}
    for module, names in metadata.packages_distributions().items():
        for name in names:
            homes.setdefault(name, set()).add(module)
    print(f"| package | MB | {' | '.join(verbs)} |\n|---|---|{'---|' * len(verbs)}")
    megabytes = sizes()
    for name, size in megabytes.items():
        marks = ["yes" if homes.get(name, set()) & modules else "" for modules in verbs.values()]
        print(f"| {name} | {size:.1f} | {' | '.join(marks)} |")
    print(f"\n{sum(megabytes.values()):.0f} MB in all, {len(megabytes)} packages")


if __name__ == "__main__":
    main()
