"""Windows and macOS, as far as they can be tried here: without the modules and functions that only POSIX has."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import dermafuse
from tiny_bundle import tiny_bundle, tiny_image

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "dermafuse"

MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "spwd", "crypt")
NAMES = {
    "os": (
        "fork",
        "forkpty",
        "sched_getaffinity",
        "sched_setaffinity",
        "nice",
        "getuid",
        "geteuid",
        "getgid",
        "getpgid",
        "killpg",
        "setsid",
        "uname",
        "getloadavg",
        "mkfifo",
        "chown",
        "statvfs",
        "sendfile",
        "setpriority",
        "O_NOFOLLOW",
        "O_NONBLOCK",
        "O_NOCTTY",
        "O_CLOEXEC",
        "O_DIRECTORY",
        "wait",
        "WIFEXITED",
        "posix_fallocate",
        "posix_fadvise",
        "pread",
        "pwrite",
        "sync",
        "fchmod",
        "fchown",
        "lchown",
        "mknod",
    ),
    "signal": ("SIGHUP", "SIGKILL", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGPIPE", "alarm", "setitimer"),
    "time": ("tzset",),
    "socket": ("AF_UNIX", "SO_REUSEPORT"),
}

#: Every place that uses one, each with a way round it where it is missing; ``docs/reference/systems.md`` lists them.
USED = {
    "temporaries.py": {"fcntl"},  # without locks nothing that another process left is swept
    "runtime/engine.py": {"sched_getaffinity"},  # else all CPUs of the machine
    "serving/processes.py": {"nice"},  # else workers have the server's own priority
}


def test_every_call_that_only_posix_has_is_known_to_have_a_way_round() -> None:
    found: dict[str, set[str]] = {}
    for path in SOURCE.glob("**/*.py"):
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names} & set(MODULES)
            elif isinstance(node, ast.ImportFrom) and node.module in (*MODULES, *NAMES):
                names |= {node.module} & set(MODULES) or {a.name for a in node.names} & set(NAMES.get(node.module, ()))
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                names |= {node.attr} & set(NAMES.get(node.value.id, ()))
        if names:
            found[path.relative_to(SOURCE).as_posix()] = names
    assert found == USED
    listed = (ROOT / "docs" / "reference" / "systems.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in listed for names in USED.values() for name in names)


ELSEWHERE = """
import importlib, sys
from pathlib import Path
source, bundle, image, out = map(Path, sys.argv[1:])

def import_all():
    for path in sorted(source.glob("**/*.py")):
        room = path.relative_to(source).parts[0]
        if room in ("training", "exporters", "cluster") or path.name == "__main__.py":
            continue  # they need packages of extras; what of POSIX they use, the list above says
        name = path.relative_to(source).with_suffix("").as_posix().replace("/", ".")
        try:
            importlib.import_module("dermafuse." + name)
        except ImportError as error:
            if (error.name or "").split(".")[0] not in ("tensorflow", "keras", "ray", "fastapi", "uvicorn", "cv2"):
                raise

import_all()  # what others made stays: their packages know where they are
for name in [name for name in sys.modules if name.partition(".")[0] == "dermafuse"]:
    del sys.modules[name]
for name in {modules!r}:
    sys.modules[name] = None
for owner, names in {names!r}.items():
    module = importlib.import_module(owner)
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
import_all()
from dermafuse.cli import main
from dermafuse.files import folder_atomic, write_atomic
for text in ("one", "two"):
    write_atomic(out / "file.txt", text)
    with folder_atomic(out / "folder", overwrite=True) as fresh:
        write_atomic(fresh / "metrics.json", text)
assert (out / "folder" / "metrics.json").read_text() == (out / "file.txt").read_text() == "two"
assert main(["predict", str(bundle), str(image), "--out", str(out / "answer.csv")]) == 0
from dermafuse import temporaries
assert temporaries.fcntl is None
print("done")
"""


def test_the_runtime_works_where_posix_calls_are_missing(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(tiny_image()).save(tmp_path / "lesion.png")
    bundle = tiny_bundle(tmp_path / "bundle")
    (tmp_path / "out").mkdir()
    code = ELSEWHERE.format(modules=MODULES, names=NAMES)
    command = [sys.executable, "-c", code, SOURCE, bundle, tmp_path / "lesion.png", tmp_path / "out"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "done"
    assert (tmp_path / "out" / "answer.csv").read_text().startswith("image,predicted")


PREDICTS_ALONE = """
import sys
for name in ("pandas", "scipy", "sklearn", "rich", "jinja2", "xxhash", "tomli_w", "shtab", "tensorflow"):
    sys.modules[name] = None
from dermafuse.cli import main
bundle, image, out = sys.argv[1:]
assert main(["predict", bundle, image, "--json"]) == 0
assert main(["explain", bundle, image, "--out", out]) == 0
"""


def test_prediction_and_explanation_need_none_of_the_large_packages(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(tiny_image()).save(tmp_path / "lesion.png")
    bundle = tiny_bundle(tmp_path / "bundle")
    command = [sys.executable, "-c", PREDICTS_ALONE, bundle, tmp_path / "lesion.png", tmp_path / "why.png"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "why.png").exists()


def test_the_version_stands_in_one_place_and_the_citation_agrees() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "dermafuse.__version__"}
    assert f"\nversion: {dermafuse.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {dermafuse.__version__} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
