import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bgsweep.errors import UserError
from bgsweep.masks.weights import PUBLISHED, Published, load_weights

CONTENT = b"weights" * 1000


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """A server that publishes the weights; the list of what was asked of it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever).start()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = f"http://127.0.0.1:{server.server_port}/u2netp.onnx"
    monkeypatch.setitem(PUBLISHED, "u2netp", Published(url, hashlib.sha256(CONTENT).hexdigest()))
    yield asked
    server.shutdown()
    server.server_close()


def test_published_weights_are_fetched_once(requests: list[str], tmp_path: Path) -> None:
    assert load_weights("u2netp") == load_weights("u2netp") == CONTENT
    assert requests == ["/u2netp.onnx"]
    (tmp_path / "cache/bgsweep/u2netp.onnx").write_bytes(CONTENT[:100])
    assert load_weights("u2netp") == CONTENT
    assert len(requests) == 2, "a damaged copy was used"
    assert [path.name for path in (tmp_path / "cache/bgsweep").iterdir()] == ["u2netp.onnx"]


def test_other_content_than_published_is_refused(requests: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PUBLISHED, "u2netp", PUBLISHED["u2netp"]._replace(sha256="0" * 64))
    with pytest.raises(
        UserError, match=r"the weights of u2netp have SHA-256 [0-9a-f]{16}…, not 0{16}….* name the file by --weights"
    ):
        load_weights("u2netp")


def test_without_network_the_error_names_the_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(PUBLISHED, "u2netp", PUBLISHED["u2netp"]._replace(url="http://127.0.0.1:9/u2netp.onnx"))
    with pytest.raises(UserError, match=r"cannot be downloaded \(.*\); download http://127\.0\.0\.1:9/u2netp\.onnx "):
        load_weights("u2netp")


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "own.onnx").write_bytes(CONTENT)
    assert load_weights(str(tmp_path / "own.onnx")) == CONTENT
    with pytest.raises(UserError, match=r"--weights .*other\.onnx: No such file.*one of: u2netp, u2net"):
        load_weights(str(tmp_path / "other.onnx"))
