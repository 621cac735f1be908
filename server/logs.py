"""JSON lines on standard error: a constant message plus fields."""

import json
import logging
import sys
import time

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        millis = f"{record.msecs:03.0f}"
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{millis}Z",
            "level": record.levelname.lower(),
            "component": record.name.removeprefix("roomscribe."),
            "message": record.getMessage(),
        }
        line.update({k: v for k, v in vars(record).items() if k not in _STANDARD})
        if record.exc_info is not None and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["at"] = _places(record.exc_info[2])
        return json.dumps(line, default=str)


def configure(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("roomscribe").setLevel(level.upper())
    # aiortc and aioice log every peer's addresses at INFO
    for noisy in ("aiortc", "aioice", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _places(traceback: object) -> list[str]:
    """Module and line of each frame; no path of the host and no value."""
    places = []
    frame = traceback
    while frame is not None:
        code = frame.tb_frame.f_globals.get("__name__", "?")  # type: ignore[attr-defined]
        places.append(f"{code}:{frame.tb_lineno}")  # type: ignore[attr-defined]
        frame = frame.tb_next  # type: ignore[attr-defined]
    return places
