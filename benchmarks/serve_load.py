"""The server under load, on loopback, against what the issue asks of it.

    python benchmarks/serve_load.py [RUN] [--requests 2000] [--seconds 5] [--rounds 3] [--no-rival]

Starts ``dermafuse serve``, and for comparison in processes of their own (a) the same model's own ``Predictor.stream``
in throughput mode and (b) a naive FastAPI handler around Keras' ``predict`` of a network of the same backbone. Rounds
alternate between them, so that a machine that changes speed changes it for all; the median over the rounds counts.
Then ten times the measured capacity for a while, what is left of it afterwards, explanations one by one, and memory
over many requests. The load comes from a process of its own, on the same machine: its share of the CPUs is in the
figures.

Every request carries an id and one of five images; an answer counts only with that id and that image's probabilities.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import queue
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psutil

from dermafuse.serving.samples import SAMPLES, Samples

CONCURRENCY = 8
OVERLOAD = 10
OPEN_CONNECTIONS = 200

RIVAL = """
import io, os, sys
import numpy as np
from PIL import Image
from dermafuse.training.tensorflow_setup import load_tensorflow
load_tensorflow()
import keras
from dermafuse.models.backbones import build_backbone
backbone = build_backbone("efficientnet_lite1", weights="random")
pooled = keras.layers.GlobalAveragePooling2D()(backbone.outputs[0])
model = keras.Model(backbone.inputs[0], keras.layers.Dense(7, activation="softmax")(pooled))
side = model.inputs[0].shape[1] or 240
import fastapi, uvicorn
app = fastapi.FastAPI()
@app.post("/v1/predict")
def predict(image: fastapi.UploadFile):
    pixels = np.asarray(Image.open(io.BytesIO(image.file.read())).convert("RGB").resize((side, side)))
    return {"probabilities": model.predict(pixels[None].astype("float32"), verbose=0)[0].tolist()}
model.predict(np.zeros((1, side, side, 3), "float32"), verbose=0)
class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        print(f"Ready at http://127.0.0.1:{port}", file=sys.stderr, flush=True)
Server(uvicorn.Config(app, port=0, log_level="error", loop="asyncio", http="h11")).run()
"""


@dataclass
class Told:
    """What a load met: seconds of the answers by status, and what went wrong."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    lasted: float = 0.0

    def count(self, status: int) -> int:
        return len(self.seconds.get(status, ()))

    def rate(self) -> float:
        return self.count(200) / self.lasted

    def percentile(self, status: int, share: float) -> float:
        times = sorted(self.seconds.get(status, ()))
        return 1000 * times[min(len(times) - 1, int(share * len(times)))] if times else float("nan")


