import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bgsweep.errors import UserError
from bgsweep.masks.interfaces import NETWORKS
from bgsweep.masks.u2netp import SHA256
from bgsweep.masks.weights import DOWNLOADED, load_weights

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
    publish(monkeypatch, f"http://127.0.0.1:{server.server_port}/u2net.onnx", hashlib.sha256(CONTENT).hexdigest())
    yield asked
    server.shutdown()
    server.server_close()


def publish(monkeypatch: pytest.MonkeyPatch, url: str, sha256: str) -> None:
    monkeypatch.setitem(NETWORKS, "u2net", replace(NETWORKS["u2net"], file=url))
    monkeypatch.setitem(DOWNLOADED, "u2net", sha256)


def test_published_weights_are_fetched_once(requests: list[str], tmp_path: Path) -> None:
    assert load_weights("u2net", None) == load_weights("u2net", None) == CONTENT
    assert requests == ["/u2net.onnx"]
    (tmp_path / "cache/bgsweep/u2net.onnx").write_bytes(CONTENT[:100])
    assert load_weights("u2net", None) == CONTENT
    assert len(requests) == 2, "a damaged copy was used"
    assert [path.name for path in (tmp_path / "cache/bgsweep").iterdir()] == ["u2net.onnx"]


def test_other_content_than_published_is_refused(requests: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, NETWORKS["u2net"].file, "0" * 64)
    with pytest.raises(
        UserError, match=r"the weights of u2net have SHA-256 [0-9a-f]{16}…, not 0{16}….* name the file by --weights"
    ):
        load_weights("u2net", None)


def test_without_network_the_error_names_the_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    publish(monkeypatch, "http://127.0.0.1:9/u2net.onnx", "0" * 64)
    with pytest.raises(UserError, match=r"cannot be downloaded \(.*\); download http://127\.0\.0\.1:9/u2net\.onnx "):
        load_weights("u2net", None)


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "own.onnx").write_bytes(CONTENT)
    assert load_weights("isnet-general-use", str(tmp_path / "own.onnx")) == CONTENT
    with pytest.raises(UserError, match=r"--weights .*other\.onnx: No such file.*; name an ONNX file, or leave it out"):
        load_weights("u2netp", str(tmp_path / "other.onnx"))
    with pytest.raises(UserError, match=r"--weights u2net: No such file.*or --network u2net without --weights"):
        load_weights(None, "u2net")


def test_networks_that_are_not_downloaded_say_where_they_are_and_their_license() -> None:
    with pytest.raises(UserError, match=r"--network bria-rmbg-2\.0: name its file by --weights: .*not for commercial"):
        load_weights("bria-rmbg-2.0", None)


def test_the_default_needs_no_network() -> None:
    assert hashlib.sha256(load_weights("u2netp", None)).hexdigest() == SHA256
