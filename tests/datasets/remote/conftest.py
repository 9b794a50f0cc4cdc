"""A data set of two small archives, and a server on loopback that misbehaves as it is told to."""

import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from cvplugins.datasets.remote.known import Archive, DataSet


def noise(size, seed=0):
    return np.random.default_rng(seed).bytes(size)


def tar_of(files):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


def zip_of(files):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


TRAIN = {f"Kit/A/images/{n}.jpg": noise(40_000, n) for n in range(5)} | {"Kit/A/lists/train.txt": b"0\n1\n"}
TEST = {f"Kit/A/images/{n}.jpg": noise(40_000, n) for n in range(5, 8)} | {"Kit/A/lists/test.txt": b"5\n"}
MORE = {f"Kit/B/images/{n}.jpg": noise(30_000, n) for n in range(4)} | {"Kit/note.txt": b"note"}


@pytest.fixture(scope="session")
def contents():
    """The archives by their names."""
    return {"train.tar": tar_of(TRAIN), "test.tar": tar_of(TEST), "more.zip": zip_of(MORE)}


@pytest.fixture
def files():
    return {**TRAIN, **TEST, **MORE}


class Server(ThreadingHTTPServer):
    """Serves ``contents``; ``faults[path]`` is a list of what to do to the next requests of a path, one each.

    A fault is a function of the handler and the content that answers itself, or returns None to go on as usual.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, contents):
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents = {f"/{name}": content for name, content in contents.items()}
        self.faults, self.requests = {}, []
        self.base = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        content = self.server.contents.get(self.path)
        faults = self.server.faults.get(self.path, [])
        if faults and faults.pop(0)(self, content):
            return
        if content is None:
            self.send_error(404)
            return
        self.send_part(content)

    def send_part(self, content, limit=None):
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        asked = self.headers.get("Range")
        start = int(asked[6:].partition("-")[0]) if asked and self.headers.get("If-Range", etag) == etag else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", etag)
        self.end_headers()
        self.wfile.write(content[start:][:limit])


@pytest.fixture
def server(contents):
    made = Server(contents)
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def data_set(contents, server):
    def archive(name, files, marker):
        content = contents[name]
        sums = {kind: hashlib.new(kind, content).hexdigest() for kind in ("md5", "sha256")}
        return Archive(name, (f"{server.base}/{name}",), sums, len(content), files, marker)

    return DataSet(
        "a kit",
        "Kit",
        (
            archive("train.tar", {"A/images": 5}, "A/lists/train.txt"),
            archive("test.tar", {"A/images": 3}, "A/lists/test.txt"),
            archive("more.zip", {"B/images": 4}, "B/images/0.jpg"),
        ),
        inside="Kit",
    )