class Load:
    """Clients that speak HTTP/1.1 over connections that stay open, with as little Python as that needs."""

    def __init__(self, port: int, expected: list[list[float]] | None, query: str = "") -> None:
        self.port = port
        self.expected = expected
        self.told = Told()
        self.sent = 0
        self.requests = [self._request(Samples().jpeg(number), query) for number in range(len(SAMPLES))]

    @staticmethod
    def _request(image: bytes, query: str) -> tuple[bytes, bytes]:
        body = (
            b'--B\r\nContent-Disposition: form-data; name="image"; filename="x.jpg"\r\n\r\n' + image + b"\r\n--B--\r\n"
        )
        head = (
            f"POST /v1/predict{query} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=B\r\n"
            f"Content-Length: {len(body)}\r\nX-Request-ID: "
        )
        return head.encode(), b"\r\n\r\n" + body

    async def client(self, more: Callable[[], bool], rate: float | None, delay: float) -> None:
        """Ask while ``more()``; at a rate for each second, or one request after another."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        due = time.monotonic() + delay
        while True:
            if rate is not None:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                due = max(due + 1 / rate, time.monotonic())  # what was missed is not made up for
            if not more():
                break
            await self._ask(reader, writer)
        self.told.faults["answered twice"] += bool(reader._buffer)  # type: ignore[attr-defined]
        writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sent += 1
        number = self.sent % len(self.requests)
        name = f"load-{self.sent}"
        head, body = self.requests[number]
        start = time.monotonic()
        writer.write(head + name.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = re.search(r"content-length: (\d+)", answer)
        content = await reader.readexactly(int(length[1]) if length else 0)
        seconds = time.monotonic() - start
        status = int(answer[9:12])
        self.told.seconds.setdefault(status, []).append(seconds)
        if self.expected is None:
            return
        if f"x-request-id: {name}\r\n" not in answer:
            self.told.faults["another request's answer"] += 1
        if status == 503 and "retry-after" not in answer:
            self.told.faults["503 without Retry-After"] += 1
        if status == 200 and list(json.loads(content)["probabilities"].values()) != self.expected[number]:
            self.told.faults["other probabilities"] += 1

    async def run(self, connections: int, *, seconds: float = 0, requests: int = 0, rate: float | None = None) -> Told:
        end = time.monotonic() + seconds
        each = None if rate is None else rate / connections

        def more() -> bool:
            return self.sent < requests if requests else time.monotonic() < end

        start = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for index in range(connections):
                group.create_task(self.client(more, each, index / rate if rate else 0.0))
        self.told.lasted = time.monotonic() - start
        answered = sum(map(len, self.told.seconds.values()))
        self.told.faults["lost"] += self.sent - answered
        self.told.faults = +self.told.faults
        return self.told


def _load(results: Any, port: int, expected: Any, query: str, options: dict[str, Any]) -> None:
    results.put(asyncio.run(Load(port, expected, query).run(**options)))


def load(port: int, expected: list[list[float]] | None, *, query: str = "", **options: Any) -> Told:
    """Run a load in a process of its own."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_load, args=(results, port, expected, query, options))
    process.start()
    while True:
        with contextlib.suppress(queue.Empty):
            return results.get(timeout=1)
        if process.exitcode:
            raise SystemExit("The load itself failed.")


def _own(results: Any, orders: Any, run: str | None) -> None:
    from dermafuse.runtime.prediction import Query
    from dermafuse.runtime.released import load as load_model

    predictor = load_model(run, mode="throughput")
    images = [Samples().jpeg(number) for number in range(len(SAMPLES))]
    results.put([list(predictor.predict(image).probabilities.values()) for image in images])
    while seconds := orders.get():
        end = time.monotonic() + seconds
        start, done = time.monotonic(), 0

        def queries() -> Iterator[Query]:
            number = 0
            while time.monotonic() < end:  # noqa: B023
                yield Query(images[number % len(images)])
                number += 1

        done = sum(1 for _ in predictor.stream(queries()))
        results.put(done / (time.monotonic() - start))


