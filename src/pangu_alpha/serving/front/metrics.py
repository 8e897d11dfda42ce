"""The figures of /metrics, under vLLM's names after `pangu:`. No label comes from a client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_GAPS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.running = self._gauge("num_requests_running", "Samples that have a slot.")
        self.waiting = self._gauge("num_requests_waiting", "Requests that wait for a slot.")
        self.slots = self._gauge("slots", "Slots of the engine.")
        self.cache_usage = self._gauge("kv_cache_usage_perc", "Share of the cache that running samples fill.")
        self.prefix_queries = self._counter("prefix_cache_queries", "Prompt tokens looked up in the cache.")
        self.prefix_hits = self._counter("prefix_cache_hits", "Prompt tokens found in the cache.")
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts.")
        self.generation_tokens = self._counter("generation_tokens", "Generated tokens.")
        self.success = self._counter("request_success", "Ended choices.", "finished_reason")
        self.rejected = self._counter("rejected", "Refused requests.", "reason")
        self.cancelled = self._counter("cancelled", "Requests whose client went away.")
        self.handshakes = self._counter(
            "tls_handshakes",
            "Handshakes of TLS; those started and not completed failed or still go on.",
            "state",
        )
        self.restarts = self._counter("engine_restarts", "Times that the engine was started again.")
        self.ticks = self._counter("iterations", "Ticks of the engine.")
        self.first_token = self._histogram("time_to_first_token_seconds", "From arrival to the first token.")
        self.gap = self._histogram("inter_token_latency_seconds", "Between two tokens of a choice.", _GAPS)
        self.total = self._histogram("e2e_request_latency_seconds", "From arrival to the end.")
        self.queue = self._histogram("request_queue_time_seconds", "From arrival to a slot.")
        self.prefill = self._histogram("request_prefill_time_seconds", "From a slot to the first token.")
        self.decode = self._histogram("request_decode_time_seconds", "From the first token to the end.")
        self.request_prompt = self._histogram(
            "request_prompt_tokens", "Tokens of a request's prompts.", _TOKENS
        )
        self.request_generated = self._histogram(
            "request_generation_tokens", "Tokens generated for a request.", _TOKENS
        )
        self.iteration = self._histogram("iteration_tokens_total", "Tokens of one tick.", _TOKENS)
        self._seen: dict[str, float] = {}

    def text(self, beat: Mapping[str, Any], load: Mapping[str, Any], restarts: int) -> bytes:
        """All figures in Prometheus' text form.

        Args:
            beat: The engine's last sign of life.
            load: See State.load.
            restarts: Since the server's start.
        """
        self.running.set(load["running"])
        self.waiting.set(load["waiting"])
        self.slots.set(load["slots"])
        self.cache_usage.set(beat.get("used_slots", 0) / max(1, beat.get("all_slots", 1)))
        self._advance(self.restarts, "restarts", restarts)
        for counter, name in (
            (self.prefix_queries, "prefix_queries"),
            (self.prefix_hits, "prefix_hits"),
            (self.ticks, "ticks"),
        ):
            self._advance(counter, name, beat.get(name, 0))
        return generate_latest(self.registry)

    def _advance(self, counter: Counter, name: str, value: float) -> None:
        """Raises a counter to what the engine counts; a new engine begins at 0 again."""
        before = self._seen.get(name, 0)
        counter.inc(value - before if value >= before else value)
        self._seen[name] = value

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"pangu:{name}", text, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"pangu:{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        return Histogram(f"pangu:{name}", text, buckets=buckets, registry=self.registry)
