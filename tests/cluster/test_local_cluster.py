"""A cluster of three nodes on this machine: the same bytes as one process, through every loss. Slow: -m slow."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from tiny_bundle import tiny_bundle, tiny_image
from tiny_run import FAST

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module", autouse=True)
def lean_ray(tmp_path_factory: pytest.TempPathFactory):
    """Spare each of Ray's processes seconds: jsonschema, where its extras are installed, builds a grammar at import."""
    folder = tmp_path_factory.mktemp("lean")
    for name in ("rfc3987_syntax", "isoduration"):
        (folder / f"{name}.py").write_text("raise ImportError('not needed')\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield


class Nodes:
    """Three nodes of one CPU each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        for left in (4, 3, 2, 1, 0):  # Ray gives its parts 15 seconds to start, which a busy machine may exceed
            self.cluster = Cluster()
            try:
                self.nodes = [self.cluster.add_node(**self._options()) for _ in range(3)]
            except Exception:
                for child in psutil.Process().children(recursive=True):  # a node that failed is not Ray's any more
                    child.kill()
                if not left:
                    raise
            else:
                return

    @staticmethod
    def _options() -> dict[str, Any]:
        def free() -> int:
            with socket.socket() as own:
                own.bind(("127.0.0.1", 0))
                return own.getsockname()[1]

        ports = ("metrics_agent_port", "dashboard_agent_listen_port", "runtime_env_agent_port", "metrics_export_port")
        return {
            **{name: free() for name in ports},
            "num_cpus": 1,
            "object_store_memory": 100 << 20,
            "include_dashboard": False,
            "no_monitor": True,
            "include_log_monitor": False,
        }


@pytest.fixture(scope="module")
def nodes(lean_ray):
    pytest.importorskip("ray")
    found = Nodes()
    yield found
    found.cluster.shutdown()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, 20,000 rows of six images with a bad one now and then, and what one process makes of them."""
    folder = tmp_path_factory.mktemp("work")
    tiny_bundle(folder / "model")
    (folder / "images").mkdir()
    for number in range(6):
        Image.fromarray(tiny_image(number)).save(folder / "images" / f"i{number}.png")
    rows = [[f"i{n % 6}" if n % 1999 else f"i{n}x.png", 20 + n % 60, "male", "back"] for n in range(20_000)]
    with (folder / "t.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["image_id", "age", "sex", "localization"], *rows])
    done = run(predict(folder, "whole.csv"))
    assert done.returncode == 0, done.stderr
    return folder


def predict(work: Path, out: str, *more: str) -> list[str]:
    words = ["predict", str(work / "model"), "--csv", str(work / "t.csv"), "--image-root", str(work / "images")]
    return [sys.executable, "-m", "dermafuse", *words, "--precision", "f32", "--out", str(work / out), *more]


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, **options)


def same(work: Path, out: str) -> None:
    for ending in ("", ".skipped.csv"):
        assert (work / f"{out}{ending}").read_bytes() == (work / f"whole.csv{ending}").read_bytes()


def shards(work: Path, out: str) -> int:
    return len(list((work / f"{out}.shards").glob("*.shard")))


def begun(command: list[str], work: Path, out: str, count: int) -> subprocess.Popen[str]:
    """Start a command and wait until it has finished ``count`` more shards."""
    before = shards(work, out)
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while shards(work, out) < before + count:
        assert child.poll() is None, child.stderr and child.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return child


def test_a_table_is_byte_by_byte_that_of_one_process_and_says_who_computed_what(nodes, work):
    done = run(predict(work, "o1.csv", "--cluster", nodes.cluster.address))
    assert done.returncode == 0, done.stderr
    assert "2 worker(s) with 1 CPU(s)" in done.stderr
    same(work, "o1.csv")
    listed = json.loads((work / "o1.csv.shards.json").read_text())["shards"]
    assert len({entry["pid"] for entry in listed}) == 2


def test_a_killed_worker_costs_no_more_than_the_shards_in_flight(nodes, work):
    child = begun(predict(work, "o2.csv", "--cluster", nodes.cluster.address), work, "o2.csv", 40)
    workers = [
        each for each in psutil.process_iter(["cmdline"]) if "ray::Worker" in " ".join(each.info["cmdline"] or [])
    ]
    assert workers
    workers[0].kill()
    _, err = child.communicate(timeout=600)
    assert child.returncode == 0, err
    same(work, "o2.csv")


def test_a_killed_driver_goes_on_with_the_same_command_at_three_moments(nodes, work):
    command = predict(work, "o3.csv", "--cluster", nodes.cluster.address)
    for count in (10, 60, 60):
        child = begun(command, work, "o3.csv", count)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    there = shards(work, "o3.csv")
    done = run([*command, "--json"])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed"] >= there * 79 - 79
    same(work, "o3.csv")


def test_extraction_and_folds_are_those_of_one_process_and_of_parts(nodes, tmp_path):
    from dermafuse.data.synthetic.dataset import write_synthetic

    data = write_synthetic(tmp_path / "data", lesions=70, seed=5)
    asked = ["--data", str(data), *FAST[:-4], "--epochs", "1", "--set", "image_size=64", "--set", "views=2"]
    asked += ["--set", "report=false", "--folds", "2"]
    for name, more in (("one", []), ("cluster", ["--cluster", nodes.cluster.address])):
        env = {**os.environ, "DERMAFUSE_CACHE": str(tmp_path / f"cache-{name}")}
        base = [sys.executable, "-m", "dermafuse"]
        for command in ([*base, "extract", *asked, *more], [*base, "train", *asked, *more, "--out", tmp_path / name]):
            done = run([str(word) for word in command], env=env)
            assert done.returncode == 0, done.stderr
    for file in (
        "predictions.csv",
        "fold-1/weights.safetensors",
        "fold-2/weights.safetensors",
        "fold-1/model/model.bin",
    ):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "cluster" / file).read_bytes(), file
    joint = json.loads((tmp_path / "cluster" / "metrics.json").read_text())
    assert joint["network"]["images_computed"] == 0
    assert len(joint["computed_by"]) == 2


def test_a_node_lost_half_way_costs_the_shards_in_flight_and_nothing_else(nodes, work):
    child = begun(predict(work, "o4.csv", "--cluster", nodes.cluster.address), work, "o4.csv", 125)
    nodes.cluster.remove_node(nodes.nodes[2], allow_graceful=False)
    _, err = child.communicate(timeout=600)
    assert child.returncode == 0, err
    same(work, "o4.csv")
    lost = [line for line in err.splitlines() if "of the cluster was lost" in line]
    assert sum(int(line.split(";")[1].split()[0]) for line in lost) <= 4