@contextlib.contextmanager
def server(command: list[str]) -> Iterator[tuple[psutil.Process, int]]:
    """Start a server, wait until it is ready, end it by SIGTERM."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if found := re.match(r"Ready at http://[^:]+:(\d+)", line):
                break
        else:
            raise SystemExit("".join(said))
        threading.Thread(target=lambda: [None for _ in process.stderr or ()], daemon=True).start()
        yield psutil.Process(process.pid), int(found[1])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def memory(process: psutil.Process) -> float:
    """Return MB of a process and those below it that are its alone, plus its share of what several have."""
    return sum(each.memory_full_info().pss for each in (process, *process.children(recursive=True))) / 1e6


def judge(name: str, figure: str, bar: str, holds: bool) -> bool:
    print(f"{'ok  ' if holds else 'MISS'}  {name:44}{figure:>34}   {bar}", flush=True)
    return holds


def speed(port: int, expected: Any, own: Any, rival: int | None, options: Any) -> tuple[Told, bool]:
    rates: dict[str, list[float]] = {"own": [], "served": [], "rival": []}
    told = Told()
    for _ in range(options.rounds):
        own[1].put(options.seconds)
        rates["own"].append(own[0].get())
        told = load(port, expected, connections=CONCURRENCY, seconds=options.seconds)
        rates["served"].append(told.rate())
        if rival is not None:
            rates["rival"].append(load(rival, None, connections=CONCURRENCY, seconds=options.seconds).rate())
    middle = {name: statistics.median(values) for name, values in rates.items() if values}
    print({name: [round(value, 1) for value in values] for name, values in rates.items()})
    share = middle["served"] / middle["own"]
    holds = judge(
        "throughput at concurrency 8 / predictor's own",
        f"{middle['served']:.1f} / {middle['own']:.1f} a s = {share:.2f}",
        ">= 0.90",
        share >= 0.9,
    )
    if rival is not None:
        times = middle["served"] / middle["rival"]
        holds &= judge(
            "times a naive handler of Keras", f"{middle['rival']:.1f} a s: {times:.1f} times", ">= 2", times >= 2
        )
    quiet = f"{told.percentile(200, 0.5):.0f} / {told.percentile(200, 0.99):.0f} ms"
    holds &= judge("p50 / p99 at concurrency 8", quiet, "stated", True)
    return told, holds & judge("faults", str(dict(told.faults)), "none", not told.faults)


def overload(port: int, expected: Any, before: Told, seconds: float) -> bool:
    rate = OVERLOAD * before.rate()
    told = load(port, expected, connections=OPEN_CONNECTIONS, seconds=seconds, rate=rate)
    asked = sum(map(len, told.seconds.values())) / told.lasted
    p99, quiet = told.percentile(200, 0.99), before.percentile(200, 0.99)
    only = set(told.seconds) <= {200, 503}
    holds = judge("asked in the overload", f"{asked:.0f} a s = {asked / before.rate():.1f} capacities", "10", only)
    holds &= judge("503: p99", f"{told.percentile(503, 0.99):.1f} ms", "<= 50 ms", told.percentile(503, 0.99) <= 50)
    holds &= judge("admitted: p99 / that at concurrency 8", f"{p99:.0f} / {quiet:.0f} ms", "<= 2", p99 <= 2 * quiet)
    holds &= judge("admitted a second", f"{told.rate():.1f}", "stated", True)
    after = load(port, expected, connections=CONCURRENCY, seconds=seconds)
    share = after.rate() / before.rate()
    holds &= judge(
        "afterwards / before", f"{share:.2f}", ">= 0.9, no 503", share >= 0.9 and set(after.seconds) == {200}
    )
    faults = told.faults + after.faults
    return holds & judge("lost, doubled, mixed up", str(dict(faults)), "none", not faults)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?")
    parser.add_argument("--requests", type=int, default=2000, help="for memory; after the first 1,000 (or half)")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-rival", action="store_true")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    own = context.Queue(), context.Queue()
    predictor = context.Process(target=_own, args=(*own, options.run), daemon=True)
    predictor.start()
    expected = own[0].get()
    command = [sys.executable, "-m", "dermafuse", "serve", *([options.run] if options.run else []), "--port", "0"]
    with contextlib.ExitStack() as stack:
        process, port = stack.enter_context(server(command))
        with contextlib.ExitStack() as others:
            rival = None if options.no_rival else others.enter_context(server([sys.executable, "-c", RIVAL]))[1]
            before, holds = speed(port, expected, own, rival, options)
        own[1].put(0)
        holds &= overload(port, expected, before, options.seconds)
        told = load(port, expected, query="?explain=true", connections=1, requests=30)
        slow = told.percentile(200, 0.95)
        holds &= judge(
            "explanation: p50 / p95", f"{told.percentile(200, 0.5):.0f} / {slow:.0f} ms", "< 150 ms", slow < 150
        )
        first = min(1000, options.requests // 2)
        load(port, expected, connections=CONCURRENCY, requests=first)
        settled = memory(process)
        told = load(port, expected, connections=CONCURRENCY, requests=options.requests - first)
        ended = memory(process)
        growth = ended / settled - 1
        holds &= judge("memory", f"{settled:.0f} -> {ended:.0f} MB = {100 * growth:+.1f} %", "< 5 %", growth < 0.05)
    sys.exit(not holds)


if __name__ == "__main__":
    main()
