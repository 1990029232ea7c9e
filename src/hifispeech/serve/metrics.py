"""What the service counts, for Prometheus; each server has a registry of its own."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client import generate_latest as generate_text

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class Metrics:
    """All metrics of one server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "hifispeech_requests",
            "Requests answered",
            ["route", "method", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "hifispeech_request_seconds",
            "Time from the first byte of a request to the last of its answer",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.received = Counter("hifispeech_received_bytes", "Bytes of uploads", registry=registry)
        self.audio = Counter(
            "hifispeech_audio_seconds", "Seconds of audio upscaled", ["pool"], registry=registry
        )
        self.work = Histogram(
            "hifispeech_work_seconds",
            "Time on a worker, of one task",
            ["pool", "action"],
            buckets=SECONDS,
            registry=registry,
        )
        self.busy = Gauge("hifispeech_busy_workers", "Workers with a task", ["pool"], registry=registry)
        self.waiting = Gauge(
            "hifispeech_requests_admitted", "Requests waiting, at work or being sent", registry=registry
        )
        self.restarts = Counter(
            "hifispeech_worker_restarts", "Workers killed or dead, and replaced", ["pool"], registry=registry
        )
        self.jobs = Gauge("hifispeech_jobs", "Jobs kept, by status", ["status"], registry=registry)
        self.streams = Gauge("hifispeech_open_streams", "Open streams of /v1/stream", registry=registry)

    def text(self) -> bytes:
        """In the text format of Prometheus."""
        return generate_text(self.registry)
