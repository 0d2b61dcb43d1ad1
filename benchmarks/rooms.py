"""How many modules a training passes through, and how often a reader who follows its calls comes back to one.

    python benchmarks/rooms.py [--list] [--source CHECKOUT/src]

Trains once on generated data (random weights, one epoch) and watches every call from one module of dermafuse to a
function of another, from ``training.start.train`` on, in the main thread. A call that happens again (the next batch,
the next image) counts once, as it stands once in the text. ``rooms``: modules that are entered; ``calls``: calls
between them; ``returns``: those of them that lead to a module that was entered before. ``train_run`` is counted on its
own as well: what is entered below it, and what it calls itself, which ``--list`` prints in order. ``--source`` measures
another checkout with the same interpreter.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

START = "training.start"


class Watch:
    """Calls between modules of the package, each once, in the order in which they first happen."""

    def __init__(self, package: Path) -> None:
        self.package = f"{package}{os.sep}"
        self.calls: dict[tuple[CodeType, CodeType], bool] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Note a call; whether it is below ``train_run`` is kept with it."""
        if event != "call" or not frame.f_code.co_filename.startswith(self.package):
            return
        caller, below = frame.f_back, False
        while caller is not None and not caller.f_code.co_filename.startswith(self.package):
            caller = caller.f_back
        if caller is None or caller.f_code.co_filename == frame.f_code.co_filename:
            return
        call = (caller.f_code, frame.f_code)
        if call in self.calls or "<module>" in (frame.f_code.co_name, caller.f_code.co_name):  # an import is no call
            return
        above: FrameType | None = caller
        while above is not None and not below:
            below, above = above.f_code.co_name == "train_run", above.f_back
        self.calls[call] = below

    def room(self, code: CodeType) -> str:
        """Return a module's name: ``training.start``."""
        return code.co_filename.removeprefix(self.package).removesuffix(".py").replace(os.sep, ".")


def counted(calls: list[tuple[str, str]], first: str) -> dict[str, int]:
    """Return rooms, calls and returns of (caller's module, called module), in order."""
    entered, returns = {first}, 0
    for _, called in calls:
        returns += called in entered
        entered.add(called)
    return {"rooms": len(entered), "calls": len(calls), "returns": returns}


def main() -> None:
    """Train, watch, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="print what train_run calls, in order")
    parser.add_argument("--source", type=Path, help="src/ of another checkout")
    arguments = parser.parse_args()
    if arguments.source:
        sys.path.insert(0, str(arguments.source.resolve()))
    import dermafuse
    from dermafuse.training.config import resolve
    from dermafuse.training.start import train

    package = Path(dermafuse.__file__).parent
    watch = Watch(package)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["DERMAFUSE_CACHE"] = f"{scratch}/cache"
        data = synthetic(Path(scratch) / "data")
        small = {"backbone": "efficientnet_lite0", "weights": "random", "image_size": 64, "epochs": 1}
        config = resolve("standard", options={**small, "data": str(data), "random_views": 1, "views": 1})
        sys.setprofile(watch)
        try:
            train(config, Path(scratch) / "RUN", resume=False, overwrite=False, audits=(), report=silent())
        finally:
            sys.setprofile(None)
    calls = [(watch.room(caller), watch.room(called)) for caller, called in watch.calls]
    below = [call for call, inside in zip(calls, watch.calls.values(), strict=True) if inside]
    found = {"train": counted(calls, START), "train_run": counted(below, "training.experiment")}
    print(json.dumps({"package": str(package), **found}, indent=2))
    if arguments.list:
        for caller, called in watch.calls:
            if caller.co_name == "train_run":
                print(f"{watch.room(called)}.{called.co_name}")


def synthetic(folder: Path) -> Path:
    """Write 70 generated lesions; the module had another name before."""
    try:
        from dermafuse.data.synthetic.dataset import write_synthetic
    except ImportError:
        from dermafuse.data.synthetic import write_synthetic  # type: ignore[attr-defined,no-redef]
    write_synthetic(folder, lesions=70, seed=5)
    return folder


def silent() -> Any:
    """Return a reporter that says nothing; the module had another name before."""
    try:
        from dermafuse.progress import Silent
    except ImportError:
        from dermafuse.report import Silent  # type: ignore[attr-defined,no-redef]
    return Silent()


if __name__ == "__main__":
    main()
