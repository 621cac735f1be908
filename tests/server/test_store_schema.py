import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from server import store_schema as schema
from server.store import Store, StoreError


async def refusal(path: Path) -> StoreError:
    with pytest.raises(StoreError) as caught:
        async with Store.open(path):
            pass
    assert str(path) not in str(caught.value)
    return caught.value


def versions(path: Path) -> list[int]:
    reader = sqlite3.connect(path)
    try:
        return [row[0] for row in reader.execute("SELECT version FROM schema_version")]
    finally:
        reader.close()


async def test_migrations_are_applied_once(tmp_path: Path) -> None:
    for _ in range(3):
        async with Store.open(tmp_path / "store.sqlite3"):
            pass
    assert versions(tmp_path / "store.sqlite3") == [1]


def test_migrations_make_the_tables_that_the_code_declares() -> None:
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        schema.migrate(connection)
        found = sa.MetaData()
        found.reflect(connection)
    engine.dispose()
    assert set(found.tables) == set(schema.metadata.tables)
    for name, declared in schema.metadata.tables.items():
        table = found.tables[name]
        assert [
            (c.name, c.primary_key, c.nullable, c.type.python_type) for c in declared.columns
        ] == [(c.name, c.primary_key, c.nullable, c.type.python_type) for c in table.columns]
        assert {i.name for i in declared.indexes} == {i.name for i in table.indexes}
        assert {k.target_fullname for k in declared.foreign_keys} == {
            k.target_fullname for k in table.foreign_keys
        }


async def test_a_migration_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.sqlite3"
    halfway = [["CREATE TABLE first (id INTEGER)", "CREATE TABLE first (id INTEGER)"]]
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_migrations", lambda: halfway)
        assert (await refusal(path)).code == "error"
    reader = sqlite3.connect(path)
    assert reader.execute("SELECT name FROM sqlite_master").fetchall() == []
    reader.close()
    async with Store.open(path):
        pass
    assert versions(path) == [1]


async def test_a_store_from_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    async with Store.open(path):
        pass
    writer = sqlite3.connect(path)
    writer.execute("INSERT INTO schema_version VALUES (99)")
    writer.commit()
    writer.close()
    error = await refusal(path)
    assert error.code == "newer"
    assert "newer roomscribe" in str(error)
    assert versions(path) == [1, 99]


async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    path.write_bytes(b"not a database, " * 500)
    assert (await refusal(path)).code == "corrupt"
    assert path.read_bytes() == b"not a database, " * 500


async def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    async with Store.open(path):
        pass
    sound = path.read_bytes()
    path.write_bytes(sound[:4096] + b"\xff" * (len(sound) - 4096))
    assert (await refusal(path)).code == "corrupt"


async def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    error = await refusal(tmp_path / "data" / "store.sqlite3")
    assert error.code == "unwritable"
    assert "DATA_DIR" in str(error)


async def test_a_folder_in_the_files_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite3").mkdir()
    assert (await refusal(tmp_path / "store.sqlite3")).code == "unwritable"


async def test_a_store_locked_by_another_process_at_start_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        assert (await refusal(path)).code == "locked"
    finally:
        other.close()


async def test_only_the_servers_user_can_read_what_was_said(tmp_path: Path) -> None:
    path = tmp_path / "data" / "store.sqlite3"
    async with Store.open(path):
        files = list(path.parent.iterdir())
        assert path in files
        assert {file.stat().st_mode & 0o077 for file in [path.parent, *files]} == {0}


async def test_each_connection_syncs_its_commits_and_checks_its_references(tmp_path: Path) -> None:
    engine = await schema.open_engine(tmp_path / "store.sqlite3")
    try:
        async with engine.connect() as connection:
            assert await connection.scalar(sa.text("PRAGMA journal_mode")) == "wal"
            assert await connection.scalar(sa.text("PRAGMA synchronous")) == 2
            assert await connection.scalar(sa.text("PRAGMA foreign_keys")) == 1
    finally:
        await engine.dispose()


async def test_a_second_server_on_the_same_store_is_refused_while_the_first_lives(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.sqlite3"
    async with Store.open(path):
        assert (await refusal(path)).code == "in_use"
    async with Store.open(path):
        pass
