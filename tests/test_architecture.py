"""The law of the house: who may import whom, and what loads nothing heavy."""

import ast
import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "dermafuse"

#: Each room with the rooms it may import, as in docs/architecture.md.
ALLOWED = {
    "data": {"data"},
    "models": {"models", "data", "network"},
    "network": {"network"},
    "runtime": {"runtime", "data", "network"},
    "checks": {"checks", "runtime", "data"},
    "evaluation": {"evaluation", "checks", "runtime", "data"},
    "report": {"report", "evaluation", "checks", "runtime", "data"},
    "serving": {"serving", "runtime", "data", "evaluation"},
    "exporters": {"exporters", "training", "evaluation", "runtime", "models", "data"},
    "training": {"training", "report", "evaluation", "checks", "runtime", "models", "data"},
    "cluster": {"cluster", "runtime"},
    "api": {"api", "exporters", "training", "report", "evaluation", "checks", "runtime", "models", "data"},
}
LIGHT_ROOMS = ("network", "data", "runtime", "checks", "evaluation", "report", "serving", "api")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_imports_only_from_floors_below(room: str) -> None:
    for path in (SOURCE / room).glob("**/*.py"):
        rooms = {name.split(".")[1] for name in imported(path) if name.startswith("dermafuse.") and name.count(".")}
        used = {name for name in rooms if (SOURCE / name).is_dir()}
        assert used <= ALLOWED[room], f"{path.name} imports {sorted(used - ALLOWED[room])}"


@pytest.mark.parametrize("room", LIGHT_ROOMS)
def test_rooms_of_the_runtime_never_name_tensorflow_or_keras(room: str) -> None:
    for path in (SOURCE / room).glob("**/*.py"):
        assert not {name.split(".")[0] for name in imported(path)} & {"tensorflow", "keras"}, path


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_every_module_of_the_runtime_rooms_loads_no_tensorflow() -> None:
    # The room of the server needs its extra; with it, it needs no more than the others.
    rooms = [room for room in LIGHT_ROOMS if room != "serving" or importlib.util.find_spec("fastapi")]
    modules = [
        f"dermafuse.{path.relative_to(SOURCE).with_suffix('').as_posix().replace('/', '.')}"
        for room in rooms
        for path in (SOURCE / room).glob("**/*.py")
        if path.name != "__init__.py"
    ]
    assert len(modules) > 10
    code = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
print([name for name in ("tensorflow", "keras") if name in sys.modules])
"""
    assert run(code) == "[]"


def test_import_and_help_load_nothing_heavy() -> None:
    code = """
import sys
import tomllib
import dermafuse, dermafuse.cli
try:
    dermafuse.cli.main(["--help"])
except SystemExit:
    pass
heavy = ("tensorflow", "keras", "openvino", "pandas", "numpy", "sklearn", "pydantic", "rich", "httpx")
print([name for name in heavy if name in sys.modules])
"""
    assert run(code).splitlines()[-1] == "[]"


def test_there_are_no_import_circles() -> None:
    paths = {
        "dermafuse." + path.relative_to(SOURCE).with_suffix("").as_posix().replace("/", "."): path
        for path in SOURCE.glob("**/*.py")
        if path.name != "__init__.py"
    }

    def imported(path: Path) -> set[str]:
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):  # inside functions too
            if isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        return names & paths.keys()

    graph = {name: imported(path) for name, path in paths.items()}
    finished: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in finished:
            for target in graph[name]:
                visit(target, (*trail, name))
            finished.add(name)

    for name in graph:
        visit(name, ())


def test_no_file_is_longer_than_a_sitting() -> None:
    for path in SOURCE.glob("**/*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def test_loading_openvino_reports_to_nobody_and_forks_nothing() -> None:
    assert run(
        "import sys, time\n"
        "seen = []\n"
        "watched = ('os.fork', 'socket.connect', 'socket.getaddrinfo', 'subprocess.Popen')\n"
        "sys.addaudithook(lambda event, arguments: seen.append(event) if event in watched else None)\n"
        "import dermafuse.runtime.engine\n"
        "time.sleep(0.5)\n"
        "print(seen, sys.modules['openvino_telemetry'])"
    ).endswith("[] None")


def test_every_package_and_the_released_model_are_packaged() -> None:
    listed = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {path.parent.relative_to(SOURCE.parent).as_posix() for path in SOURCE.glob("**/__init__.py")}
    assert set(listed["packages"]) == {name.replace("/", ".") for name in folders} | {"dermafuse.pretrained"}


def test_no_public_name_is_hidden_by_a_room_of_the_same_name() -> None:
    import dermafuse

    assert not {name for name in dermafuse.__all__ if (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").exists()}
