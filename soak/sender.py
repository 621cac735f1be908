"""A paced thread that sends every speaker's packets.

Speakers are spread over slots of 5 ms, so that the load is even. What the network does to
packets (loss, jitter, reordering) happens here, from a seed, so that a run can be repeated.
"""

import heapq
import random
import struct
import threading
import time
from dataclasses import dataclass

from soak.peer import LoadPeer
from soak.speech import Speech

_SLOT_S = 0.005
_HEADER = struct.Struct("!BBHII")


@dataclass(frozen=True, slots=True)
class Network:
    """What happens to packets on the way."""

    loss: float = 0.0
    jitter_ms: float = 0.0
    reorder: float = 0.0
    seed: int = 1


@dataclass(slots=True)
class Talker:
    """One speaker's place in the speech."""

    peer: LoadPeer
    speech: Speech
    is_talking: bool = True
    dtx: bool = True
    at: int = 0
    silent: int = 0


@dataclass(slots=True)
class Sent:
    packets: int = 0
    lost: int = 0
    dtx: int = 0
    audio_s: float = 0.0  # on the speakers' clocks, silence that DTX left out included
    late_s: float = 0.0  # how far the thread itself was behind at worst
    errors: int = 0


class Sender(threading.Thread):
    def __init__(self, network: Network = Network()) -> None:
        super().__init__(name="load-sender", daemon=True)
        self.sent = Sent()
        self._network = network
        self._random = random.Random(network.seed)
        self._lock = threading.Lock()
        self._slots: list[list[Talker]] = [[] for _ in range(12)]  # 60 ms around
        self._delayed: list[tuple[float, int, LoadPeer, bytes]] = []
        self._count = 0
        self._stopping = threading.Event()
        self._added = 0

    def add(self, talker: Talker) -> None:
        talker.at = self._random.randrange(len(talker.speech.packets))
        every = talker.speech.packet_ms // 5
        with self._lock:
            for slot in range(self._added % every, len(self._slots), every):
                self._slots[slot].append(talker)
            self._added += 1

    def remove(self, peer: LoadPeer) -> None:
        with self._lock:
            for slot in self._slots:
                slot[:] = [talker for talker in slot if talker.peer is not peer]
            self._delayed = [entry for entry in self._delayed if entry[2] is not peer]
            heapq.heapify(self._delayed)

    def suffer(self, network: Network) -> None:
        """From now on the way is like that."""
        self._network = network

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def run(self) -> None:
        due, slot = time.monotonic(), 0
        while not self._stopping.is_set():
            with self._lock:
                for talker in self._slots[slot]:
                    self._send_next(talker)
                self._send_delayed(time.monotonic())
            slot = (slot + 1) % len(self._slots)
            due += _SLOT_S
            wait = due - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            else:
                self.sent.late_s = max(self.sent.late_s, -wait)

    def _send_next(self, talker: Talker) -> None:
        speech, peer, sent = talker.speech, talker.peer, self.sent
        packet = speech.packets[talker.at]
        talker.at = (talker.at + 1) % len(speech.packets)
        peer.timestamp = (peer.timestamp + speech.timestamp_step) & 0xFFFFFFFF
        sent.audio_s += speech.packet_ms / 1000
        if talker.dtx and (packet.is_silence or not talker.is_talking):
            # libopus sends one of these every 400 ms, to keep the other end's noise alive
            talker.silent += speech.packet_ms
            if talker.silent < 400:
                sent.dtx += 1
                return
            talker.silent = 0
        peer.sequence = (peer.sequence + 1) & 0xFFFF
        sent.packets += 1
        if self._network.loss and self._random.random() < self._network.loss:
            sent.lost += 1
            return
        payload = packet.payload if talker.is_talking else _silence(packet.payload)
        level = packet.level if talker.is_talking else 127
        datagram = peer.protect(_rtp(peer, payload, level))
        delay_s = self._delay_s()
        if delay_s:
            self._count += 1
            entry = (time.monotonic() + delay_s, self._count, peer, datagram)
            heapq.heappush(self._delayed, entry)
        else:
            self._send(peer, datagram)

    def _delay_s(self) -> float:
        network = self._network
        if network.reorder and self._random.random() < network.reorder:
            return 0.03
        return self._random.random() * network.jitter_ms / 1000 if network.jitter_ms else 0.0

    def _send_delayed(self, now: float) -> None:
        while self._delayed and self._delayed[0][0] <= now:
            _, _, peer, datagram = heapq.heappop(self._delayed)
            self._send(peer, datagram)

    def _send(self, peer: LoadPeer, datagram: bytes) -> None:
        try:
            peer.send(datagram)
        except OSError:
            self.sent.errors += 1


def _rtp(peer: LoadPeer, payload: bytes, level: int) -> bytes:
    level_id = peer.wanted.level_id
    first = 0x80 if level_id is None else 0x90
    header = _HEADER.pack(first, peer.payload_type, peer.sequence, peer.timestamp, peer.ssrc)
    if level_id is None:
        return header + payload
    voice = 0x80 if level < 60 else 0
    extension = bytes((0xBE, 0xDE, 0, 1, level_id << 4, voice | level, 0, 0))
    return header + extension + payload


def _silence(payload: bytes) -> bytes:
    """A packet of the same kind that holds nothing: its table of contents alone."""
    return payload[:1]
