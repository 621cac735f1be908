"""The folder of a run, which is all there is of it.

`run.json` says what it is, `samples.jsonl` and `events.jsonl` grow while it goes, `ends.jsonl` has
what was there before the first came and after the last had gone, `parts.jsonl` when each part
began. Lines are appended, so that a run of days survives its terminal; one that was interrupted
goes on as its next part.
"""

import json
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from soak.host import describe_machine
from soak.samples import Sample, read_samples
from soak.scenario import Scenario, check_scenario


@dataclass(frozen=True, slots=True)
class Ends:
    """A part's server while nobody is there: before the first came, after the last had gone."""

    part: int
    before: Sample
    after: Sample


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment of a run under memray: what was live then is looked at. In the first of a part
    nobody is there, in the others all are there and warm."""

    part: int
    at_unix: float
    speakers: int
    joins: int


@dataclass(slots=True)
class Folder:
    """Raises `OSError` where it cannot be written."""

    path: Path

    def begin(self, scenario: Scenario, for_s: float, url: str | None, memray: bool) -> None:
        self.path.mkdir(parents=True)
        told = {
            "scenario": scenario.model_dump(),
            "for_s": for_s,
            "url": url,
            "memray": memray,
            "machine": describe_machine(),
            "began": time.time(),
        }
        self._file("run.json").write_text(json.dumps(told, indent=2), encoding="utf-8")

    def what(self) -> dict[str, Any]:
        """Raises `FileNotFoundError` where there is no run."""
        told: dict[str, Any] = json.loads(self._file("run.json").read_text(encoding="utf-8"))
        return told

    def begin_part(self, before: Sequence[Sample]) -> int:
        """Its number, which no other has, however short that one was. `before`: the samples."""
        parts: list[int] = [told["part"] for told in self._lines("parts.jsonl")]
        # of before parts were noted there are samples alone
        part = max([-1, *parts, *(sample.part for sample in before)]) + 1
        self._add("parts.jsonl", json.dumps({"part": part, "began": time.time()}))
        return part

    @property
    def scenario(self) -> Scenario:
        """Raises `BadScenario` for a run of another version."""
        return check_scenario(self.what()["scenario"], "run.json")

    def samples(self) -> list[Sample]:
        file = self._file("samples.jsonl")
        return list(read_samples(file)) if file.is_file() else []

    def events(self) -> list[dict[str, Any]]:
        return self._lines("events.jsonl")

    def ends(self) -> list[Ends]:
        return [
            Ends(e["part"], Sample.of_line(e["before"]), Sample.of_line(e["after"]))
            for e in self._lines("ends.jsonl")
        ]

    def marks(self) -> dict[int, list[Mark]]:
        """By part."""
        marks: defaultdict[int, list[Mark]] = defaultdict(list)
        for told in self._lines("marks.jsonl"):
            marks[told["part"]].append(Mark(**told))
        return marks

    def add_sample(self, sample: Sample) -> None:
        self._add("samples.jsonl", sample.as_line)

    def add_event(self, at: float, part: int, what: str) -> None:
        self._add("events.jsonl", json.dumps({"at": round(at, 1), "part": part, "what": what}))

    def add_ends(self, ends: Ends) -> None:
        told = {"part": ends.part, "before": ends.before.as_line, "after": ends.after.as_line}
        self._add("ends.jsonl", json.dumps(told))

    def add_mark(self, mark: Mark) -> None:
        self._add("marks.jsonl", json.dumps(asdict(mark)))

    def capture(self, part: int) -> Path:
        return self._file(f"memray-{part}.bin")

    def make_talk(self, part: int) -> Path:
        """An empty one for the servers behind Talk."""
        path = self._file(f"talk-{part}").resolve()
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    def log(self) -> Path:
        return self._file("server.log")

    def _file(self, name: str) -> Path:
        return self.path / name

    def _add(self, name: str, line: str) -> None:
        with self._file(name).open("a", encoding="utf-8") as out:
            out.write(line + "\n")

    def _lines(self, name: str) -> list[dict[str, Any]]:
        file = self._file(name)
        if not file.is_file():
            return []
        lines = file.read_text(encoding="utf-8").splitlines()
        # a run that was killed may have torn its last line
        return [json.loads(line) for line in lines if line.endswith("}")]
