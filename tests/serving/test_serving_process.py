"""The server as a process: its socket, its limits on the wire, its end."""

from __future__ import annotations

import contextlib
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason='the server is not tested: pip install "dermafuse[serve]"')

from dermafuse.cli import main
from tiny_bundle import tiny_bundle, tiny_image

CODE = "import sys; from dermafuse.cli import main; sys.exit(main(sys.argv[1:]))"


@dataclass
class Running:
    process: subprocess.Popen[str]
    port: int
    said: list[str]

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def raw(self, request: bytes, wait: float = 10) -> bytes:
        """Send bytes, read what comes until the server closes or falls silent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait) as connection:
            connection.sendall(request)
            answer = b""
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                while data := connection.recv(65536):
                    answer += data
            return answer


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("process") / "tiny")


@contextlib.contextmanager
def running(bundle: Path, *options: str) -> Iterator[Running]:
    command = [sys.executable, "-c", CODE, "serve", str(bundle), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    said: list[str] = []
    ready = threading.Event()

    def listen() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if line.startswith("Ready at"):
                ready.set()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        assert ready.wait(60), said
        port = re.search(r"Ready at http://127\.0\.0\.1:(\d+)", "".join(said))
        assert port is not None
        yield Running(process, int(port[1]), said)
    finally:
        process.kill()
        process.wait()
        listener.join(5)


def form(*images: bytes) -> bytes:
    parts = [
        b'--B\r\nContent-Disposition: form-data; name="image"; filename="jane-doe.png"\r\n\r\n' + i for i in images
    ]
    return b"\r\n".join([*parts, b"--B--\r\n"])


def request_of(path: str, body: bytes, *, length: int | None = None) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=B\r\n"
        f"Content-Length: {len(body) if length is None else length}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def png(side: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(tiny_image(0, side, side)).save(content, "PNG")
    return content.getvalue()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_at_sigterm_readiness_goes_first_every_admitted_request_is_answered_and_the_exit_is_0(bundle: Path) -> None:
    with running(bundle, "--workers", "1", "--queue", "8") as server:
        request = request_of("/v1/predict:batch?views=8", form(*[png(800)] * 6))
        answers: list[bytes] = []
        threads = [threading.Thread(target=lambda: answers.append(server.raw(request))) for _ in range(8)]
        for thread in threads:
            thread.start()
        waiting = 0
        end = time.monotonic() + 10
        while waiting < 5 and time.monotonic() < end:  # most of them have a place, and wait
            found = re.search(r"dermafuse_queue_requests (\d+)", server.get("/metrics")[1])
            waiting = int(found[1]) if found else 0
        assert waiting >= 5
        time.sleep(0.1)
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.15)
        assert server.get("/v2/health/ready")[0] == 503
        assert server.get("/v2/health/live")[0] == 200
        for thread in threads:
            thread.join(10)
        assert server.process.wait(10) == 0
        assert time.monotonic() - start < 10
    assert [status(answer) for answer in answers] == [200] * 8
    bodies = [json.loads(answer.partition(b"\r\n\r\n")[2]) for answer in answers]
    assert all(len(body["predictions"]) == 6 and "label" in body["predictions"][5] for body in bodies)
    log = [json.loads(line) for line in server.said if line.startswith("{")]
    assert sum(entry.get("route") == "/v1/predict:batch" and entry["status"] == 200 for entry in log) == 8
    assert "jane-doe" not in "".join(server.said)


def test_what_is_too_long_is_refused_before_it_is_sent_and_slow_or_broken_bodies_delay_nobody(bundle: Path) -> None:
    with running(bundle, "--max-upload", "20000", "--timeout", "2", "--workers", "1", "--queue", "0") as server:
        # Nothing of the body is ever sent: the answer cannot have waited for it.
        assert status(server.raw(request_of("/v1/predict", b"", length=20001))) == 413
        chunked = (
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=B\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n4e21\r\n" + b"x" * 0x4E21 + b"\r\n"
        )
        assert status(server.raw(chunked)) == 413  # the last chunk never comes
        slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(30)]
        for connection in slow:
            connection.sendall(request_of("/v1/predict", b"--B\r\n", length=10_000))
        small = request_of("/v1/predict", form(png(40)))
        start = time.monotonic()
        assert status(server.raw(small)) == 200
        assert time.monotonic() - start < 1
        slow[0].close()  # broken off
        slow[1].settimeout(5)
        assert status(slow[1].recv(65536)) == 408  # and all too slow
        for garbage in (
            b"\x00\xff" * 500,
            b"GET / HTTP/9.9\r\n\r\n",
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000,
        ):
            assert status(server.raw(garbage, 1) or b"HTTP/1.1 400") == 400
        assert status(server.raw(small)) == 200
        for connection in slow:
            connection.close()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == 0


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]


def test_a_worker_that_is_killed_is_replaced_and_no_request_is_lost(bundle: Path) -> None:
    with running(bundle, "--workers", "2") as server:
        request = request_of("/v1/predict:batch?views=8", form(*[png(1000)] * 4))
        answers: list[bytes] = []
        threads = [threading.Thread(target=lambda: answers.append(server.raw(request, 30))) for _ in range(4)]
        before = workers_of(server.process)
        assert len(before) == 2
        for thread in threads:
            thread.start()
        time.sleep(0.15)  # both compute
        before[0].kill()
        for thread in threads:
            thread.join(30)
        assert [status(answer) for answer in answers] == [200] * 4  # that of the killed one was computed again
        for worker in workers_of(server.process):
            worker.kill()  # all of them, and while they are idle
        assert status(server.raw(request_of("/v1/predict", form(png(40))), 30)) == 200
        end = time.monotonic() + 30
        while len(workers_of(server.process)) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        after = workers_of(server.process)
        assert len(after) == 2
        assert not {worker.pid for worker in before} & {worker.pid for worker in after}
        assert server.get("/v2/health/ready")[0] == 200
        assert any('"worker ended"' in line for line in server.said)
        server.process.kill()  # without a word: its workers end too
        for worker in after:
            worker.wait(10)


# ---------------------------------------------------------------- refused before anything is loaded


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["serve", *words]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "clinic.example"])
def test_other_machines_are_refused_without_a_key(
    host: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DERMAFUSE_API_KEY", raising=False)
    assert "--api-key-file" in refusal(capsys, "--host", host)


@pytest.mark.parametrize("content", ["", "short", "with blanks in between", "ümlaut-ümlaut-ümlaut"])
def test_a_key_that_is_none_is_refused(
    content: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text(content)
    assert "not usable" in refusal(capsys, "--api-key-file", str(tmp_path / "key"))
    monkeypatch.setenv("DERMAFUSE_API_KEY", content)
    assert "DERMAFUSE_API_KEY" in refusal(capsys)
    assert "cannot be read" in refusal(capsys, "--api-key-file", str(tmp_path / "none"))


def test_a_port_that_is_taken_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port}" in refusal(capsys, "--port", port)
    assert "choose another" in refusal(capsys, "--port", "99999")


def test_a_folder_that_is_no_model_and_bounds_that_are_none_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert str(tmp_path) in refusal(capsys, str(tmp_path), "--port", "0")
    for option, value in (("--workers", "0"), ("--queue", "-1"), ("--timeout", "0"), ("--max-pixels", "99999999999")):
        assert value.strip("-")[:2] in refusal(capsys, "--port", "0", option, value)


def test_without_its_extra_the_verb_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "uvicorn" else real(name, *more)
    )
    assert 'pip install "dermafuse[serve]"' in refusal(capsys)
