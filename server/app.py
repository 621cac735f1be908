"""`serve()`: builds the house, opens the doors, and shuts down in order.

Shutdown: accept no one, end the feeds, flush the finals (5 s), close peers and sockets, stop
the worker, close the store.
"""

import asyncio
import errno
import logging
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from media.ice import gather_on, interface_addresses, meet_only
from media.opus import opus_source
from media.private import share_certificate
from server.admission import Admission, Ceilings
from server.config import Settings, engine_options
from server.doors import doors_of
from server.house import House
from server.housekeeping import Housekeeping, collections_by_hand
from server.limits import Limits
from server.lobby import Lobby
from server.metrics import Metrics
from server.observer import Observer
from server.routes import Routes
from server.store import Store
from server.talk import Talk
from server.tls import BadCertificate, Certificate, certificate_of
from transcriber.client import EngineClient
from transcriber.process import WorkerProcess
from transcriber.shared import SharedWorker
from transcriber.types import BatchReport, EngineStatus
from transcriber.vad import make_vad

# How long the rest of a body is awaited that nobody wants any more.
_LINGER_S = 1.0

log = logging.getLogger("roomscribe.server")


class CannotListen(Exception):
    """The address cannot be had. The message is one line for an operator."""


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises `CannotListen`, `StoreError`."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(settings) as server:
        log.info("serving", extra={"host": settings.server.host, "port": server.port})
        with collections_by_hand():
            print(f"roomscribe serves at {server.url}", flush=True)  # noqa: T201 - for the person who started it
            await stop.wait()
        log.info("shutting down")


@dataclass(frozen=True, slots=True)
class Running:
    """A server that serves."""

    scheme: str
    host: str
    port: int
    lobby: Lobby
    talk: Talk

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """A server for as long as the context. Raises `CannotListen`, `StoreError`."""
    certificate = _certificate(settings)
    share_certificate()
    make_vad(settings.transcriber.vad)  # loads its model before anyone speaks
    own = gather_on(settings.media.host_addresses, loopback=settings.server.is_loopback)
    async with Store.open(_database(settings.data_dir)) as store:
        lobby = _lobby(settings, store)
        meet_only(
            settings.media.allowed_networks, own, lambda: lobby.note_limit("allowed_networks")
        )
        observer = Observer(lobby)
        talk = Talk(settings.talk, lobby)
        runner = web.AppRunner(
            Routes(lobby, observer, talk).application(),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=2.0,
            keepalive_timeout=settings.limits.idle_connection_s,
            lingering_time=_LINGER_S,
        )
        housekeeping = Housekeeping(observer.speakers, time.monotonic())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(store.run(), name="store")
            background = [
                tasks.create_task(observer.run(), name="observer"),
                tasks.create_task(housekeeping.run(), name="housekeeping"),
                tasks.create_task(lobby.house.doors.run(), name="doors"),
            ]
            rooms = tasks.create_task(lobby.run(), name="lobby")
            try:
                calls = tasks.create_task(talk.run(), name="talk")
                port = await _listen(runner, settings, certificate)
                if certificate is not None:
                    background.append(tasks.create_task(certificate.run(), name="certificate"))
                log.info("opus decoder", extra={"source": opus_source()})
                # Not before: a worker that is stopped while it starts says so, too.
                engine = lobby.house.engine
                background.append(tasks.create_task(engine.run(), name="worker-process"))
                scheme = "http" if certificate is None else "https"
                yield Running(scheme, settings.server.host, port, lobby, talk)
            finally:
                await talk.close()
                await lobby.close()
                await asyncio.wait({rooms, calls})
                await runner.cleanup()
                for task in background:
                    task.cancel()
                await store.close()


def _lobby(settings: Settings, store: Store) -> Lobby:
    lobby: Lobby

    def on_status(status: EngineStatus) -> None:
        lobby.engine_changed(status)

    def on_batch(report: BatchReport) -> None:
        lobby.batch_done(report)

    options = engine_options(settings.transcriber)
    engine: EngineClient
    if settings.transcriber.socket:
        socket = Path(settings.transcriber.socket)
        engine = SharedWorker(socket, options, on_status=on_status, on_batch=on_batch)
    else:
        engine = WorkerProcess(options, on_status=on_status, on_batch=on_batch)
    ceilings = settings.admission
    admission = Admission(
        Ceilings(
            ceilings.max_loop_lag_ms / 1000,
            ceilings.max_cpu,
            ceilings.max_memory,
            ceilings.max_speakers,
            ceilings.max_files,
        )
    )
    metrics = Metrics()
    metrics.opus_source.labels(opus_source()).set(1)
    limits = Limits(settings.limits, metrics.note_limit)
    lobby = Lobby(House(settings, metrics, store, engine, doors_of(settings), limits, admission))
    return lobby


def _certificate(settings: Settings) -> Certificate | None:
    """Raises `CannotListen`."""
    try:
        return certificate_of(
            settings.server.tls, settings.data_dir / "tls", interface_addresses(True, True)
        )
    except BadCertificate as error:
        raise CannotListen(str(error)) from None


async def _listen(
    runner: web.AppRunner, settings: Settings, certificate: Certificate | None
) -> int:
    await runner.setup()
    host, port = settings.server.host, settings.server.port
    try:
        context = certificate.context if certificate is not None else None
        await web.TCPSite(runner, host, port, ssl_context=context).start()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotListen(
                f"port {port} on {host} is in use; choose another with SERVER__PORT"
            ) from None
        raise CannotListen(f"cannot listen on {host} port {port}: {error.strerror}") from None
    return int(runner.addresses[0][1])


def _database(data_dir: Path) -> Path:
    return data_dir / "roomscribe.sqlite3"
