"""`EngineClient`: a server's end of a worker, wherever that runs.

Holds every final until it is answered, so that a worker that dies loses none: the next one
gets them again. A final that is given twice without an answer is answered as lost to the
engine, and so is each while the engine cannot start. Interims are not repeated; newer audio
will bring a newer one.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from transcriber import protocol
from transcriber.engines import EngineOptions, expected_info
from transcriber.errors import WorkerError
from transcriber.types import (
    BatchReport,
    EngineState,
    EngineStatus,
    GapReason,
    Hypothesis,
    StreamId,
    Window,
)
from transcriber.worker import given_up

_GIVEN_AT_MOST = 2
_HELD_AT_MOST = 20  # finals of a speaker, while there is no worker
_PROVEN_WITHIN_S = 20.0
_WRITE_CEILING_BYTES = 64 << 20
# Each costs the server about 0.4 ms, from the cut to the caption.
_INTERIMS_PER_S = 40

log = logging.getLogger("roomscribe.engine")


@dataclass(slots=True)
class _Held:
    window: Window
    given: int = 0


class EngineClient:
    """`run` of what inherits it, in a task of its own; `offer` and `attach` from the same event
    loop."""

    def __init__(
        self,
        options: EngineOptions,
        *,
        on_status: Callable[[EngineStatus], None] = lambda _status: None,
        on_batch: Callable[[BatchReport], None] = lambda _report: None,
    ) -> None:
        self._on_status = on_status
        self._on_batch = on_batch
        self._receivers: dict[StreamId, Callable[[Hypothesis], None]] = {}
        self._finals: dict[tuple[StreamId, int], _Held] = {}
        self._interims: set[StreamId] = set()
        # The last interim of each: the next window goes on from it.
        self._sent: dict[StreamId, protocol.Sent] = {}
        self._writer: asyncio.StreamWriter | None = None
        self.restarts = 0
        self.ready = asyncio.Event()
        self.status = EngineStatus(EngineState.STARTING, expected_info(options))

    async def run(self) -> None:
        """Keep a worker at hand until cancelled."""
        raise NotImplementedError

    @property
    def pid(self) -> int | None:
        """The worker's process, if it is this server's own."""
        return None

    @property
    def pending(self) -> int:
        """Windows given to the worker, or waiting for one."""
        return len(self._finals) + len(self._interims)

    def attach(self, stream: StreamId, receive: Callable[[Hypothesis], None]) -> None:
        """Hypotheses of `stream` go to `receive`, in this event loop."""
        self._receivers[stream] = receive

    def detach(self, stream: StreamId) -> None:
        """The speaker is gone; what is pending of them is dropped."""
        self._receivers.pop(stream, None)
        self._interims.discard(stream)
        self._sent.pop(stream, None)
        for key in [key for key in self._finals if key[0] == stream]:
            del self._finals[key]
        if (line := self._line) is not None:
            line.write(protocol.encode(protocol.Forget(stream)))

    def offer(self, window: Window) -> bool:
        """Give a window to the worker; never waits.

        A final is kept until it is answered. An interim is refused (False) while one of its
        stream is unanswered or no worker is ready.
        """
        if window.is_final:
            held = _Held(window)
            self._finals[window.stream, window.utterance] = held
            self._give_up_oldest(window.stream)
            if (line := self._line) is not None:
                self._give(line, held)
            return True
        if (line := self._line) is None or window.stream in self._interims:
            return False
        if line.transport.get_write_buffer_size() > _WRITE_CEILING_BYTES:
            return False
        self._interims.add(window.stream)
        self._send(line, window)
        return True

    def _give_up_oldest(self, stream: StreamId) -> None:
        """A model may take long to be fetched: nobody's audio is held for all that time."""
        held = [key for key in self._finals if key[0] == stream]
        if self._writer is None and len(held) > _HELD_AT_MOST:
            lost = given_up(self._finals[held[0]].window, GapReason.OVERLOAD)
            # not in the turn of who offers another
            asyncio.get_running_loop().call_soon(self._settle, lost)

    @property
    def cadence_s(self) -> float:
        """So that those who speak ask for no more interims a second than this process can
        carry beside their audio."""
        return len(self._sent) / _INTERIMS_PER_S

    def can_take_interim(self, stream: StreamId) -> bool:
        return self._line is not None and stream not in self._interims

    @property
    def _line(self) -> asyncio.StreamWriter | None:
        """To a worker that is ready. One that has gone is seen here before `_converse` reads of
        it: uvloop raises where a connection is written to that is lost."""
        if self._writer is None or self._writer.is_closing():
            return None
        return self._writer

    async def _converse(self, socket: Path, key: bytes) -> None:
        reader, writer = await asyncio.open_unix_connection(socket)
        try:
            async with asyncio.timeout(_PROVEN_WITHIN_S):
                await protocol.prove(reader, writer, key)
            with contextlib.suppress(EOFError, ConnectionError):
                while True:
                    self._receive(await protocol.read(reader), writer)
        finally:
            self._writer = None
            writer.close()

    def _receive(self, message: protocol.Message, writer: asyncio.StreamWriter) -> None:
        match message:
            case EngineStatus():
                self.status = message
                if message.state is EngineState.READY:
                    self._writer = writer
                    self.ready.set()
                    for held in list(self._finals.values()):
                        self._give(writer, held)
                self._on_status(message)
            case Hypothesis():
                self._settle(message)
            case BatchReport():
                self._on_batch(message)
            case _:
                raise WorkerError("a message that only a server sends")

    def _settle(self, hypothesis: Hypothesis) -> None:
        if hypothesis.is_final:
            for utterance in (hypothesis.utterance, *hypothesis.absorbed):
                self._finals.pop((hypothesis.stream, utterance), None)
        else:
            self._interims.discard(hypothesis.stream)
        receive = self._receivers.get(hypothesis.stream)
        if receive is not None:
            receive(hypothesis)

    def _give(self, writer: asyncio.StreamWriter, held: _Held) -> None:
        self._send(writer, held.window)
        held.given += not writer.is_closing()  # else it was lost on its way

    def _send(self, writer: asyncio.StreamWriter, window: Window) -> None:
        before = self._sent.pop(window.stream, None)
        if not window.is_final:
            self._sent[window.stream] = protocol.Sent.of(window)
        writer.write(protocol.encode(window if before is None else before.rest_of(window)))

    @property
    def _last_words(self) -> str:
        """Why the worker said that it fails, if it did."""
        return self.status.message if self.status.state is EngineState.FAILED else ""

    def _gone(self, *, failed: bool, message: str) -> None:
        """The worker went, or never came: what is held is given to the next, or, where none can
        be expected soon, answered as lost."""
        self._note_lost(given_at_most=0 if failed else _GIVEN_AT_MOST)
        self.restarts += 1
        self._set_status(EngineState.FAILED if failed else EngineState.RESTARTING, message)

    def _note_lost(self, given_at_most: int) -> None:
        """The worker is gone: finals wait for the next, interims do not."""
        self.ready.clear()
        self._interims.clear()
        self._sent.clear()
        for held in [h for h in self._finals.values() if h.given >= given_at_most]:
            self._settle(given_up(held.window, GapReason.ENGINE))

    def _set_status(self, state: EngineState, message: str = "") -> None:
        self.status = replace(self.status, state=state, message=message)
        self._on_status(self.status)
