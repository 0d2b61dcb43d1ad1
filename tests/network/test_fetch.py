"""Fetching data sets: against a server on this machine that does all that real ones do. Nothing goes outside."""

from __future__ import annotations

import ast
import contextlib
import csv
import email.utils
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("httpx", reason='fetch needs httpx: pip install -e ".[fetch]"')

from dermafuse.cli import main
from dermafuse.errors import ConfigError, DataError, DermafuseError, NetworkError, OutputError
from dermafuse.network import catalogue, http
from dermafuse.network import fetch as room
from dermafuse.network.catalogue import DataSet, read_catalogue
from dermafuse.network.fetch import STATE, fetch
from dermafuse.network.http import Patience
from dermafuse.network.unpack import unpack
from dermafuse.progress import SILENT
from local_source import LocalSource, zipped

SOURCE = Path(__file__).parents[2] / "src" / "dermafuse"
PATIENCE = Patience(attempts=4, seconds=5, unit=0.01)
TABLE, PART_1, PART_2 = "HAM10000_metadata.csv", "HAM10000_images_part_1.zip", "HAM10000_images_part_2.zip"


@pytest.fixture(autouse=True)
def nothing_goes_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def only_here(host: Any, *arguments: Any, **options: Any) -> Any:
        assert host in ("127.0.0.1", b"127.0.0.1", "localhost", None, ""), f"a test asks for {host}"
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", only_here)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def ham(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A small generated HAM10000 as Dataverse hands it out."""
    from dermafuse.data.synthetic.dataset import write_synthetic

    folder = write_synthetic(tmp_path_factory.mktemp("ham") / "data", lesions=28, size=(96, 72))
    rows = list(csv.DictReader(io.StringIO((folder / TABLE).read_text())))
    return SimpleNamespace(
        folder=folder,
        files={
            TABLE: (folder / TABLE).read_bytes(),
            PART_1: zipped(folder / "HAM10000_images_part_1"),
            PART_2: zipped(folder / "HAM10000_images_part_2"),
        },
        images=len(rows),
        lesions=len({row["lesion_id"] for row in rows}),
    )


@pytest.fixture
def server(ham: SimpleNamespace) -> Iterator[LocalSource]:
    with LocalSource(ham.files).open() as source:
        yield source


@pytest.fixture
def tiny(server: LocalSource, ham: SimpleNamespace, tmp_path: Path) -> DataSet:
    return server.data_set(tmp_path, images=ham.images, lesions=ham.lesions)


def get(data_set: DataSet, folder: Path, **options: Any) -> dict[str, int]:
    return fetch(data_set, folder, options.pop("report", SILENT), accepted=True, patience=PATIENCE, **options)


def assert_same(folder: Path, ham: SimpleNamespace) -> None:
    for name in (TABLE, "HAM10000_images_part_1", "HAM10000_images_part_2"):
        ours, theirs = folder / name, ham.folder / name
        if theirs.is_file():
            assert ours.read_bytes() == theirs.read_bytes()
        else:
            assert {p.name: p.read_bytes() for p in ours.iterdir()} == {
                p.name: p.read_bytes() for p in theirs.iterdir()
            }


def sizes(ham: SimpleNamespace) -> list[int]:
    return [len(content) for content in ham.files.values()]


class Told:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.done = 0
        self.total = 0

    def say(self, text: str) -> None:
        self.lines.append(text)

    warn = say

    def bar(self, description: str, total: int, unit: str) -> Any:
        self.total = total

        @contextlib.contextmanager
        def counting() -> Iterator[Any]:
            def advance(more: int) -> None:
                self.done += more

            yield advance

        return counting()


