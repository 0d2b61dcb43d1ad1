"""A stand-in for Harvard Dataverse on this machine, with its traps: loopback only, ends with the test."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import threading
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from dermafuse.network.catalogue import DataSet, read_catalogue

SLICE = 8_192


def zipped(folder: Path) -> bytes:
    """A folder as archives of HAM10000 hold it, with what a Mac adds."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("__MACOSX/._x.jpg", b"junk")
        for path in sorted(folder.iterdir()):
            archive.write(path, f"{folder.name}/{path.name}")
    return stream.getvalue()


class LocalSource:
    """Serves files by number at a lasting address that leads to a link for one use.

    Attributes:
        faults: what the next answers of a file are instead of the right one, first one first.
        asked: (method, path, headers) of all requests.
        sent: bytes of each file that went out.
        after: called after each slice with the bytes sent of all files.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = {number: (name, content) for number, (name, content) in enumerate(files.items(), 1)}
        self.faults: dict[int, list[str]] = defaultdict(list)
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.sent: dict[int, int] = defaultdict(int)
        self.after: Callable[[int], None] = lambda sent: None
        self.version = "1"
        self.pause = 0.0
        self.etag = True
        self.links = 0
        self.used: set[str] = set()
        source = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                source.answer(self, "HEAD")

            def do_GET(self) -> None:
                with contextlib.suppress(ConnectionError):
                    source.answer(self, "GET")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.at = f"http://127.0.0.1:{self.server.server_address[1]}"

    @contextlib.contextmanager
    def open(self) -> Iterator[LocalSource]:
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join(5)

    def answer(self, request: BaseHTTPRequestHandler, method: str) -> None:
        self.asked.append((method, request.path, dict(request.headers)))
        agent = request.headers.get("User-Agent", "")
        kind, _, rest = request.path.strip("/").partition("/")
        if method == "HEAD" or agent.lower().startswith(("python", "curl")):
            return self.reply(request, 403, b"no robots")
        if kind == "listing":
            return self.reply(request, 200, json.dumps(self.listing()).encode())
        if kind == "file":
            self.links += 1
            request.send_response(303)
            request.send_header("Location", f"{self.at}/signed/{rest.partition('?')[0]}/{self.links}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return None
        number, _, link = rest.partition("/")
        if link in self.used:
            return self.reply(request, 403, b"<Error>Request has expired</Error>")
        self.used.add(link)
        return self.send_file(request, int(number))

    def reply(self, request: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)

    def send_file(self, request: BaseHTTPRequestHandler, number: int) -> None:
        _, content = self.files[number]
        faults = self.faults[number]
        fault = faults.pop(0) if faults else ""
        tag = f'"{self.version}-{number}"'
        extra = {"ETag": tag} if self.etag else {}
        wanted = request.headers.get("Range", "")
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        if request.headers.get("If-Range", tag) != tag or fault == "whole":
            wanted, start = "", 0
        if fault.isdigit():
            return self.reply(request, int(fault), b"later", Retry_After="0")
        if fault.startswith("wait"):
            return self.reply(request, 429, b"later", Retry_After=fault.removeprefix("wait"))
        if fault == "expired":
            return self.reply(request, 403, b"<Error>Request has expired</Error>")
        if fault == "page":
            return self.reply(request, 200, b"<html>Please enable scripts</html>")
        if fault == "start" or start >= len(content):
            return self.reply(request, 416, b"", Content_Range=f"bytes */{len(content)}")
        last = int(wanted.rpartition("-")[2] or len(content) - 1) if wanted else len(content) - 1
        shift = 5 if fault == "shifted" else 0
        body = content[start + shift : last + 1]
        request.send_response(206 if wanted else 200)
        for name, value in extra.items():
            request.send_header(name, value)
        if wanted:
            request.send_header("Content-Range", f"bytes {start + shift}-{last}/{len(content)}")
        announced = len(body) + {"longer": 1000, "shorter": -1000}.get(fault, 0)
        if fault != "unsaid":
            request.send_header("Content-Length", str(announced))
        else:
            request.send_header("Connection", "close")
        request.end_headers()
        if fault == "altered":
            body = bytes(len(body))
        if fault.startswith("cut"):
            body = body[: int(fault.removeprefix("cut"))]
        for begin in range(0, len(body), SLICE):
            part = body[begin : begin + SLICE]
            request.wfile.write(part)
            request.wfile.flush()
            self.sent[number] += len(part)
            self.after(sum(self.sent.values()))
            if self.pause:
                time.sleep(self.pause)
        if fault:
            request.close_connection = True
            request.connection.close()
        return None

    def listing(self) -> dict[str, object]:
        files = []
        for number, (name, content) in self.files.items():
            file = {
                "id": number,
                "filename": name,
                "filesize": len(content),
                "md5": hashlib.md5(content).hexdigest(),
            }
            if name.endswith(".csv"):  # ingested: the size is of the tab-separated form, the checksum of the original
                file |= {"filesize": len(content) + 17, "originalFileSize": len(content)}
                files.append({"label": name.replace(".csv", ".tab"), "dataFile": file})
            else:
                files.append({"label": name, "dataFile": file})
        return {"status": "OK", "data": {"latestVersion": {"files": files}}}

    def data_set(self, folder: Path, *, kind: str = "dataverse", images: int, lesions: int, more: str = "") -> DataSet:
        """The catalogue's entry of what is served here: ``tiny``, a table and archives."""
        lines = [
            "[data.tiny]",
            'title = "Tiny"\nlicence = "CC BY-NC 4.0"\nlicence_at = "somewhere"',
            'cite = "Somebody"\nmind = "Mind this."',
            f'[[data.tiny.source]]\nname = "here"\nkind = "{kind}"\nlisting = "{self.at}/listing"\n{more}',
            f'counts = {{ images = {images}, table = "HAM10000_metadata.csv", rows = {images}, lesion = "lesion_id", '
            f"lesions = {lesions} }}\nfiles = [",
        ]
        for number, (name, _) in self.files.items():
            into = f', into = "{name.removesuffix(".zip")}", most = 5000000' if name.endswith(".zip") else ""
            original = ", original = true" if name.endswith(".csv") else ""
            at = f"{self.at}/file/{{id}}" if kind == "dataverse" else f"{self.at}/file/{number}"
            lines.append(f'{{ name = "{name}", id = {number}, address = "{at}"{original}{into} }},')
        path = folder / "addresses.toml"
        path.write_text("\n".join([*lines, "]"]))
        return read_catalogue(path)["tiny"]
