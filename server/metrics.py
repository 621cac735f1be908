"""Every metric's name, label and bucket. No room and no person stands in a label."""

from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics import MetricWrapperBase

# A live service is judged between a tenth of a second and some seconds.
_LIVE_BUCKETS = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_LAG_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32)
_FACTOR_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0)


class Metrics:
    """One registry per server, so that tests can run several in one process."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series each, unasked for
        self.registry = CollectorRegistry()
        r = self.registry
        self.rooms = Gauge("roomscribe_rooms", "Rooms that exist", registry=r)
        self.participants = Gauge(
            "roomscribe_participants", "Participants in all rooms", registry=r
        )
        self.speakers = Gauge("roomscribe_speakers", "Participants with a peer", registry=r)
        self.admissible = Gauge(
            "roomscribe_admissible_speakers",
            "How many more speakers would fit, by what those here cost",
            registry=r,
        )
        self.refused = Counter(
            "roomscribe_speakers_refused_total", "Speakers turned away", ["reason"], registry=r
        )
        self.opus_source = Gauge(
            "roomscribe_opus_decoder", "1 for where libopus comes from", ["source"], registry=r
        )
        self.peers = Gauge("roomscribe_peers", "Peers by state", ["state"], registry=r)
        self.listeners = Gauge(
            "roomscribe_listeners", "Those who read captions, by way", ["way"], registry=r
        )
        self.audio_s = Counter(
            "roomscribe_audio_seconds_total",
            "Where speakers' audio went: heard, concealed, silence, network, overload",
            ["fate"],
            registry=r,
        )
        self.fate_s = Counter(
            "roomscribe_speech_seconds_total",
            "What became of speakers' audio: transcribed, silence, or lost to network, overload, "
            "engine; these sum to all that came, but for what is on its way",
            ["fate"],
            registry=r,
        )
        self.vad_frames = Counter(
            "roomscribe_vad_frames_total",
            "Frames of 32 ms: judged, or skipped as too quiet for speech",
            ["how"],
            registry=r,
        )
        self.never_said = Counter(
            "roomscribe_text_never_said_total",
            "Texts that an engine wrote and nobody said, by what gave them away",
            ["reason"],
            registry=r,
        )
        self.batch_limit = Gauge(
            "roomscribe_batch_limit", "Most windows in a batch at the moment", registry=r
        )
        self.chunks_dropped = Counter(
            "roomscribe_chunks_dropped_total",
            "Chunks of 100 ms that were dropped",
            ["reason"],
            registry=r,
        )
        self.packets_lost = Counter(
            "roomscribe_packets_lost_total", "RTP packets that never came", registry=r
        )
        self.packets_unused = Counter(
            "roomscribe_packets_unused_total",
            "RTP packets that came and were not used: late, undecodable, rejected, unknown",
            ["reason"],
            registry=r,
        )
        self.restored_s = Counter(
            "roomscribe_audio_restored_seconds_total",
            "Lost audio that the next packet brought a copy of; counted as concealed, too",
            registry=r,
        )
        self.feed_fullness = Gauge(
            "roomscribe_feed_fullness", "The fullest feed, 0 to 1", registry=r
        )
        self.windows_pending = Gauge(
            "roomscribe_windows_pending", "Windows given to the engine, unanswered", registry=r
        )
        self.windows_queued = Gauge(
            "roomscribe_windows_queued", "Windows that waited when the last batch ended", registry=r
        )
        self.batch_size = Histogram(
            "roomscribe_batch_windows",
            "Windows in a batch",
            buckets=_BATCH_BUCKETS,
            registry=r,
        )
        self.queue_age_s = Histogram(
            "roomscribe_queue_age_seconds",
            "Age of the oldest window when a batch began",
            buckets=_LIVE_BUCKETS,
            registry=r,
        )
        self.engine_s = Histogram(
            "roomscribe_engine_seconds", "Time of a batch", buckets=_LIVE_BUCKETS, registry=r
        )
        self.real_time_factor = Histogram(
            "roomscribe_real_time_factor",
            "Time of a batch per second of its audio",
            buckets=_FACTOR_BUCKETS,
            registry=r,
        )
        self.engine_up = Gauge("roomscribe_engine_ready", "1 while the engine is ready", registry=r)
        self.engine_restarts = Counter(
            "roomscribe_engine_restarts_total", "Times the worker was replaced", registry=r
        )
        self.first_text_s = Histogram(
            "roomscribe_first_text_seconds",
            "From the start of speech to the first text of an utterance",
            buckets=_LIVE_BUCKETS,
            registry=r,
        )
        self.final_s = Histogram(
            "roomscribe_final_seconds",
            "From the end of speech to its final",
            buckets=_LIVE_BUCKETS,
            registry=r,
        )
        self.captions = Counter(
            "roomscribe_captions_total", "Captions by kind: interim, final", ["kind"], registry=r
        )
        self.captions_skipped = Counter(
            "roomscribe_captions_skipped_total",
            "Interims not sent to a listener who was behind",
            registry=r,
        )
        self.listeners_dropped = Counter(
            "roomscribe_listeners_dropped_total", "Listeners who never read", registry=r
        )
        self.words = Counter(
            "roomscribe_words_total", "Words shown, and of these taken back", ["what"], registry=r
        )
        self.gap_s = Counter(
            "roomscribe_gap_seconds_total", "Lost audio that was shown", ["reason"], registry=r
        )
        self.speakers_failed = Counter(
            "roomscribe_speakers_failed_total",
            "Speakers whose pipeline raised",
            registry=r,
        )
        self.calls = Gauge("roomscribe_talk_calls", "Calls that the bot is in", registry=r)
        self.joins = Counter("roomscribe_joins_total", "Joins by outcome", ["outcome"], registry=r)
        self.limited = Counter(
            "roomscribe_limited_total",
            "Times someone came to a limit, by the name of its setting",
            ["limit"],
            registry=r,
        )
        self.store_pending = Gauge(
            "roomscribe_store_pending", "Records not written yet", registry=r
        )
        self.store_lost = Gauge(
            "roomscribe_store_lost", "Records that could not be kept", registry=r
        )
        self.store_up = Gauge("roomscribe_store_ok", "1 while writing works", registry=r)
        self.loop_lag_s = Histogram(
            "roomscribe_event_loop_lag_seconds",
            "How late the event loop was",
            buckets=_LAG_BUCKETS,
            registry=r,
        )
        self.tasks = Gauge("roomscribe_tasks", "Tasks of the event loop", registry=r)
        self.memory_bytes = Gauge(
            "roomscribe_memory_bytes", "Resident memory of the server", registry=r
        )
        self.open_files = Gauge(
            "roomscribe_open_files", "Files and sockets that the server has open", registry=r
        )
        self.open_files_limit = Gauge(
            "roomscribe_open_files_limit", "How many the server may have open", registry=r
        )

        self._begin()

    def _begin(self) -> None:
        """Series from the start, at 0: what begins at its first event has no rate for it, and what
        never happened no share."""
        for fate in ("heard", "concealed", "silence", "network", "overload"):
            self.audio_s.labels(fate)
        for fate in ("transcribed", "silence", "overload", "network", "engine"):
            self.fate_s.labels(fate)
        for kind in ("interim", "final"):
            self.captions.labels(kind)
        self.chunks_dropped.labels("overload")

    def note_limit(self, limit: str) -> None:
        self.limited.labels(limit).inc()

    def render(self) -> bytes:
        return generate_latest(self.registry)

    def describe(self) -> Iterator[tuple[str, str, str, str]]:
        """Name, kind, labels and meaning of each."""
        for metric in vars(self).values():
            if isinstance(metric, MetricWrapperBase):
                (family,) = metric.describe()
                # a counter's name is told without its ending
                ending = "_total" if family.type == "counter" else ""
                labels = ", ".join(metric._labelnames)
                yield family.name + ending, family.type, labels, family.documentation