def test_what_is_fetched_is_the_same_bytes_and_check_reads_it(
    tiny: DataSet, tmp_path: Path, ham: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    out, told = tmp_path / "data", Told()
    assert get(tiny, out, report=told) == {"images": ham.images, "rows": ham.images, "lesions": ham.lesions}
    assert_same(out, ham)
    assert told.done == told.total == sum(sizes(ham)) // 1000
    assert "Mind this." in told.lines
    assert not list(out.rglob("*.part*"))
    licence = (out / "LICENCE-tiny.txt").read_text()
    assert "CC BY-NC 4.0" in licence
    assert all(name in licence for name in ham.files)
    assert main(["check", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == ham.images


def test_a_second_fetch_asks_nothing_and_counts_again(
    tiny: DataSet, server: LocalSource, tmp_path: Path, ham: SimpleNamespace
) -> None:
    get(tiny, tmp_path / "data")
    asked = len(server.asked)
    get(tiny, tmp_path / "data")
    assert len(server.asked) == asked
    next((tmp_path / "data" / "HAM10000_images_part_1").iterdir()).unlink()
    with pytest.raises(DataError, match=f"{ham.images - 1} images instead of {ham.images}"):
        get(tiny, tmp_path / "data")


def test_only_get_with_our_own_name_is_sent(tiny: DataSet, server: LocalSource, tmp_path: Path) -> None:
    get(tiny, tmp_path / "data")
    assert {method for method, *_ in server.asked} == {"GET"}
    assert {headers["User-Agent"] for *_, headers in server.asked} == {http.AGENT}


@pytest.mark.parametrize("agent", ["python-httpx/0.28.1", "curl/8.0"])
def test_a_refusal_that_will_not_pass_is_not_asked_again(
    agent: str, tiny: DataSet, server: LocalSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "AGENT", agent)
    with pytest.raises(NetworkError, match=r"answers 403 \(Forbidden\)"):
        get(tiny, tmp_path / "data")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "fault",
    ["429", "500", "503", "expired", "page", "start", "longer", "shorter", "unsaid", "cut0", "cut5000", "altered"],
)
def test_one_bad_answer_is_survived(
    fault: str, tiny: DataSet, server: LocalSource, tmp_path: Path, ham: SimpleNamespace
) -> None:
    server.faults[2] = ["cut3000", fault]
    get(tiny, tmp_path / "data")
    assert_same(tmp_path / "data", ham)


@pytest.mark.parametrize("kind", ["dataverse", "plain"])
@pytest.mark.parametrize("fault", ["shifted", "whole", "start", "page"])
def test_a_wrong_answer_to_a_range_is_never_joined(
    fault: str, kind: str, server: LocalSource, tmp_path: Path, ham: SimpleNamespace
) -> None:
    data_set = server.data_set(tmp_path, kind=kind, images=ham.images, lesions=ham.lesions)
    server.faults[2] = [*([""] if kind == "plain" else []), "cut9000", fault]  # plain: the size is asked for first
    get(data_set, tmp_path / "data")
    assert_same(tmp_path / "data", ham)


def test_each_attempt_begins_at_the_lasting_address_and_goes_on_where_it_ended(
    tiny: DataSet, server: LocalSource, tmp_path: Path, ham: SimpleNamespace
) -> None:
    server.faults[2] = ["cut9000", "expired", "cut1000", "500"]
    get(tiny, tmp_path / "data")
    assert_same(tmp_path / "data", ham)
    assert sum(path == "/file/2" for _, path, _ in server.asked) == 5
    assert server.sent[2] == len(ham.files[PART_1])  # no byte twice
    ranges = [headers.get("Range") for _, path, headers in server.asked if path.startswith("/signed/2")]
    assert ranges == [None, "bytes=9000-", "bytes=9000-", "bytes=10000-", "bytes=10000-"]
    assert all(
        headers["If-Range"] == '"1-2"' for _, path, headers in server.asked if "Range" in headers and "/2" in path
    )


def test_a_file_that_changed_meanwhile_is_fetched_whole(
    tiny: DataSet, server: LocalSource, tmp_path: Path, ham: SimpleNamespace
) -> None:
    server.faults[2] = ["cut9000"]
    server.after = lambda sent: setattr(server, "version", "2") if server.sent[2] >= 9000 else None
    get(tiny, tmp_path / "data")
    assert_same(tmp_path / "data", ham)
    assert server.sent[2] == len(ham.files[PART_1]) + 9000


@pytest.mark.parametrize("etag", [True, False])
def test_a_source_without_checksums_is_held_to_its_sizes(
    etag: bool, server: LocalSource, tmp_path: Path, ham: SimpleNamespace
) -> None:
    data_set = server.data_set(tmp_path, kind="plain", images=ham.images, lesions=ham.lesions)
    server.etag = etag
    server.faults[2] = ["", "cut9000"]
    get(data_set, tmp_path / "data")
    assert_same(tmp_path / "data", ham)
    twice = 1 if etag else 9001  # the first byte told the size; what cannot be told apart is not joined
    assert server.sent[2] == len(ham.files[PART_1]) + twice
    assert "no checksum from the source" in (tmp_path / "data" / "LICENCE-tiny.txt").read_text()


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        (["500"] * 9, "answers 500 .tried 4 times.; what was fetched is kept"),
        (["wait3600"], "the server asks to wait 3,600 s"),
        (["404"], "answers 404"),
        (["page"] * 9, "announces 34 bytes instead of"),
        (["altered"] * 9, "is not what its source publishes: md5:.* instead of md5:.*; it was deleted"),
        (["longer"] * 9 + ["cut1"] * 9, "announces"),
    ],
)
def test_what_stays_wrong_is_refused_in_one_sentence(
    faults: list[str], words: str, tiny: DataSet, server: LocalSource, tmp_path: Path
) -> None:
    server.faults[3] = faults
    with pytest.raises(NetworkError, match=words) as caught:
        get(tiny, tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data" / "HAM10000_images_part_2").exists()


def test_retry_after_is_heeded_as_seconds_and_as_a_date(
    tiny: DataSet, server: LocalSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(http.time, "sleep", waits.append)
    server.faults[2] = ["wait7", f"wait{email.utils.formatdate(time.time() + 60, usegmt=True)}", "wait2"]
    get(tiny, tmp_path / "data")
    assert waits[0] == 7
    assert 50 < waits[1] <= 60
    assert waits[2] == 2


def test_a_new_version_of_the_record_with_new_ids_is_found_by_name(
    server: LocalSource, tmp_path: Path, ham: SimpleNamespace
) -> None:
    server.data_set(tmp_path, images=ham.images, lesions=ham.lesions)
    path = tmp_path / "addresses.toml"
    path.write_text(path.read_text().replace("id = 1,", "id = 4338392,"))
    get(read_catalogue(path)["tiny"], tmp_path / "data")
    assert_same(tmp_path / "data", ham)


def test_a_record_that_says_another_checksum_than_is_known_is_refused(
    server: LocalSource, tmp_path: Path, ham: SimpleNamespace
) -> None:
    server.data_set(tmp_path, images=ham.images, lesions=ham.lesions)
    path = tmp_path / "addresses.toml"
    path.write_text(path.read_text().replace("id = 2,", 'id = 2, digest = "md5:00",'))
    with pytest.raises(NetworkError, match="it was altered"):
        get(read_catalogue(path)["tiny"], tmp_path / "data")


def test_the_public_api_of_mendeley_is_read_and_held_to_its_own_host(
    server: LocalSource, tmp_path: Path, ham: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listing(at: str) -> dict[str, Any]:
        return {
            "files": [
                {
                    "filename": name,
                    "content_details": {
                        "size": len(content),
                        "sha256_hash": hashlib.sha256(content).hexdigest(),
                        "download_url": f"{at}/file/{number}",
                    },
                }
                for number, (name, content) in server.files.items()
            ]
        }

    server.data_set(
        tmp_path, kind="mendeley", images=ham.images, lesions=ham.lesions, more=f'downloads = "{server.at}/"'
    )
    path = tmp_path / "addresses.toml"
    path.write_text(re.sub(r'address = "[^"]*"', 'address = ""', path.read_text()))
    data_set = read_catalogue(path)["tiny"]
    monkeypatch.setattr(server, "listing", lambda: listing("https://elsewhere.example"))
    with pytest.raises(NetworkError, match=r"elsewhere\.example.* is not under"):
        get(data_set, tmp_path / "data")
    monkeypatch.setattr(server, "listing", lambda: listing(server.at))
    get(data_set, tmp_path / "data")
    assert_same(tmp_path / "data", ham)
    monkeypatch.setattr(server, "listing", lambda: {"message": "moved"})
    with pytest.raises(NetworkError, match="in a form that dermafuse does not know"):
        get(data_set, tmp_path / "other")


def test_the_licence_is_shown_and_nothing_fetched_before_it_is_accepted(
    tiny: DataSet, server: LocalSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(catalogue, "find", lambda name: tiny)
    assert main(["fetch", "tiny", "--to", str(tmp_path / "data")]) == 2
    said = capsys.readouterr().err
    assert "CC BY-NC 4.0 (somewhere)" in said
    assert "--accept-licence" in said
    assert not server.asked
    assert not (tmp_path / "data").exists()
    assert main(["fetch", "tiny", "--to", str(tmp_path / "data"), "--accept-licence"]) == 0
    said = capsys.readouterr()
    assert "images" in said.out
    assert f"Next: dermafuse check {tmp_path / 'data'}" in said.out
    assert "Mind this." in said.err


def test_a_misspelt_name_or_source_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "ham1000", "--to", str(tmp_path)]) == 2
    assert "Did you mean 'ham10000'?" in capsys.readouterr().err
    assert main(["fetch", "isic2019", "--to", str(tmp_path), "--source", "kaggle"]) == 2
    assert "cannot be had from 'kaggle'; take --source isic" in capsys.readouterr().err


def test_a_disk_that_is_too_small_is_said_before_the_first_byte(
    tiny: DataSet, server: LocalSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: SimpleNamespace(free=40_000_000))
    with pytest.raises(OutputError, match=r"0\.0 GB free and tiny needs 0\.1 GB; make room"):
        get(tiny, tmp_path / "data")
    assert not server.sent


def test_two_at_once_are_refused(tiny: DataSet, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "data" / STATE).mkdir(parents=True)
    with (tmp_path / "data" / STATE / "lock").open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="Another dermafuse fetches into"):
            get(tiny, tmp_path / "data")
    get(tiny, tmp_path / "data")


def test_what_lies_there_already_is_not_touched(
    tiny: DataSet, server: LocalSource, tmp_path: Path, ham: SimpleNamespace
) -> None:
    mine = tmp_path / "data" / "HAM10000_images_part_1"
    mine.mkdir(parents=True)
    (mine / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already and is not what this command fetched"):
        get(tiny, tmp_path / "data")
    assert [path.name for path in mine.iterdir()] == ["mine.jpg"]
    assert not server.sent
    shutil.rmtree(mine)
    shutil.copy(ham.folder / TABLE, tmp_path / "data" / TABLE)  # the very file: taken as fetched
    get(tiny, tmp_path / "data")
    assert server.sent[1] == 0


def test_fewer_images_or_lesions_than_published_are_an_error(
    server: LocalSource, tmp_path: Path, ham: SimpleNamespace
) -> None:
    data_set = server.data_set(tmp_path, images=ham.images + 1, lesions=7470)
    with pytest.raises(DataError, match=f"{ham.lesions} lesions instead of 7,470"):
        get(data_set, tmp_path / "data")


def test_who_made_each_image_is_written_where_the_source_says_it(
    server: LocalSource, tmp_path: Path, ham: SimpleNamespace
) -> None:
    keys = 'attribution = { table = "HAM10000_metadata.csv", image = "image_id", by = "dx_type", licence = "%s" }'
    for licence, written in (("sex", True), ("copyright_license", False)):
        told, out = Told(), tmp_path / licence
        data_set = server.data_set(tmp_path, images=ham.images, lesions=ham.lesions, more=keys % licence)
        get(data_set, out, report=told)
        assert (out / "ATTRIBUTION-tiny.txt").exists() == written
        assert any("no column copyright_license" in line for line in told.lines) != written
    lines = (tmp_path / "sex" / "ATTRIBUTION-tiny.txt").read_text().splitlines()
    assert lines[0] == "image\tby\tlicence"
    assert len(lines) == ham.images + 1


CHILD = """
import os, sys
from pathlib import Path
from dermafuse.network.catalogue import read_catalogue
from dermafuse.network.fetch import fetch
from dermafuse.network.http import Patience
from dermafuse.progress import SILENT
left = int(sys.argv[3])
def watch(event, arguments):
    global left
    if event == "os.rename" and left >= 0:
        if left == 0:
            os.kill(os.getpid(), 9)
        left -= 1
sys.addaudithook(watch)
data_set = read_catalogue(Path(sys.argv[1]))["tiny"]
fetch(data_set, Path(sys.argv[2]), SILENT, accepted=True, patience=Patience(unit=0.01))
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_killed_at_ten_places_and_continued_it_is_the_same_bytes_and_little_is_fetched_twice(
    server: LocalSource, tiny: DataSet, tmp_path: Path, ham: SimpleNamespace
) -> None:
    total = sum(sizes(ham))
    server.pause = 0.03

    def on_disk() -> int:
        names = {name: name.removesuffix(".zip") for name in ham.files}
        whole = [len(ham.files[name]) for name, place in names.items() if (tmp_path / "data" / place).exists()]
        parts = (tmp_path / "data" / STATE / "tiny").glob("*.part")
        return sum(whole) + sum(path.stat().st_size for path in parts)

    def run(*, until: float = 2.0, renames: int = -1) -> int:
        """Run until this share has come, or until the next rename after so many."""
        command = [sys.executable, "-c", CHILD, str(tmp_path / "addresses.toml"), str(tmp_path / "data"), str(renames)]
        with subprocess.Popen(command) as child:
            while child.poll() is None:
                with contextlib.suppress(FileNotFoundError):  # moved between two looks
                    if on_disk() >= until * total:
                        child.kill()
                time.sleep(0.002)
            return child.returncode

    killed = [run(until=share) for share in (0.1, 0.25, 0.4, 0.55, 0.7)]
    killed += [run(renames=number) for number in (0, 1, 2, 1, 0)]
    assert killed == [-signal.SIGKILL] * 10
    assert run() == 0
    assert_same(tmp_path / "data", ham)
    assert sum(server.sent.values()) - total <= max(sizes(ham))
    assert [path.name for path in (tmp_path / "data" / STATE).iterdir() if path.is_dir()] == []


def archive(path: Path, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in entries.items():
            opened.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["../x.jpg", "/x.jpg", "a/../../x.jpg", "C:/x.jpg", "..\\x.jpg"])
def test_an_archive_that_leads_elsewhere_is_not_unpacked(name: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "x.zip", **{"good.jpg": b"1", name: b"2"})
    with pytest.raises(NetworkError, match="leads elsewhere"):
        unpack(path, tmp_path / "in" / "out", 1000)
    assert sorted(p.name for p in tmp_path.rglob("*.jpg")) == []


def test_links_devices_encrypted_and_doubled_files_are_refused(tmp_path: Path) -> None:
    for kind, word in ((stat.S_IFLNK, "a link or a device"), (stat.S_IFCHR, "a link or a device")):
        info = zipfile.ZipInfo("x.jpg")
        info.external_attr = (kind | 0o777) << 16
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as opened:
            opened.writestr(info, "/etc/passwd")
        with pytest.raises(NetworkError, match=word):
            unpack(tmp_path / "x.zip", tmp_path / "out", 1000)
    path = archive(tmp_path / "x.zip", **{"x.jpg": b"1", "X.jpg": b"2"})
    with pytest.raises(NetworkError, match="a file twice"):
        unpack(path, tmp_path / "out", 1000)
    path = archive(tmp_path / "x.zip", **{"x.jpg": b"1"})
    content = bytearray(path.read_bytes())
    for place in (6, content.index(b"PK\x01\x02") + 8):
        content[place] |= 1
    path.write_bytes(content)
    with pytest.raises(NetworkError, match="encrypted"):
        unpack(path, tmp_path / "out", 1000)


def test_a_bomb_is_not_unpacked_whether_or_not_it_says_so(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.zip", **{"x.jpg": bytes(2_000_000)})
    with pytest.raises(NetworkError, match="would unpack to 2,000,000 bytes, more than 1,000,000"):
        unpack(path, tmp_path / "out", 1_000_000)
    content = bytearray(path.read_bytes())
    content[(at := content.index(b"PK\x01\x02") + 24) : at + 4] = (10).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(NetworkError):
        unpack(path, tmp_path / "out", 1_000_000)
    assert not (tmp_path / "out").exists()


def test_a_damaged_archive_is_one_sentence(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.zip", **{"x.jpg": os.urandom(5000)})
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    for broken in (bytes(content), b"no archive", b""):
        path.write_bytes(broken)
        with pytest.raises(NetworkError, match="damaged"):
            unpack(path, tmp_path / "out", 10_000)
        assert not (tmp_path / "out").exists()


def kaggle_copy(folder: Path, ham: SimpleNamespace) -> Path:
    shutil.copytree(ham.folder, folder)
    for part in ("HAM10000_images_part_1", "HAM10000_images_part_2"):
        shutil.copytree(folder / part, folder / "again" / part.lower())
    return folder


def test_kaggle_is_asked_through_its_own_client_and_each_image_is_taken_once(
    tmp_path: Path, ham: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:

    known = read_catalogue()["ham10000"]
    source = replace(
        known.source("kaggle"),
        counts={**known.source("kaggle").counts, "images": ham.images, "rows": ham.images, "lesions": ham.lesions},
    )
    data_set = replace(known, sources=(source,))
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(ConfigError, match="pip install kagglehub"):
        get(data_set, tmp_path / "data", source="kaggle")
    asked: list[str] = []

    def give(handle: str) -> str:
        asked.append(handle)
        return str(tmp_path / "cache")

    kaggle_copy(tmp_path / "cache", ham)
    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=give))
    get(data_set, tmp_path / "data", source="kaggle")
    assert asked == ["kmader/skin-cancer-mnist-ham10000"]
    assert_same(tmp_path / "data", ham)


def test_without_httpx_the_message_says_what_to_install(
    tiny: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(DermafuseError, match=r'pip install "dermafuse\[fetch\]"'):
        get(tiny, tmp_path / "data")


def test_a_server_that_is_not_there_is_one_sentence(tmp_path: Path, ham: SimpleNamespace) -> None:
    source = LocalSource(ham.files)
    data_set = source.data_set(tmp_path, images=1, lesions=1)
    source.server.server_close()
    with pytest.raises(NetworkError, match=r"Could not fetch the listing .* \(tried 4 times\)"):
        get(data_set, tmp_path / "data")


#: Libraries that ask other machines.
CLIENTS = {"httpx", "requests", "aiohttp", "urllib.request", "http.client", "ftplib", "kagglehub"}


def test_only_the_network_room_asks_other_machines() -> None:
    for path in SOURCE.glob("**/*.py"):
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
        assert path.parent.name == "network" or not names & CLIENTS, path


def test_addresses_stand_in_the_data_file_alone() -> None:
    known = (SOURCE / "network" / "addresses.toml").read_text("utf-8")
    hosts = {part.partition("/")[0] for part in known.split("https://")[1:]} - {"creativecommons.org"}
    assert len(hosts) == 3
    for path in SOURCE.glob("**/*.py"):
        text = path.read_text("utf-8")
        assert not [host for host in hosts if f"//{host}" in text], path
    for path in (*(SOURCE / "network").glob("*.py"), SOURCE / "commands" / "fetch.py"):
        assert "https://" not in path.read_text("utf-8"), path


def test_every_entry_of_the_data_file_can_be_used() -> None:
    for data_set in read_catalogue().values():
        assert data_set.next in ("check", "init", "")
        assert data_set.licence_at.startswith("https://creativecommons.org/")
        for source in data_set.sources:
            assert source.kind in ("dataverse", "mendeley", "plain", "kaggle")
            assert source.counts["images"] > 1000
            for file in source.files:
                assert source.kind in ("kaggle", "mendeley") or file.address.startswith("https://")
                assert source.kind == "kaggle" or bool(file.into) == file.name.endswith(".zip") == (file.most > 0)
