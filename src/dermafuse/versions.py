"""What decides the numbers of a run: versions, processor, revision of the source, and the command that was given."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return what a run was computed with and by.

    Returns:
        ``python``, ``system``, ``cpu``, the version of each of ``packages`` that is installed; ``revision`` of the
        source where it is a git checkout; ``command`` where the command line was used.
    """
    found = {"python": platform.python_version(), "system": platform.platform(), "cpu": _processor()}
    found |= {key: text for key, text in (("revision", _revision()), ("command", _command())) if text}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    from dermafuse.runtime.engine import cpu_count

    count = cpu_count()
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:  # no Linux
        pass
    return f"{name}, {count} core{'s' if count > 1 else ''}"


def _revision() -> str | None:
    """Return the commit of the source, with ``-dirty`` where files differ from it; None where git does not hold it."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", here.parent, *arguments], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # an installed copy may lie in somebody else's checkout
        return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _command() -> str | None:
    program = Path(sys.argv[0])
    own = program.name == "dermafuse" or program.parts[-2:] == ("dermafuse", "__main__.py")
    return shlex.join(["dermafuse", *sys.argv[1:]]) if own else None
