"""`Observer`: reads what the metrics show of the rooms, and how late the event loop is."""

import asyncio
import errno
import logging
import time

from media.sockets import until_next_sweep
from server import machine
from server.admission import Measured
from server.lobby import Lobby

_MEASURE_EVERY_S = 1.0

log = logging.getLogger("roomscribe.server")


class Observer:
    def __init__(self, lobby: Lobby) -> None:
        self._lobby = lobby
        self._last: Measured | None = None
        self._is_blind = False

    async def run(self) -> None:
        """Measure the event loop's lag, and each second what decides on admission, until
        cancelled."""
        metrics = self._lobby.house.metrics
        self._measure(0.0, 0.0)
        worst_s, cpu_s, since = 0.0, time.process_time(), time.monotonic()
        while True:
            # A stall shorter than a sweep may pass unseen, a longer one never.
            before = time.monotonic()
            pause_s = until_next_sweep(before)
            await asyncio.sleep(pause_s)
            now = time.monotonic()
            lag_s = max(0.0, now - before - pause_s)
            metrics.loop_lag_s.observe(lag_s)
            worst_s = max(worst_s, lag_s)
            if now - since >= _MEASURE_EVERY_S:
                used_s = time.process_time()
                self._measure(worst_s, (used_s - cpu_s) / (now - since))
                worst_s, cpu_s, since = 0.0, used_s, now

    def speakers(self) -> int:
        """Participants with a peer."""
        return sum(len(room.peers) for room in self._lobby.rooms.values())

    def _measure(self, loop_lag_s: float, cpu: float) -> None:
        try:
            used, limit = machine.memory()
            own, files = machine.resident_bytes(), machine.open_files()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            # There is no file left to look with; who is here is not to end with it.
            if not self._is_blind:
                log.warning("the machine cannot be measured", extra={"error": error.strerror})
            self._is_blind = True
            self._lobby.house.admission.none_left("files")
            return
        self._is_blind = False
        self._last = Measured(loop_lag_s, cpu, used, limit, own, *files, self.speakers())
        self._lobby.house.admission.measure(self._last)

    def collect(self) -> None:
        """Set the gauges; called on a scrape."""
        house, rooms = self._lobby.house, self._lobby.rooms.values()
        metrics = house.metrics
        for room in rooms:
            room.count_audio()
        metrics.rooms.set(len(rooms))
        metrics.participants.set(sum(len(room.participants) for room in rooms))
        metrics.speakers.set(self.speakers())
        peers = [peer for room in rooms for peer in room.peers]
        for state in ("new", "connecting", "connected", "failed", "closed"):
            metrics.peers.labels(state).set(sum(peer.state == state for peer in peers))
        metrics.feed_fullness.set(max((peer.feed.fullness for peer in peers), default=0.0))
        everyone = [p for room in rooms for p in room.participants.values()]
        by_channel = [p for p in everyone if p.peer is not None and p.peer.has_open_channel]
        by_socket = [p for p in everyone if p.outbox is not None and p not in by_channel]
        metrics.listeners.labels("data_channel").set(len(by_channel))
        metrics.listeners.labels("websocket").set(len(by_socket))
        metrics.listeners.labels("sse").set(sum(room.sse_listeners for room in rooms))
        metrics.windows_pending.set(house.engine.pending)
        store = house.store.health
        metrics.store_up.set(store.ok)
        metrics.store_pending.set(store.pending)
        metrics.store_lost.set(store.lost)
        metrics.tasks.set(len(asyncio.all_tasks()))
        if self._last is not None:
            metrics.memory_bytes.set(self._last.own_bytes)
            metrics.open_files.set(self._last.files)
            metrics.open_files_limit.set(self._last.files_limit)
        metrics.admissible.set(house.admission.admissible)
