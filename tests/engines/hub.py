"""A model hub of our own on loopback, which answers as huggingface_hub asks."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"  # pragma: allowlist secret
FILES = {
    "config.json": b"{}",
    "preprocessor_config.json": b"{}",
    "tokenizer.json": b"{}",
    "vocabulary.json": b"[]",
    "model.bin": b"weights" * 100_000,
    "README.md": b"not wanted",
}


@dataclass
class Hub:
    """Its models by name, what it was asked for, and how it misbehaves."""

    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    status: int = 0  # answered to all, where it is one
    tears_after: int | None = None  # bytes of a weights file, then the connection ends
    pause: threading.Event | None = None  # waited for in the middle of a weights file
    is_paused: threading.Event = field(default_factory=threading.Event)
    endpoint: str = ""


class _Requests(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def log_message(self, *_: object) -> None:
        """Nowhere."""

    def _answer(self, *, has_body: bool) -> None:
        path = self.path.partition("?")[0]
        if has_body:
            self.hub.asked.append(path)
        if self.hub.status:
            self._send(self.hub.status, b"", has_body)
            return
        for name, files in self.hub.models.items():
            if path in (f"/api/models/{name}", f"/api/models/{name}/revision/main"):
                listed = [{"rfilename": file, "size": len(files[file])} for file in files]
                answer = {"id": name, "modelId": name, "sha": COMMIT, "siblings": listed}
                self._send(200, json.dumps(answer).encode(), has_body)
                return
            for revision in ("main", COMMIT):
                file = path.removeprefix(f"/{name}/resolve/{revision}/")
                if file in files:
                    self._send(200, files[file], has_body, file)
                    return
        self._send(404, b"", has_body)

    def _send(self, status: int, body: bytes, has_body: bool, file: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        if file:
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if has_body:
            self._write(body, is_weights=file == "model.bin")

    def _write(self, body: bytes, *, is_weights: bool) -> None:
        hub = self.hub
        if is_weights and hub.tears_after is not None:
            self.wfile.write(body[: hub.tears_after])
            self.close_connection = True
            return
        if is_weights and hub.pause is not None:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            hub.is_paused.set()
            hub.pause.wait(10)
            body = body[len(body) // 2 :]
        self.wfile.write(body)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Requests(_Requests):
        pass

    Requests.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        if hub.pause is not None:
            hub.pause.set()
        server.shutdown()
        thread.join()
        server.server_close()
