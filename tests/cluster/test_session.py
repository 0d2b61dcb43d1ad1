"""What is refused before Ray is started; nothing here starts it."""

import os
import subprocess
import sys
from typing import ClassVar

import pytest

from dermafuse.cli import main
from dermafuse.errors import ConfigError, DermafuseError
from dermafuse.progress import SILENT


def test_without_ray_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    from dermafuse.cluster.session import connect

    with pytest.raises(DermafuseError, match=r"dermafuse\[cluster\]"), connect("local", jobs=None, report=SILENT):
        pass
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_parts_and_a_cluster_exclude_each_other_and_jobs_are_one_or_more(tmp_path, capsys):
    table = tmp_path / "t.csv"
    table.write_text("image\nx.jpg\n")
    command = ["predict", "--csv", str(table), "--out", str(tmp_path / "o.csv"), "--jobs", "2", "--shard", "1/2"]
    assert main(command) == 2
    assert "leave out --cluster and --jobs" in capsys.readouterr().err
    from dermafuse.cluster.session import connect

    with pytest.raises(ConfigError, match="--jobs 0"), connect("local", jobs=0, report=SILENT):
        pass


def test_a_single_training_is_not_spread(tmp_path, capsys):
    assert main(["train", "--data", str(tmp_path), "--out", str(tmp_path / "R"), "--shard", "1/2"]) == 2
    assert "--folds" in capsys.readouterr().err


def test_nothing_but_the_cluster_room_loads_ray():
    code = "import sys, dermafuse.cli, dermafuse.training.start, dermafuse.runtime.batch.predict_table\n"
    done = subprocess.run([sys.executable, "-c", code + "print('ray' in sys.modules)"], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_a_worker_loads_its_job_in_its_first_task_and_names_the_disk_that_may_come_back():
    import errno
    import pickle

    from dermafuse.cluster.worker import ShareGoneError, Worker

    worker = Worker(pickle.dumps(_Job()), 3, {"DERMAFUSE_TEST_VARIABLE": "x"})
    assert _Job.started == []
    assert worker.do(4) == (3, 4)
    assert worker.do(5) == (3, 5)
    assert _Job.started == [3]
    assert os.environ.pop("DERMAFUSE_TEST_VARIABLE") == "x"
    with pytest.raises(ShareGoneError):
        worker.do(errno.ESTALE * -1)
    with pytest.raises(OSError, match="full") as full:
        worker.do(errno.ENOSPC * -1)
    assert not isinstance(full.value, ShareGoneError)


class _Job:
    started: ClassVar[list] = []

    def start(self, threads):
        self.started.append(threads)

        def work(item):
            if item < 0:
                raise OSError(-item, "full")
            return threads, item

        return work


def test_a_training_in_one_piece_is_refused_before_ray_starts(tmp_path, capsys):
    from dermafuse.cli import main

    words = ["train", "--data", str(tmp_path), "--out", str(tmp_path / "RUN"), "--cluster", "local"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "add --folds K, or --recipe best" in said
    assert "worker(s)" not in said
