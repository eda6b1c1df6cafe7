"""The metrics of all workers of the API, in Prometheus's text format.

Each worker counts in memory and writes a snapshot to a shared folder every second. The worker that gets the request
adds the snapshots. The multiprocess mode of prometheus_client is not used: it writes every count to a mapped file,
which costs a tenth of the throughput. A killed worker loses its counts of the last second; its events are not lost.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

# Upper bounds of the latency buckets, in seconds.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_NANOSECONDS = [round(seconds * 1e9) for seconds in SECONDS]
SNAPSHOT_SECONDS = 1.0
STOP_SECONDS = 5.0


class Latency(msgspec.Struct):
    """Requests of one route and status: the count of each bucket (the last has no bound), and the total time in ns."""

    buckets: list[int]
    total: int = 0


class Snapshot(msgspec.Struct):
    """The counts of a worker since its start; `version` and `since` are of the model it serves, 0 for none."""

    pid: int
    requests: dict[str, Latency] = {}
    predictions: dict[str, int] = {}
    swaps: int = 0
    refusals: int = 0
    failures: int = 0
    version: int = 0
    since: float = 0.0


class Metrics(Collector):
    """Counts of this worker and, when collected, of all that share `folder`.

    No lock is needed: one request at a time counts (`api.middleware`), only the follower counts swaps and refusals, and
    the interpreter takes a snapshot in one step.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = Snapshot(os.getpid())
        self._end = threading.Event()

    def start(self) -> None:
        """Start to write a snapshot every second."""
        self._thread = threading.Thread(target=self._keep, name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write the last snapshot."""
        self._end.set()
        self._thread.join(STOP_SECONDS)

    def request(self, route: str, status: str, duration: int) -> None:
        """Count a request that took `duration` ns."""
        histogram = self._own.requests.get(f"{route} {status}")
        if histogram is None:
            histogram = self._own.requests[f"{route} {status}"] = Latency([0] * (len(SECONDS) + 1))
        histogram.buckets[bisect_left(_NANOSECONDS, duration)] += 1
        histogram.total += duration

    def predicted(self, version: str, labels: list[str]) -> None:
        predictions = self._own.predictions
        for label in labels:
            key = f"{version} {label}"
            predictions[key] = predictions.get(key, 0) + 1

    def swapped(self, version: int) -> None:
        self._own.swaps += 1
        self._own.version, self._own.since = version, time.time()

    def refused(self) -> None:
        self._own.refusals += 1

    def failed(self) -> None:
        self._own.failures += 1

    def exposition(self) -> bytes:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        workers = self._snapshots()
        requests = CounterMetricFamily("lab_requests", "Requests answered", labels=["route", "status"])
        seconds = HistogramMetricFamily("lab_request_seconds", "From request to answer", labels=["route", "status"])
        for key in sorted({key for worker in workers for key in worker.requests}):
            histograms = [worker.requests[key] for worker in workers if key in worker.requests]
            buckets = [sum(column) for column in zip(*(each.buckets for each in histograms), strict=True)]
            requests.add_metric(key.split(" "), sum(buckets))
            seconds.add_metric(key.split(" "), _cumulative(buckets), sum(each.total for each in histograms) / 1e9)
        yield requests
        yield seconds
        predictions = CounterMetricFamily("lab_predictions", "Records classified", labels=["version", "label"])
        totals: Counter[str] = Counter()
        for worker in workers:
            totals.update(worker.predictions)
        for key, count in sorted(totals.items()):
            predictions.add_metric(key.split(" ", 1), count)
        yield predictions
        yield CounterMetricFamily("lab_model_swaps", "Models put into service", sum(w.swaps for w in workers))
        yield CounterMetricFamily("lab_model_refusals", "Unsound champions", sum(w.refusals for w in workers))
        failures = sum(w.failures for w in workers)
        yield CounterMetricFamily("lab_model_failures", "Requests for which the model gave no probability", failures)
        yield from _models(workers)

    def _snapshots(self) -> list[Snapshot]:
        """The counts of this worker and of all others, also of workers that have ended."""
        snapshots = [self._own]
        for path in sorted(self._folder.glob("*.json")):
            if path.stem == str(self._own.pid):
                continue
            try:
                snapshots.append(msgspec.json.decode(path.read_bytes(), type=Snapshot))
            except (OSError, msgspec.DecodeError):  # the worker has not written its first snapshot yet
                continue
        return snapshots

    def _write(self) -> None:
        text = msgspec.json.encode(self._own)
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / f"{self._own.pid}-{threading.get_ident()}.part"
        part.write_bytes(text)
        part.replace(self._folder / f"{self._own.pid}.json")

    def _keep(self) -> None:
        ended = False
        while not ended:
            ended = self._end.wait(SNAPSHOT_SECONDS)
            with contextlib.suppress(OSError):  # on a full disk, counting continues in memory
                self._write()


def _models(workers: list[Snapshot]) -> Iterator[Metric]:
    """The version that each living worker serves; each worker follows the champion by itself."""
    version = GaugeMetricFamily("lab_model_version", "The version a worker serves", labels=["worker"])
    age = GaugeMetricFamily("lab_model_age_seconds", "Seconds since a worker loaded its version", labels=["worker"])
    for worker in workers:
        if worker.version and _alive(worker.pid):
            version.add_metric([str(worker.pid)], worker.version)
            age.add_metric([str(worker.pid)], time.time() - worker.since)
    yield version
    yield age


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    bounds = [*map(str, SECONDS), "+Inf"]
    return [(bound, float(sum(buckets[: place + 1]))) for place, bound in enumerate(bounds)]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
