"""A loop for what is fuzzed, in which nothing fails unseen and nothing stays behind."""

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar

from media.sockets import MediaLoop

T = TypeVar("T")

# Far longer than anything here takes; a task that is still there does not end at all.
_SETTLED_WITHIN_S = 10.0


class Unexpected(AssertionError):
    """A parser did something else than to take its input or to refuse it."""


class _Told(logging.Handler):
    """Keeps what is logged as an error, and contained exceptions at any level that is on."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self.setFormatter(logging.Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.exc_info:
            self.messages.append(self.format(record))


class Bench:
    """Runs coroutines to their end, and everything that they began."""

    def __init__(self) -> None:
        self._loop = MediaLoop()
        self._loop.set_exception_handler(self._note)
        self._loop.set_task_factory(self._make_task)
        self._told = _Told()
        self._begun: list[asyncio.Task[Any]] = []

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Raises `Unexpected` for what fails unseen, for errors in the log and for a task that
        does not end."""
        self._begun.clear()
        self._told.messages.clear()
        logging.getLogger().addHandler(self._told)
        try:
            self._loop.run_until_complete(coroutine)
            self._loop.run_until_complete(self._settle())
        finally:
            logging.getLogger().removeHandler(self._told)
        # what the last holder of a task would learn when it goes
        failed = [t for t in self._begun if t.done() and getattr(t, "_log_traceback", False)]
        told = [*self._told.messages, *(f"failed unseen: {t.exception()!r}" for t in failed)]
        if told:
            raise Unexpected("\n".join(told))

    @contextmanager
    def held(self, opened: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """What is opened and closed by one task, and lives on between the runs."""
        entered: asyncio.Future[T] = self._loop.create_future()
        done = asyncio.Event()

        async def hold() -> None:
            async with opened as value:
                entered.set_result(value)
                await done.wait()

        holder = self._loop.create_task(hold())
        holder.add_done_callback(lambda ended: entered.done() or entered.cancel())
        try:
            value = self._loop.run_until_complete(entered)
        except asyncio.CancelledError:
            holder.result()  # raises what kept it from opening
            raise
        try:
            yield value
        finally:
            done.set()
            self._loop.run_until_complete(holder)

    def close(self) -> None:
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **more)
        self._begun.append(task)
        return task

    def _note(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._told.messages.append(f"{context['message']}: {context.get('exception')!r}")

    async def _settle(self) -> None:
        """Wait for the tasks that this run began."""
        me = asyncio.current_task()
        while left := {t for t in self._begun if not t.done() and t is not me}:
            _, late = await asyncio.wait(left, timeout=_SETTLED_WITHIN_S)
            if late:
                raise Unexpected(f"does not end: {late}")


@contextmanager
def bench() -> Iterator[Bench]:
    opened = Bench()
    try:
        yield opened
    finally:
        opened.close()
