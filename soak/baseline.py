"""The usual aiortc server, as a baseline: `await track.recv()`, then soxr from 48 kHz.

Nothing else is done with the audio. It answers `POST /whip/{room}` and tells in `/metrics` how
much it heard and how late its loop was, by the names that roomscribe uses.
"""

import argparse
import asyncio
import time

import numpy as np
import soxr
import uvloop
from aiohttp import web
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from soak.host import gather_on_loopback

LAG_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)


class Baseline:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._heard = Counter(
            "roomscribe_audio_seconds_total", "Heard", ["fate"], registry=self.registry
        )
        self._lag = Histogram(
            "roomscribe_event_loop_lag_seconds", "Lag", buckets=LAG_BUCKETS, registry=self.registry
        )
        self._peers: dict[str, RTCPeerConnection] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def offer(self, request: web.Request) -> web.Response:
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))

        @peer.on("track")
        def on_track(track: MediaStreamTrack) -> None:
            task = asyncio.create_task(self._listen(track))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        await peer.setRemoteDescription(RTCSessionDescription(await request.text(), "offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        name = str(len(self._peers))
        self._peers[name] = peer
        return web.Response(
            status=201,
            text=peer.localDescription.sdp,
            content_type="application/sdp",
            headers={"Location": f"/whip/room/{name}"},
        )

    async def end(self, request: web.Request) -> web.Response:
        await self._peers[request.match_info["name"]].close()
        return web.Response()

    async def metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self.registry))

    async def watch(self, _app: web.Application) -> None:
        self._tasks.add(asyncio.create_task(self._measure_lag()))

    async def _measure_lag(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.02)
            self._lag.observe(max(0.0, time.monotonic() - before - 0.02))

    async def _listen(self, track: MediaStreamTrack) -> None:
        resampler = soxr.ResampleStream(48_000, 16_000, 1, dtype="float32", quality="MQ")
        heard = self._heard.labels("heard")
        try:
            while True:
                frame = await track.recv()
                samples = frame.to_ndarray().reshape(-1, 2).astype(np.float32) / 32768  # type: ignore[union-attr]
                pcm = resampler.resample_chunk(samples.mean(axis=1, dtype=np.float32))
                heard.inc(len(pcm) / 16_000)
        except MediaStreamError:
            pass


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m soak.baseline", description=__doc__)
    parser.add_argument("--port", type=int, default=8090)
    port = parser.parse_args().port
    gather_on_loopback()
    baseline = Baseline()
    app = web.Application()
    app.add_routes(
        [
            web.post("/whip/{room}", baseline.offer),
            web.delete("/whip/{room}/{name}", baseline.end),
            web.get("/metrics", baseline.metrics),
        ]
    )
    app.on_startup.append(baseline.watch)
    web.run_app(
        app, host="127.0.0.1", port=port, print=None, access_log=None, loop=uvloop.new_event_loop()
    )


if __name__ == "__main__":
    main()
