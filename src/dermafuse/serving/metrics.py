"""Figures of a running server in the text format of Prometheus, under OpenTelemetry's names.

Sources: OpenTelemetry semantic conventions, HTTP metrics (``http.server.request.duration`` and its buckets);
Prometheus text exposition format 0.0.4.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Sequence
from typing import Final

from dermafuse.serving.pool import Pool

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

#: Seconds, as the semantic conventions advise.
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

#: Method, route, status.
_Labels = tuple[str, str, int]


class Metrics:
    """Counts of one server, all counted on its event loop."""

    def __init__(self, pool: Pool) -> None:
        self.active = 0
        self._pool = pool
        self._buckets: dict[_Labels, list[int]] = {}
        self._seconds: Counter[_Labels] = Counter()
        self._predictions: Counter[str] = Counter()

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request; ``route`` is one of the server's own, never a caller's path."""
        labels = (method, route, status)
        counts = self._buckets.setdefault(labels, [0] * (len(_BUCKETS) + 1))
        counts[bisect.bisect_left(_BUCKETS, seconds)] += 1
        self._seconds[labels] += seconds  # type: ignore[assignment]

    def predictions(self, strange: Sequence[bool | None]) -> None:
        """Count predicted images: of each, whether it is unlike the training images."""
        self._predictions["all"] += len(strange)
        self._predictions["strange"] += sum(flag is True for flag in strange)

    def text(self) -> str:
        """Return all figures."""
        lines = _head("http_server_request_duration_seconds", "histogram", "Duration of HTTP server requests.")
        for labels, counts in sorted(self._buckets.items()):
            method, route, status = labels
            told = f'http_request_method="{method}",http_route="{route}",http_response_status_code="{status}"'
            total = 0
            for bound, count in zip((*map(str, _BUCKETS), "+Inf"), counts, strict=True):
                total += count
                lines.append(f'http_server_request_duration_seconds_bucket{{{told},le="{bound}"}} {total}')
            lines.append(f"http_server_request_duration_seconds_sum{{{told}}} {self._seconds[labels]:.6f}")
            lines.append(f"http_server_request_duration_seconds_count{{{told}}} {total}")
        pool = self._pool
        for name, kind, what, value in (
            ("http_server_active_requests", "gauge", "Open HTTP requests.", self.active),
            ("dermafuse_queue_requests", "gauge", "Requests that wait for a thread.", pool.waiting),
            ("dermafuse_held_bytes", "gauge", "Request bodies in memory.", pool.held),
            ("dermafuse_inferences_total", "counter", "Images predicted.", self._predictions["all"]),
            (
                "dermafuse_out_of_distribution_total",
                "counter",
                "Images predicted that are unlike the training images.",
                self._predictions["strange"],
            ),
        ):
            lines += [*_head(name, kind, what), f"{name} {value}"]
        lines += _head("dermafuse_refusals_total", "counter", "Requests that found no place, by reason.")
        lines += [f'dermafuse_refusals_total{{reason="{reason}"}} {count}' for reason, count in pool.refused.items()]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, what: str) -> list[str]:
    return [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]
