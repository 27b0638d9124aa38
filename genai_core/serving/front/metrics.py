"""What is counted, in the text format of Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from genai_core.serving.front.relay import Outcome
from genai_core.serving.pool import EnginePool

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters of one server."""

    def __init__(self, pool: EnginePool):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(_Engines(pool))
        self._requests = Counter("genai_requests", "Requests by model, path and status; 499 is a client that went away",
                                 ("model", "path", "status"), registry=self.registry)
        self._tokens = Counter("genai_tokens", "Tokens read and written", ("model", "kind"), registry=self.registry)
        self._seconds = Histogram("genai_request_seconds", "Duration of a request", ("model",), buckets=SECONDS,
                                  registry=self.registry)
        self._first = Histogram("genai_first_piece_seconds", "Time until the first piece of an answer", ("model",),
                                buckets=SECONDS, registry=self.registry)

    def count(self, model: str, path: str, outcome: Outcome) -> None:
        self._requests.labels(model, path, str(outcome.status)).inc()
        self._seconds.labels(model).observe(outcome.seconds)
        if outcome.first is not None:
            self._first.labels(model).observe(outcome.first)
        self._tokens.labels(model, "prompt").inc(outcome.prompt_tokens)
        self._tokens.labels(model, "completion").inc(outcome.completion_tokens)

    def refused(self, path: str, status: int) -> None:
        """Count a request that no model was asked."""
        self._requests.labels("", path, str(status)).inc()

    def text(self) -> bytes:
        return bytes(generate_latest(self.registry))


class _Engines(Collector):
    """How the engines stand when somebody looks."""

    def __init__(self, pool: EnginePool):
        self.pool = pool

    def collect(self) -> list[Metric]:
        running = GaugeMetricFamily("genai_requests_running", "Requests in a slot", labels=["model"])
        waiting = GaugeMetricFamily("genai_requests_waiting", "Requests that wait for a slot", labels=["model"])
        slots = GaugeMetricFamily("genai_slots", "Requests that are answered at a time", labels=["model"])
        memory = GaugeMetricFamily("genai_engine_resident_bytes", "Memory of an engine's process", labels=["model"])
        for engine in self.pool.engines.values():
            running.add_metric([engine.name], min(engine.taken, engine.slots))
            waiting.add_metric([engine.name], max(engine.taken - engine.slots, 0))
            slots.add_metric([engine.name], engine.slots)
            memory.add_metric([engine.name], engine.memory)
        moves = CounterMetricFamily("genai_model_moves", "How often what serves has changed", value=self.pool.moves)
        return [running, waiting, slots, memory, moves]
