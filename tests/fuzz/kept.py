"""The kept inputs: real ones to begin with, and every one that something broke on."""

import hashlib
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


def seeds_of(target: str) -> list[bytes]:
    """In the order of their names."""
    return [file.read_bytes() for file in files_of(target)]


def files_of(target: str) -> list[Path]:
    return sorted(file for file in (CORPUS / target).iterdir() if file.is_file())


def keep(target: str, data: bytes, folder: Path = CORPUS) -> Path:
    """An input that something broke on, under a name of its own."""
    file = folder / target / f"crash-{hashlib.sha1(data).hexdigest()[:12]}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file
