"""The store's tables, its migrations, and the one way to open its file.

It owns everything that is SQLite's own (pragmas, error names, file modes), so that the queue and
the queries of `server/store.py` are plain SQLAlchemy Core. It refuses to know what a record means.
"""

import asyncio
import fcntl
import importlib.resources
import json
import logging
import os
import sqlite3
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry

T = TypeVar("T")

# How long a statement waits for another process's lock before it fails and is tried again later.
BUSY_S = 0.5
# One for the writer, the rest for exports and replays; each costs a thread.
CONNECTIONS = 4

metadata = sa.MetaData()
# NOT NULL and DOUBLE are as in the migrations; `words` is a list of [word, start, end, confidence],
# and the voice where that was told
room = sa.Table(
    "room",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("language", sa.Text, nullable=False),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("ended_at", sa.Double),
    sa.Index("room_by_name", "name", "started_at"),
)
participant = sa.Table(
    "participant",
    metadata,
    sa.Column("room_id", sa.ForeignKey(room.c.id), primary_key=True),
    sa.Column("participant", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("joined_at", sa.Double, nullable=False),
    sa.Column("left_at", sa.Double),
)
segment = sa.Table(
    "segment",
    metadata,
    sa.Column("room_id", sa.ForeignKey(room.c.id), primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("segment", sa.Text, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("participant", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("language", sa.Text, nullable=False),
    sa.Column("start_s", sa.Double, nullable=False),
    sa.Column("end_s", sa.Double, nullable=False),
    sa.Column("spoken_at", sa.Double, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("words", sa.JSON, nullable=False),
)
gap = sa.Table(
    "gap",
    metadata,
    sa.Column("room_id", sa.ForeignKey(room.c.id), primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("participant", sa.Text, nullable=False),
    sa.Column("start_s", sa.Double, nullable=False),
    sa.Column("end_s", sa.Double, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("happened_at", sa.Double, nullable=False),
)
schema_version = sa.Table(
    "schema_version",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
)

_MESSAGES = {
    "corrupt": "The transcript store in DATA_DIR is damaged or is not a database; "
    "move it away to start with a new one",
    "disk_full": "The transcript store in DATA_DIR cannot be opened: the disk is full",
    "locked": "The transcript store in DATA_DIR is locked by another process",
    "newer": "The transcript store in DATA_DIR was written by a newer roomscribe",
    "unwritable": "DATA_DIR cannot be written to; check that it is a folder and whose it is",
    "in_use": "DATA_DIR is in use by another roomscribe; give each server a folder of its own",
    "error": "The transcript store in DATA_DIR cannot be used",
    "closed": "The transcript store is closed",
}


class StoreError(Exception):
    """The store cannot be opened or read. `code` is one of `corrupt`, `disk_full`, `locked`,
    `newer`, `unwritable`, `in_use`, `closed`, `error`; the message is for the person who
    runs the server and names no path and no one's words."""

    def __init__(self, code: str) -> None:
        super().__init__(_MESSAGES[code])
        self.code = code


def fault_code(error: BaseException) -> str:
    """What went wrong, as a `StoreError.code`."""
    name = getattr(getattr(error, "orig", None), "sqlite_errorname", "")
    if name == "SQLITE_IOERR_SHMSIZE":
        return "disk_full"  # what a full disk says where the shared memory of the WAL begins
    match name.split("_")[:2]:
        case ["SQLITE", "FULL"]:
            return "disk_full"
        case ["SQLITE", "BUSY" | "LOCKED"]:
            return "locked"
        case ["SQLITE", "CORRUPT" | "NOTADB"]:
            return "corrupt"
        case ["SQLITE", "READONLY" | "CANTOPEN" | "PERM"]:
            return "unwritable"
    return "unwritable" if isinstance(error, OSError) else "error"


async def to_the_end(work: Coroutine[object, object, T]) -> T:
    """Await `work`; a caller that is cancelled meanwhile waits for its end first.

    sqlite3 closes a connection for real only when its last cursor is gone, and a statement that
    is cancelled under way leaves one in a traceback: its transaction would then keep its lock.
    What is awaited here is short: `BUSY_S` and what the disk takes.
    """
    task = asyncio.create_task(work, name="a transaction of the store")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


@contextmanager
def sole_owner(path: Path) -> Iterator[None]:
    """Keep other servers off the database at `path`: a second one would end our open rooms.

    The lock goes with the process, however that ends. Raises `StoreError`.
    """
    lock = -1
    try:
        _make_private_file(path)
        lock = os.open(path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StoreError("in_use") from None
    except OSError as error:
        raise StoreError(fault_code(error)) from error
    try:
        yield
    finally:
        os.close(lock)


async def open_engine(path: Path) -> AsyncEngine:
    """The database at `path`, made or brought up to date. The caller disposes of it.

    Raises `StoreError`.
    """
    # it logs each statement with its parameters, which are people's words, at DEBUG
    logging.getLogger("aiosqlite").setLevel(logging.INFO)
    engine = create_async_engine(
        sa.URL.create("sqlite+aiosqlite", database=str(path)),
        connect_args={"timeout": BUSY_S},
        poolclass=AsyncAdaptedQueuePool,
        pool_size=CONNECTIONS,
        max_overflow=0,
        hide_parameters=True,
        json_serializer=partial(json.dumps, ensure_ascii=False, separators=(",", ":")),
    )
    event.listen(engine.sync_engine, "connect", _set_pragmas)
    event.listen(engine.sync_engine, "begin", _begin)
    try:
        _make_private_file(path)
        await to_the_end(_bring_up_to_date(engine))
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        await to_the_end(engine.dispose())
        raise StoreError(fault_code(error)) from error
    except BaseException:
        await to_the_end(engine.dispose())
        raise
    return engine


async def _bring_up_to_date(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(migrate)


def migrate(connection: sa.Connection) -> None:
    """Apply what is missing, within the caller's transaction. Raises `StoreError("newer")`."""
    migrations = _migrations()
    schema_version.create(connection, checkfirst=True)
    version = connection.scalar(sa.select(sa.func.max(schema_version.c.version))) or 0
    if version > len(migrations):
        raise StoreError("newer")
    for number, statements in enumerate(migrations[version:], start=version + 1):
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.execute(schema_version.insert().values(version=number))


def _migrations() -> list[list[str]]:
    folder = importlib.resources.files("server.migrations")
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".sql")),
        key=lambda file: file.name,
    )
    assert [int(file.name[:4]) for file in files] == list(range(1, len(files) + 1))
    return [
        [statement for statement in file.read_text().split(";\n") if statement.strip()]
        for file in files
    ]


def _make_private_file(path: Path) -> None:
    """What people said is the server's user's alone to read; SQLite's side files follow it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)


def _set_pragmas(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # a commit is on the disk when it returns: two a second at most, so its price is no matter
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    # 256 KiB instead of 2 MiB of each connection: what is read again is little
    cursor.execute("PRAGMA cache_size=-256")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    # by itself sqlite3 begins no transaction for DDL or for reads
    connection.exec_driver_sql("BEGIN")
