"""Where Whisper's models are: a folder, or fetched from the hub before, or fetched now.

Nothing here is imported but by the worker and by `python -m transcriber`; nothing reaches
for the network but `fetch`.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transcriber.errors import EngineUnavailable

# CTranslate2's conversions of the public checkpoints.
KNOWN = {
    "tiny": "Systran/faster-whisper-tiny",
    "tiny.en": "Systran/faster-whisper-tiny.en",
    "base": "Systran/faster-whisper-base",
    "base.en": "Systran/faster-whisper-base.en",
    "small": "Systran/faster-whisper-small",
    "small.en": "Systran/faster-whisper-small.en",
    "medium": "Systran/faster-whisper-medium",
    "medium.en": "Systran/faster-whisper-medium.en",
    "large-v2": "Systran/faster-whisper-large-v2",
    "large-v3": "Systran/faster-whisper-large-v3",
    "large-v3-turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "distil-large-v3": "Systran/faster-distil-whisper-large-v3",
    "distil-large-v3.5": "distil-whisper/distil-large-v3.5-ct2",
}
_WANTED = ("config.json", "preprocessor_config.json", "model.bin", "tokenizer.json")
_VOCABULARY = "vocabulary."
_NEEDED = ("config.json", "model.bin", "tokenizer.json")
_REACHED_WITHIN_S = 5.0
_LOOK_EVERY_S = 0.5

Progress = Callable[[float], None]


class OutOfReach(EngineUnavailable):
    """The hub does not answer."""


@dataclass(frozen=True, slots=True)
class Installed:
    name: str
    folder: Path
    size_bytes: int


def find(name: str) -> Path | None:
    """The folder of a model that is here. Raises `EngineUnavailable` for a folder that is no
    model, and for a name that means nothing."""
    if is_path(name):
        return _checked(Path(name).expanduser())
    return _fetched(_repository(name))


def fetch(name: str, progress: Progress) -> Path:
    """Get a model from the hub. Raises `OutOfReach`, `EngineUnavailable`."""
    repository = _repository(name)
    files = _within(_REACHED_WITHIN_S, lambda: _files(repository))
    total = sum(files.values())
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    disable_progress_bars()  # `progress` is told, and the log is no place for them
    with _watched(repository, total, progress):
        try:
            for file in files:
                # whoever names a model trusts it as it is now
                path = hf_hub_download(repository, file)  # nosec B615
        except HfHubHTTPError as error:
            raise EngineUnavailable(f"{name} could not be fetched: {_reason(error)}") from error
        except OSError as error:
            raise EngineUnavailable(
                f"{name} could not be fetched: {error.strerror or type(error).__name__}"
            ) from error
        except Exception as error:
            # a connection that is torn, in the words of whichever library it uses this year
            raise EngineUnavailable(
                f"{name} could not be fetched: {type(error).__name__}"
            ) from error
    progress(1.0)
    return _checked(Path(path).parent)


def how_to_install(name: str) -> str:
    return f"model {name} is not installed: run python -m transcriber models --fetch {name}"


def installed() -> list[Installed]:
    """Every model that was fetched."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    names = {repository: name for name, repository in KNOWN.items()}
    try:
        cache = scan_cache_dir()
    except CacheNotFound:
        return []
    found = []
    for repo in sorted(cache.repos, key=lambda repo: repo.repo_id):
        folder = _fetched(repo.repo_id)
        if folder is not None:
            name = names.get(repo.repo_id, repo.repo_id)
            found.append(Installed(name, folder, repo.size_on_disk))
    return found


def is_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or (name != "" and Path(name).is_dir())


def shown(name: str) -> str:
    """The name for those who read the pages: of a folder not where it is."""
    return Path(name).name if is_path(name) or name.count("/") > 1 else name


def _repository(name: str) -> str:
    if name in KNOWN:
        return KNOWN[name]
    if name.count("/") == 1 and not name.startswith("/"):
        return name
    raise EngineUnavailable(
        f"there is no model named {shown(name)!r}: a folder, owner/name on the hub, or one of "
        + ", ".join(KNOWN)
    )


def _checked(folder: Path) -> Path:
    """Raises `EngineUnavailable` where something is missing; the library would reach for the
    hub for it."""
    if not folder.is_dir():
        raise EngineUnavailable("the folder of the model does not exist")
    missing = [file for file in _NEEDED if not (folder / file).is_file()]
    if not any(file.name.startswith(_VOCABULARY) for file in folder.iterdir()):
        missing.append("vocabulary.json")
    if missing:
        raise EngineUnavailable(
            f"the folder of the model has no {', '.join(missing)}: it takes a CTranslate2 "
            "conversion of Whisper with its tokenizer"
        )
    return folder


def _fetched(repository: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, "model.bin")
    if not isinstance(path, str):
        return None
    try:
        return _checked(Path(path).parent)
    except EngineUnavailable:
        return None  # begun, and not ended


def _files(repository: str) -> dict[str, int]:
    """The files of a model on the hub, with their sizes."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        info = HfApi().model_info(repository, files_metadata=True, timeout=_REACHED_WITHIN_S)
    except HfHubHTTPError as error:
        raise EngineUnavailable(f"{repository}: {_reason(error)}") from error
    except OfflineModeIsEnabled as error:
        raise OutOfReach("the hub is switched off by HF_HUB_OFFLINE") from error
    except Exception as error:
        # whichever library it uses this year has its own words for no network
        raise OutOfReach(f"the model hub cannot be reached ({type(error).__name__})") from error
    files = {
        file.rfilename: file.size or 0
        for file in info.siblings or ()
        if file.rfilename in _WANTED or file.rfilename.startswith(_VOCABULARY)
    }
    if "model.bin" not in files:
        raise EngineUnavailable(f"{repository} is no CTranslate2 model")
    return files


def _reason(error: Any) -> str:
    status = getattr(error.response, "status_code", None)
    return "no such model on the hub" if status in (401, 404) else f"the hub answered {status}"


def _within(seconds: float, work: Callable[[], dict[str, int]]) -> dict[str, int]:
    """Names are looked up without a limit of their own. Raises `OutOfReach`."""
    answer: list[dict[str, int]] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            answer.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True, name="model-hub")
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not answer:
        raise OutOfReach(f"the model hub did not answer within {seconds:.0f} s")
    return answer[0]


@contextmanager
def _watched(repository: str, total: int, progress: Progress) -> Iterator[None]:
    """Tell how much of a model is here while it is fetched."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model") / "blobs"
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK_EVERY_S):
            progress(min(0.99, _size(folder) / max(1, total)))

    thread = threading.Thread(target=watch, daemon=True, name="model-progress")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _size(folder: Path) -> int:
    total = 0
    try:
        for entry in os.scandir(folder):
            total += entry.stat().st_size
    except FileNotFoundError:
        pass
    return total
