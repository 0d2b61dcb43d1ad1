"""``dermafuse serve [RUN]``."""

from __future__ import annotations

import argparse
import importlib.util
import ipaddress
import os
import re
import socket
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dermafuse.errors import ConfigError
from dermafuse.labels import DISCLAIMER

if TYPE_CHECKING:
    from dermafuse.serving.limits import Access, Limits

_KEY_VARIABLE: Final = "DERMAFUSE_API_KEY"
_SHORTEST_KEY: Final = 16


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "serve",
        parents=[common],
        help="web page and HTTP API of a model",
        description=f"A web page for people and an HTTP API for programs; nothing leaves the machine. {DISCLAIMER}",
        examples=(
            ("dermafuse serve --open", "the released model, as a page in your browser"),
            ("dermafuse serve RUN --port 9000", "a model of yours"),
            ("dermafuse serve RUN --host 0.0.0.0 --api-key-file KEY", "for other machines, which need the key"),
        ),
    )
    verb.add_argument(
        "run", metavar="RUN", nargs="?", type=Path, help="a RUN or bundle folder (none: the released model)"
    )
    verb.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: %(default)s, this machine only)"
    )
    verb.add_argument("--port", type=int, default=8000, help="default: %(default)s; 0: any that is free")
    verb.add_argument("--workers", metavar="N", type=int, help="processes that predict (default: one a CPU)")
    verb.add_argument(
        "--queue",
        metavar="N",
        type=int,
        help="requests that wait (default: 3 a worker, at least 6); more are told to come later",
    )
    verb.add_argument("--timeout", metavar="S", type=float, default=30.0, help="seconds a request may take")
    verb.add_argument("--max-upload", metavar="BYTES", type=int, default=32 * 1024**2, help="largest request")
    verb.add_argument("--max-pixels", metavar="N", type=int, help="largest image")
    verb.add_argument("--max-batch", metavar="N", type=int, default=64, help="images in one request")
    verb.add_argument(
        "--gallery",
        metavar="RUN_OR_DATA",
        type=Path,
        help="labelled images of yours: the page shows those most like the one looked at",
    )
    verb.add_argument(
        "--api-key-file", metavar="FILE", type=Path, help=f"callers need this key (or set {_KEY_VARIABLE})"
    )
    verb.add_argument("--insecure", action="store_true", help="let other machines ask without a key")
    verb.add_argument(
        "--allowed-host", metavar="NAME", action="append", default=[], help="a name of this server; repeatable"
    )
    verb.add_argument(
        "--cors",
        metavar="ORIGIN",
        action="append",
        default=[],
        help="let pages of https://HOST ask from a browser; repeatable (default: of no other site)",
    )
    verb.add_argument("--precision", choices=("auto", "f32", "bf16"), default="auto")
    verb.add_argument("--open", action="store_true", help="open the page in a browser")
    verb.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C, then exit 0."""
    for package in ("fastapi", "uvicorn", "python_multipart"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f'Serving needs {package}; run: pip install "dermafuse[serve]".')
    key = _key(arguments.api_key_file)
    if key is None and not arguments.insecure and not _is_loopback(arguments.host):
        raise ConfigError(
            f"--host {arguments.host} lets other machines ask; add --api-key-file FILE so that they need a key, or "
            "--insecure to allow everybody."
        )
    from dermafuse.serving.limits import Access
    from dermafuse.serving.run import listen

    limits = _limits(arguments)
    origins = frozenset(map(_origin, arguments.cors))
    names = frozenset(name.lower() for name in (*arguments.allowed_host, arguments.host))
    with listen(arguments.host, arguments.port) as listener:
        _serve(arguments, limits, Access(key, names, origins), listener)
    return 0


def _limits(arguments: argparse.Namespace) -> Limits:
    from dermafuse.data.images import MAX_PIXELS
    from dermafuse.runtime.engine import cpu_count
    from dermafuse.serving.limits import Limits

    workers = cpu_count() if arguments.workers is None else arguments.workers
    return Limits(
        upload_bytes=arguments.max_upload,
        pixels=MAX_PIXELS if arguments.max_pixels is None else arguments.max_pixels,
        seconds=arguments.timeout,
        workers=workers,
        queue=max(6, 3 * workers) if arguments.queue is None else arguments.queue,
        batch=arguments.max_batch,
    )


def _serve(arguments: argparse.Namespace, limits: Limits, access: Access, listener: socket.socket) -> None:
    from dermafuse.commands.asking import announce
    from dermafuse.runtime.engine import cpu_count
    from dermafuse.serving.app import make_app
    from dermafuse.serving.processes import ModelSource, Processes
    from dermafuse.serving.run import log_to_stderr, serve

    threads = max(1, cpu_count() // limits.workers)
    gallery = None if arguments.gallery is None else _gallery(arguments)
    desk = Processes(ModelSource(arguments.run, arguments.precision, limits, threads, gallery))
    try:
        announce(desk.description.told["announcements"])
        print(desk.description.sentence, file=sys.stderr)
        if access.key is None and not _is_loopback(arguments.host):
            print("Whoever reaches this machine can ask the model: there is no key.", file=sys.stderr)
        address = _address(arguments.host, listener.getsockname()[1])

        def tell() -> None:
            print(f"Ready at {address} (API: {address}/docs). Ctrl-C ends it.", file=sys.stderr, flush=True)
            if arguments.open:
                webbrowser.open(address)

        log_to_stderr()
        serve(make_app(desk, limits, access), listener, started=tell)
    finally:
        desk.close()


def _gallery(arguments: argparse.Namespace) -> Path:
    from dermafuse.progress import Terminal
    from dermafuse.runtime.bundle.folder import read_bundle
    from dermafuse.runtime.released import released_bundle
    from dermafuse.serving.gallery_build import build

    bundle = read_bundle(released_bundle() if arguments.run is None else arguments.run)
    return build(arguments.gallery, bundle, arguments.precision, Terminal())


def _key(file: Path | None) -> str | None:
    if file is None:
        key = os.environ.get(_KEY_VARIABLE)
        where = f"the environment variable {_KEY_VARIABLE}"
    else:
        where = str(file)
        try:
            key = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"The API key file {file} cannot be read; name a text file that holds the key."
            ) from error
    if key is None:
        return None
    if len(key) < _SHORTEST_KEY or not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(f"The API key in {where} is not usable: it needs {_SHORTEST_KEY} or more ASCII characters.")
    return key


def _origin(text: str) -> str:
    found = re.fullmatch(r"https?://(\[[0-9a-f:]+\]|[a-z0-9.-]+)(:\d{1,5})?", text.lower())
    if found is None:
        raise ConfigError(
            f"--cors {text} is no origin; name each as a browser says it, such as https://clinic.example."
        )
    return found[0]


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _address(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"
