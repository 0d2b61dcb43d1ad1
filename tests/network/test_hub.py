"""hf://OWNER/NAME: a bundle through huggingface_hub, from a stand-in of the hub on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import dermafuse
from dermafuse.cli import main
from dermafuse.errors import BundleError, ConfigError, NetworkError
from dermafuse.network.hub import model_from_hub
from dermafuse.runtime.released import model_folder
from tiny_bundle import tiny_bundle, tiny_image

constants = pytest.importorskip("huggingface_hub.constants")

COMMIT = "1" * 40


class Hub:
    """Serves the files of one folder as ``owner/tiny``, as the hub does: HEAD with commit and ETag, then GET."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[tuple[str, str]] = []
        self.commit = COMMIT
        here = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.answer(send=False)

            def do_GET(self) -> None:
                self.answer(send=True)

            def answer(self, *, send: bool) -> None:
                here.asked.append((self.command, self.path))
                owner, name, _, revision, file = (*self.path.strip("/").split("/"), "", "", "", "", "")[:5]
                there = folder / file
                missing = (
                    "RepoNotFound"
                    if (owner, name) != ("owner", "tiny")
                    else "RevisionNotFound"
                    if revision not in ("main", "v1", here.commit)
                    else ""
                    if there.is_file()
                    else "EntryNotFound"
                )
                body = b"" if missing else there.read_bytes()
                self.send_response(404 if missing else 200)
                if missing:
                    self.send_header("X-Error-Code", missing)
                if missing in ("", "EntryNotFound"):
                    self.send_header("X-Repo-Commit", here.commit)
                self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if send:
                    self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.at = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


@pytest.fixture
def published(tmp_path: Path) -> Path:
    bundle = tiny_bundle(tmp_path / "published", front_matter="---\nlicense: other\n---\n", licence="Free.\n")
    (bundle / ".gitattributes").write_text("")
    return bundle


@pytest.fixture
def stand_in(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    stand_in = Hub(published)
    monkeypatch.setattr(constants, "ENDPOINT", stand_in.at)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", stand_in.at + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("DERMAFUSE_CACHE", str(tmp_path / "cache"))
    yield stand_in
    stand_in.server.shutdown()
    stand_in.server.server_close()


def test_a_published_model_answers_as_the_one_here_and_is_fetched_once(
    stand_in: Hub, published: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    here, there = (dermafuse.load(name, precision="f32") for name in (published, "hf://owner/tiny"))
    image = tiny_image()
    assert there.bundle.digest == here.bundle.digest
    assert (there.bundle.front_matter, there.bundle.licence) == ("---\nlicense: other\n---\n", "Free.\n")
    np.testing.assert_array_equal(there.predict_proba([image]), here.predict_proba([image]))
    assert model_folder(Path("hf://owner/tiny")) == there.bundle.path == tmp_path / "cache/hub/owner--tiny" / COMMIT
    got = [path.rpartition("/")[2] for command, path in stand_in.asked if command == "GET"]
    assert sorted(got) == sorted(path.name for path in published.iterdir() if not path.name.startswith("."))
    assert all("telemetry" not in path for _, path in stand_in.asked)
    stand_in.asked.clear()
    assert model_folder("hf://owner/tiny@v1") == there.bundle.path
    assert [command for command, _ in stand_in.asked] == ["HEAD"]  # of the manifest: is it still that commit
    from PIL import Image

    Image.fromarray(image).save(tmp_path / "lesion.png")
    assert main(["predict", "hf://owner/tiny", str(tmp_path / "lesion.png"), "--json"]) == 0
    assert here.bundle.digest in capsys.readouterr().out


def test_offline_the_cache_answers_and_what_it_lacks_is_said(stand_in: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    found = model_folder("hf://owner/tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    stand_in.asked.clear()
    assert model_folder("hf://owner/tiny") == found
    with pytest.raises(NetworkError, match="not in the cache of huggingface_hub"):
        model_folder("hf://owner/other")
    assert stand_in.asked == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    stand_in.server.shutdown()
    stand_in.server.server_close()
    assert model_folder("hf://owner/tiny") == found  # the network is away


def test_a_file_that_was_changed_on_the_hub_is_refused(stand_in: Hub, published: Path) -> None:
    (published / "model.bin").write_bytes(bytes((published / "model.bin").stat().st_size))
    with pytest.raises(BundleError, match="was changed after it was written"):
        dermafuse.load("hf://owner/tiny")


def test_what_is_no_model_there_is_one_sentence(stand_in: Hub, published: Path) -> None:
    for named, kind, said in (
        ("hf://owner/other", NetworkError, "There is no model hf://owner/other"),
        ("hf://owner/tiny@v2", NetworkError, "no revision 'v2'"),
        ("hf://tiny", ConfigError, "hf://OWNER/NAME"),
        ("hf:owner/tiny", ConfigError, "names no model"),
        ("hf://owner/../etc", ConfigError, "names no model"),
    ):
        with pytest.raises(kind, match=said):
            model_from_hub(named)
    manifest = published / "manifest.json"
    whole = manifest.read_text()
    for commit, content, said in (
        ("2" * 40, whole.replace('"labels.json"', '"../labels.json"'), "lie elsewhere"),
        ("3" * 40, "[]", "none of dermafuse's"),
    ):
        stand_in.commit = commit
        manifest.write_text(content)
        with pytest.raises(BundleError, match=said):
            model_from_hub("hf://owner/tiny")
    manifest.unlink()
    stand_in.commit = "4" * 40
    with pytest.raises(BundleError, match=r"holds no manifest\.json"):
        model_from_hub("hf://owner/tiny")


def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"dermafuse\[hub\]"):
        model_from_hub("hf://owner/tiny")
