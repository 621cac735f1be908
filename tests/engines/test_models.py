import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from tests.engines.hub import COMMIT, FILES, Hub, serving
from transcriber import cli_models
from transcriber.engines import models
from transcriber.engines.models import KNOWN, OutOfReach
from transcriber.errors import EngineUnavailable

TINY = KNOWN["tiny"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache. The library reads its environment when it is imported; so by hand."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)  # its thread outlives every bar
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    return folder


def reach(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        endpoint + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", endpoint)


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(Hub({TINY: dict(FILES)})) as running:
        reach(monkeypatch, running.endpoint)
        yield running
        huggingface_hub.close_session()


@pytest.fixture
def silent(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        reach(monkeypatch, f"http://127.0.0.1:{listening.getsockname()[1]}")
        yield
        huggingface_hub.close_session()


def model_in(folder: Path, *without: str) -> Path:
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        if name not in without:
            (folder / name).write_bytes(content)
    return folder


def ignore(_share: float) -> None:
    pass


# Fetching


def test_a_model_is_fetched_and_found_again(hub: Hub) -> None:
    assert models.find("tiny") is None
    folder = models.fetch("tiny", ignore)
    assert (folder / "model.bin").read_bytes() == FILES["model.bin"]
    assert models.find("tiny") == folder
    assert models.find(TINY) == folder


def test_only_what_a_model_needs_is_fetched(hub: Hub) -> None:
    folder = models.fetch("tiny", ignore)
    assert {path.name for path in folder.iterdir()} == set(FILES) - {"README.md"}
    assert not any("README" in path for path in hub.asked)


def test_progress_grows_to_one(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_LOOK_EVERY_S", 0.01)
    hub.pause = threading.Event()
    told: list[float] = []

    def progress(share: float) -> None:
        told.append(share)
        if share > 0.3 and hub.is_paused.is_set():
            assert hub.pause is not None
            hub.pause.set()

    models.fetch("tiny", progress)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert any(0.3 < share < 0.99 for share in told)
    assert 1.0 not in told[:-1]


def test_a_model_of_any_owner_is_fetched(hub: Hub) -> None:
    hub.models["someone/whisper-ct2"] = dict(FILES)
    folder = models.fetch("someone/whisper-ct2", ignore)
    assert models.find("someone/whisper-ct2") == folder


def test_a_model_with_a_vocabulary_of_text_is_fetched(hub: Hub) -> None:
    files = dict(FILES)
    files["vocabulary.txt"] = files.pop("vocabulary.json")
    hub.models[TINY] = files
    assert (models.fetch("tiny", ignore) / "vocabulary.txt").is_file()


# What may go wrong


def test_a_hub_that_does_not_answer_is_out_of_reach_soon(
    silent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_REACHED_WITHIN_S", 0.2)
    began = time.monotonic()
    with pytest.raises(OutOfReach, match="hub"):
        models.fetch("tiny", ignore)
    assert time.monotonic() - began < 3.0


def test_names_that_are_looked_up_for_ever_are_given_up(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_REACHED_WITHIN_S", 0.1)
    answered = threading.Event()

    def looks_up(_repository: str) -> dict[str, int]:
        answered.wait(10)
        return {}

    monkeypatch.setattr(models, "_files", looks_up)
    with pytest.raises(OutOfReach, match="did not answer within"):
        models.fetch("tiny", ignore)
    answered.set()


def test_a_hub_that_is_not_there_is_out_of_reach(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach(monkeypatch, "http://127.0.0.1:1")
    with pytest.raises(OutOfReach, match="cannot be reached"):
        models.fetch("tiny", ignore)
    huggingface_hub.close_session()


def test_a_hub_that_is_switched_off_is_out_of_reach(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface_hub.close_session()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OutOfReach, match="HF_HUB_OFFLINE"):
        models.fetch("tiny", ignore)
    assert hub.asked == []


def test_what_was_fetched_is_found_though_the_hub_is_switched_off(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = models.fetch("tiny", ignore)
    huggingface_hub.close_session()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert models.find("tiny") == folder


@pytest.mark.parametrize("status", [404, 401])
def test_a_model_that_the_hub_does_not_have_is_told(hub: Hub, status: int) -> None:
    hub.status = status
    with pytest.raises(EngineUnavailable, match="someone/nothing: no such model") as caught:
        models.fetch("someone/nothing", ignore)
    assert not isinstance(caught.value, OutOfReach)


def test_a_hub_that_fails_says_with_what(hub: Hub) -> None:
    hub.status = 418
    with pytest.raises(EngineUnavailable, match="the hub answered 418"):
        models.fetch("tiny", ignore)


def test_a_repository_that_is_no_ctranslate2_model_is_not_fetched(hub: Hub) -> None:
    hub.models["openai/whisper"] = {"config.json": b"{}", "pytorch_model.bin": b"weights"}
    with pytest.raises(EngineUnavailable, match="openai/whisper is no CTranslate2 model"):
        models.fetch("openai/whisper", ignore)
    assert not any("resolve" in path for path in hub.asked)


def test_a_model_without_a_tokenizer_is_told_by_what_is_missing(hub: Hub) -> None:
    del hub.models[TINY]["tokenizer.json"]
    with pytest.raises(EngineUnavailable, match=r"has no tokenizer\.json"):
        models.fetch("tiny", ignore)
    assert models.find("tiny") is None


def test_a_download_that_is_torn_is_told_and_not_taken_for_a_model(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)  # between the library's attempts
    hub.tears_after = 1000
    with pytest.raises(EngineUnavailable, match="tiny could not be fetched"):
        models.fetch("tiny", ignore)
    assert models.find("tiny") is None
    assert models.installed() == []
    # and the next time it is fetched
    hub.tears_after = None
    folder = models.fetch("tiny", ignore)
    assert (folder / "model.bin").read_bytes() == FILES["model.bin"]


def test_a_full_disk_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(EngineUnavailable, match="could not be fetched: No space left on device"):
        models.fetch("tiny", ignore)


# Names and folders


@pytest.mark.parametrize("name", ["tinny", "large-v9", "", "a/b/c"])
def test_a_name_that_means_nothing_is_told_with_those_that_do(cache: Path, name: str) -> None:
    for ask in (models.find, lambda name: models.fetch(name, ignore)):
        with pytest.raises(EngineUnavailable, match="there is no model named") as caught:
            ask(name)
        assert "large-v3-turbo" in str(caught.value)


def test_a_folder_with_a_model_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_in(tmp_path / "mine")
    assert models.find(str(folder)) == folder
    monkeypatch.chdir(tmp_path)
    assert models.find("./mine") == Path("mine")
    assert models.find("mine") == Path("mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert models.find("~/mine") == folder


@pytest.mark.parametrize("missing", ["config.json", "model.bin", "tokenizer.json"])
def test_a_folder_without_a_part_of_a_model_is_told(tmp_path: Path, missing: str) -> None:
    folder = model_in(tmp_path / "mine", missing)
    with pytest.raises(EngineUnavailable, match=f"has no {missing}: it takes a CTranslate2"):
        models.find(str(folder))


def test_a_folder_without_a_vocabulary_is_told(tmp_path: Path) -> None:
    folder = model_in(tmp_path / "mine", "vocabulary.json", "config.json")
    with pytest.raises(EngineUnavailable, match=r"has no config\.json, vocabulary\.json"):
        models.find(str(folder))


def test_a_folder_that_does_not_exist_is_told_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="does not exist") as caught:
        models.find(str(tmp_path / "none"))
    assert str(tmp_path) not in str(caught.value)


# What is here


def test_nothing_is_installed_in_a_cache_that_does_not_exist(cache: Path) -> None:
    assert models.installed() == []


def test_what_is_installed_is_told_by_the_names_people_use(hub: Hub) -> None:
    hub.models["someone/whisper-ct2"] = dict(FILES)
    tiny, other = models.fetch("tiny", ignore), models.fetch("someone/whisper-ct2", ignore)
    here = {model.name: model for model in models.installed()}
    assert set(here) == {"tiny", "someone/whisper-ct2"}
    assert (here["tiny"].folder, here["someone/whisper-ct2"].folder) == (tiny, other)
    assert here["tiny"].size_bytes >= len(FILES["model.bin"])


def test_what_else_is_in_the_cache_is_no_model(hub: Hub, cache: Path) -> None:
    folder = models.fetch("tiny", ignore)
    other = cache / "models--someone--else"
    shutil.copytree(folder.parent.parent, other, symlinks=True)
    (other / "snapshots" / COMMIT / "tokenizer.json").unlink()
    assert [model.name for model in models.installed()] == ["tiny"]


# The command


def test_the_command_lists_what_is_here_first(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    folder = models.fetch("tiny", ignore)
    assert cli_models.main(None) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.split(maxsplit=1) == ["tiny", f"0 MB at {folder}"]
    assert len(others) == len(KNOWN) - 1
    assert all(line.endswith("not here") for line in others)


def test_the_command_fetches_a_model_and_says_where_it_is(
    hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli_models.main("tiny") == 0
    told = capsys.readouterr().out
    assert told.startswith("fetching tiny\n")
    assert f"[{'#' * 40}] 100%\n" in told
    assert told.endswith(f"tiny is at {models.find('tiny')}\n")
    # it is not fetched twice
    asked = list(hub.asked)
    assert cli_models.main("tiny") == 0
    assert capsys.readouterr().out == f"tiny is at {models.find('tiny')}\n"
    assert hub.asked == asked


def command(home: Path, *arguments: str, endpoint: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "transcriber", "models", *arguments],
        env={**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": endpoint},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.slow
def test_a_fresh_machine_is_told_how_to_get_a_model(tmp_path: Path) -> None:
    listed = command(tmp_path, endpoint="http://127.0.0.1:1")
    assert listed.returncode == 0
    *names, hint = listed.stdout.splitlines()
    assert {name.split()[0] for name in names} == set(KNOWN)
    assert hint.endswith("python -m transcriber models --fetch base")
    assert listed.stderr == ""


@pytest.mark.slow
def test_the_process_fetches_from_the_hub_that_its_environment_names(tmp_path: Path) -> None:
    with serving(Hub({TINY: dict(FILES)})) as hub:
        fetched = command(tmp_path, "--fetch", "tiny", endpoint=hub.endpoint)
        assert fetched.returncode == 0, fetched.stderr
        assert f"tiny is at {tmp_path}" in fetched.stdout
        assert fetched.stderr == ""  # no bars but its own
        unknown = command(tmp_path, "--fetch", "someone/nothing", endpoint=hub.endpoint)
    assert unknown.returncode == 2
    assert unknown.stderr == "transcriber: someone/nothing: no such model on the hub\n"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("small", "small"),
        ("owner/name", "owner/name"),
        ("/srv/models/mine", "mine"),
        ("./models/mine", "mine"),
        ("~/models/mine", "mine"),
        ("srv/models/mine", "mine"),
        ("", ""),
    ],
)
def test_pages_read_a_models_name_and_not_its_place(name: str, told: str) -> None:
    assert models.shown(name) == told
