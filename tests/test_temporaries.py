"""What a killed process leaves, and how commands end that something outside of them ends: with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dermafuse import files
from dermafuse.files import check_output_folder, folder_atomic, replace_folder, write_atomic
from dermafuse.temporaries import sweep, temporary_folder

MAIN = "import sys; from dermafuse.cli import main; raise SystemExit(main(sys.argv[1:]))"

WRITES_A_RUN = """
import sys, time
from pathlib import Path
from dermafuse.files import folder_atomic, write_atomic
from dermafuse.temporaries import temporary_file
out = Path(sys.argv[1])
with folder_atomic(out, overwrite=True) as folder, temporary_file(out.parent / "table.csv") as stream:
    (folder / "big.bin").write_bytes(bytes(1000))
    stream.write(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""


def started(code: str, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_process_was_writing_is_swept_at_the_next_start(tmp_path: Path) -> None:
    process = started(WRITES_A_RUN, str(tmp_path / "RUN"))
    process.kill()
    process.wait()
    assert len(names(tmp_path)) == 2
    check_output_folder(tmp_path / "RUN", overwrite=False)
    assert names(tmp_path) == []


def test_what_a_living_process_is_writing_is_never_swept(tmp_path: Path) -> None:
    process = started(WRITES_A_RUN, str(tmp_path / "RUN"))
    before = names(tmp_path)
    check_output_folder(tmp_path / "RUN", overwrite=False)
    with folder_atomic(tmp_path / "RUN") as folder:
        (folder / "mine").touch()
    assert names(tmp_path) == sorted([*before, "RUN"])
    process.kill()
    process.wait()


def test_only_names_of_our_own_making_are_swept(tmp_path: Path) -> None:
    theirs = [
        ".RUN.backup",
        ".RUN.abcdefgh",
        ".RUN.0123456789ab.tmp",
        ".git",
        "x.0123456789ab.dermafuse",
        ".0123.dermafuse",
    ]
    for name in theirs:
        (tmp_path / name).mkdir()
    (tmp_path / ".RUN.0123456789ab.dermafuse").symlink_to(tmp_path / ".git")
    sweep(tmp_path)
    assert names(tmp_path) == sorted([*theirs, ".RUN.0123456789ab.dermafuse"])


def test_a_half_written_file_is_swept_by_the_next_process_that_writes_beside_it(tmp_path: Path) -> None:
    process = started(WRITES_A_RUN, str(tmp_path / "RUN"))
    process.kill()
    process.wait()
    code = "import sys, pathlib, dermafuse.files as f; f.write_atomic(pathlib.Path(sys.argv[1]), 'x')"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "other.json")], check=True)
    assert names(tmp_path) == ["other.json"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_request_to_end_cleans_up_as_ctrl_c_does_in_one_line(tmp_path: Path, number: signal.Signals) -> None:
    code = f"""
import argparse, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits that it is ignored
from dermafuse import cli
def handler(arguments):
    sys.argv[1] = {str(tmp_path / "RUN")!r}
    exec({WRITES_A_RUN!r})
cli.parser = lambda: argparse.ArgumentParser()
argparse.ArgumentParser.parse_args = lambda self, argv: argparse.Namespace(handler=handler, debug=False)
raise SystemExit(cli.main(["x"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, "x"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert len(said.splitlines()) == 1
    assert "--resume" in said
    assert names(tmp_path) == []


REPLACES_FOR_EVER = """
import sys, itertools
from pathlib import Path
from dermafuse.files import folder_atomic
out = Path(sys.argv[1])
for number in itertools.count():
    with folder_atomic(out, overwrite=True) as folder:
        (folder / "config.toml").write_text(str(number))
        (folder / "metrics.json").write_text(str(number))
    if number == 3:
        print("ready", flush=True)
"""


@pytest.mark.parametrize("exchange", [True, False])
def test_a_run_killed_at_any_moment_of_its_replacement_is_whole_at_the_next_start(
    tmp_path: Path, exchange: bool
) -> None:
    out = tmp_path / "RUN"
    off = "" if exchange else "import dermafuse.files; dermafuse.files._exchange = lambda one, other: False\n"
    for attempt in range(6):
        process = started(off + REPLACES_FOR_EVER, str(out))
        time.sleep(0.003 * attempt)
        process.kill()
        process.wait()
        if exchange:
            assert out.is_dir()
        check_output_folder(out, overwrite=True)
        assert names(tmp_path) == ["RUN"]
        assert (out / "config.toml").read_text() == (out / "metrics.json").read_text() != ""


def test_without_an_exchange_a_folder_that_was_moved_aside_comes_back(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from dermafuse import files
files._exchange = lambda one, other: False
rename = Path.rename
def dies(self, target):
    rename(self, target)
    if str(target).endswith("-before"):
        os._exit(9)
Path.rename = dies
with files.folder_atomic(Path(sys.argv[1]), overwrite=True) as folder:
    (folder / "metrics.json").write_text("new")
"""
    out = tmp_path / "RUN"
    out.mkdir()
    (out / "metrics.json").write_text("old")
    assert subprocess.run([sys.executable, "-c", code, str(out)]).returncode == 9
    assert not out.exists()
    check_output_folder(out, overwrite=True)
    assert names(tmp_path) == ["RUN"]
    assert (out / "metrics.json").read_text() == "old"


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_or_a_link_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "a").touch()
    (tmp_path / "RUN").symlink_to(kept)
    for text in ("one", "two"):
        with temporary_folder(tmp_path / "RUN") as folder:
            (folder / "text").write_text(text)
            replace_folder(folder, tmp_path / "RUN")
        assert (tmp_path / "RUN" / "text").read_text() == text
    assert names(tmp_path) == ["RUN", "kept"]
    assert names(kept) == ["a"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.txt", "old")
    code = """
import resource, sys
from pathlib import Path
from dermafuse.errors import OutputError
from dermafuse.files import write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(Path(sys.argv[1]), "x" * 5000)
except OutputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.txt")], capture_output=True, text=True)
    assert "make room" in done.stdout
    assert done.stderr == ""
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def command(*arguments: str, shell: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    line = f'"$0" -c "$1" "${{@:2}}" {shell}'
    return subprocess.run(
        ["bash", "-c", line, sys.executable, MAIN, *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("shell", [">/dev/full", ">&-", "| true", ">&- 2>&-"])
@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("cache",)])
def test_an_output_that_takes_nothing_is_no_traceback(tmp_path: Path, shell: str, arguments: tuple[str, ...]) -> None:
    done = command(*arguments, shell=shell, DERMAFUSE_CACHE=str(tmp_path))
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1
    if shell == ">/dev/full" and arguments == ("cache",):
        assert done.returncode == 2
        assert "No space left" in done.stderr


def test_a_name_that_is_not_utf8_or_beyond_the_terminal_is_written_out(tmp_path: Path) -> None:
    odd = os.fsdecode(b"gone-\xff\xc3\xa9\x1b[31m.jpg")
    for environment in (
        {},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ):
        done = command("predict", str(tmp_path / odd), **environment)
        assert "Traceback" not in done.stderr
        assert "\x1b" not in done.stderr + done.stdout
        assert "\\udcff" in done.stderr
        assert "\\x1b[31m" in done.stderr
