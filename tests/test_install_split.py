"""`pip install .` in a clean environment: prediction, explanation and export of IR work without TensorFlow or Keras.

Downloads the runtime's dependencies, so it is marked slow: ``pytest -m slow tests/test_install_split.py -s``.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tiny_bundle import tiny_bundle, tiny_image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[1]

#: Nothing of the training install may slip into the runtime install; today it is 602 MB, see docs/reference/systems.md.
LARGEST_MEGABYTES = 900

REFUSAL = """
import sys
from pathlib import Path
from dermafuse.errors import ConfigError
from dermafuse.exporters.export import export
bundle, data, out = (Path(name) for name in sys.argv[1:])
print(export(bundle, "openvino", out / "ir", data=data)["verified"]["largest_difference"])
try:
    export(bundle, "onnx", out / "onnx", data=data)
except ConfigError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new virtual environment that holds `pip install .` and nothing else."""
    folder = tmp_path_factory.mktemp("install") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    executable = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = [executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", ROOT]
    done = subprocess.run(install, capture_output=True, text=True, env=clean())
    assert done.returncode == 0, done.stderr
    return executable


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def answer(python: Path, *words: object, cwd: Path) -> str:
    done = subprocess.run([python, *map(str, words)], capture_output=True, text=True, env=clean(), cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tensorflow_and_keras_are_not_installed(python: Path, tmp_path: Path) -> None:
    code = "import importlib.util as u; print([n for n in ('tensorflow', 'keras', 'torch') if u.find_spec(n)])"
    assert answer(python, "-c", code, cwd=tmp_path).strip() == "[]"
    assert "venv" in answer(python, "-c", "import dermafuse; print(dermafuse.__file__)", cwd=tmp_path)


def test_predict_and_explain_work(python: Path, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    image = tmp_path / "lesion.png"
    Image.fromarray(tiny_image()).save(image)
    command = ("-m", "dermafuse.cli")
    assert "lesion.png" in answer(python, *command, "predict", bundle, image, "--age", 50, cwd=tmp_path)
    answer(python, *command, "explain", bundle, image, "--out", tmp_path / "overlay.png", cwd=tmp_path)
    assert Image.open(tmp_path / "overlay.png").size[0] > 100


def test_the_released_model_answers_from_the_wheel_and_demo_says_what_to_install(python: Path, tmp_path: Path) -> None:
    rows = answer(python, "-m", "dermafuse", "predict", ROOT / "examples" / "lesion.jpg", "--age", 55, cwd=tmp_path)
    assert rows.startswith("image,predicted")
    demo = [python, "-m", "dermafuse", "demo", "--out", "run"]
    done = subprocess.run(demo, capture_output=True, text=True, env=clean(), cwd=tmp_path)
    assert done.returncode == 2
    assert "dermafuse[train]" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_openvino_export_works_and_onnx_says_what_to_install(python: Path, tmp_path: Path, synthetic: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    difference, refusal = answer(python, "-c", REFUSAL, bundle, synthetic, tmp_path, cwd=tmp_path).splitlines()
    assert float(difference) < 1e-5
    assert "dermafuse[export]" in refusal


def test_its_size_is_stated(python: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    purelib = answer(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    sizes = {
        entry.name: sum(path.stat().st_size for path in entry.rglob("*") if path.is_file()) / 1e6
        for entry in Path(purelib).iterdir()
        if entry.is_dir()
    }
    largest = ", ".join(f"{name} {sizes[name]:.0f}" for name in sorted(sizes, key=sizes.__getitem__)[:-7:-1])
    with capsys.disabled():
        print(f"\nRuntime install: {sum(sizes.values()):.0f} MB in site-packages ({largest}).")
    assert sum(sizes.values()) < LARGEST_MEGABYTES
