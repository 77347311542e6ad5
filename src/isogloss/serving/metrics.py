"""What the server counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest


class Metrics:
    """The counters of one server; `process_resident_memory_bytes` and the like come with them."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.active = Gauge("isogloss_active_requests", "Requests received, waiting or worked on.", registry=registry)
        self._requests = Counter("isogloss_requests", "Requests answered.", ["route", "status"], registry=registry)
        self._seconds = Histogram(
            "isogloss_request_seconds",
            "From the head of a request to the end of its answer.",
            ["route"],
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
            registry=registry,
        )
        self._audio = Counter("isogloss_audio_seconds", "Seconds of audio worked on.", registry=registry)
        self._batch = Histogram(
            "isogloss_batch_recordings", "Recordings in a batch.", buckets=(1, 2, 4, 8, 16, 32), registry=registry
        )

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request. route: as the application has it, so that no client makes new ones."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, recordings: int, seconds: float) -> None:
        """Count a batch and the audio in it."""
        self._batch.observe(recordings)
        self._audio.inc(seconds)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return bytes(generate_latest(self._registry))
