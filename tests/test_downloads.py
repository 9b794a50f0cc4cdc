"""What lies at an address is kept under the whole address."""

import functools
import hashlib
import http.server
import threading
import time

import pytest
import torch

from cvplugins.downloads import cached, fetch
from cvplugins.errors import UserError


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        """Say nothing."""

    def do_GET(self):
        """Give a file; or, by its name, a page, less than is promised, nothing, or no answer at all."""
        if self.path == "/silent.pth":
            time.sleep(1)
        elif self.path == "/page.pth":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"\n<!DOCTYPE html><title>Log in</title>")
        elif self.path in ("/short.pth", "/empty.pth", "/endless.pth"):
            self.send_response(200)
            self.send_header("Content-Length", "0" if self.path == "/empty.pth" else "1000")
            self.end_headers()
            if self.path != "/empty.pth":
                self.wfile.write(b"x" * 10)
            if self.path == "/endless.pth":
                self.wfile.flush()
                time.sleep(1)
        else:
            super().do_GET()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serve a folder; return its address."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    for run in ("a", "b"):
        (tmp_path / "served" / run).mkdir(parents=True)
        (tmp_path / "served" / run / "epoch_12.pth").write_text(run)
    handler = functools.partial(Handler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_two_addresses_with_one_name_are_two_files(server, tmp_path):
    addresses = [f"{server}/{run}/epoch_12.pth{query}" for run in ("a", "b") for query in ("", "?version=2")]
    assert [fetch(each).read_text() for each in addresses] == ["a", "a", "b", "b"]
    assert len({fetch(each) for each in addresses}) == 4
    assert {fetch(each).name for each in addresses} == {"epoch_12.pth"}
    (tmp_path / "served" / "a" / "epoch_12.pth").write_text("changed")
    assert fetch(addresses[0]).read_text() == "a"  # once
    with pytest.raises(UserError, match=r"none.pth cannot be downloaded"):
        fetch(f"{server}/none.pth")
    assert cached(f"{server}/none.pth") is None


def test_a_server_that_is_silent_or_sends_too_little(server, tmp_path, monkeypatch):
    """Nothing of it is kept, so that the next try begins anew."""
    monkeypatch.setattr("cvplugins.downloads.SILENCE", 0.3)
    for name, said in (
        ("short", "it ends after 10 of 1000 bytes"),
        ("empty", "it is empty"),
        ("page", "the server gives a web page"),
        ("silent", "no byte came for 0.3 seconds"),
        ("endless", "no byte came for 0.3 seconds"),
    ):
        with pytest.raises(UserError, match=f"{name}.pth cannot be downloaded.*{said}"):
            fetch(f"{server}/{name}.pth")
    assert not [path for path in (tmp_path / "hub").rglob("*") if path.is_file()]


def test_torch_hubs_own_cache_counts_where_the_checksum_in_the_name_is_right(tmp_path, monkeypatch):
    """So that weights of a model zoo that a user has copied there need no network."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    checksum = hashlib.sha256(b"weights").hexdigest()[:8]
    for name, found in ((f"resnet50-{checksum}.pth", True), ("resnet50-0676ba61.pth", False), ("epoch_1.pth", False)):
        path = tmp_path / "checkpoints" / name
        path.write_bytes(b"weights")
        assert cached(f"https://anywhere.invalid/{name}") == (path if found else None)


@pytest.mark.detectron2
def test_detectron2s_addresses_too(server):
    """Its own cache knows the path of an address alone."""
    pytest.importorskip("detectron2")
    from cvplugins.detectron2.run.resume_checks import RunCheckpointer, is_at_hand

    first = f"{server}/a/epoch_12.pth?key=1&matching_heuristics=True"
    assert not is_at_hand(first)
    found = RunCheckpointer.fetched(first)
    assert found == f"{fetch(f'{server}/a/epoch_12.pth?key=1')}?matching_heuristics=True"
    assert is_at_hand(first)
    assert RunCheckpointer.fetched(f"{server}/b/epoch_12.pth") != found.partition("?")[0]
    with pytest.raises(UserError, match="knows no such address"):
        RunCheckpointer.fetched("nothing://a.pth")


@pytest.mark.openmmlab
def test_openmmlabs_addresses_too(server):
    from cvplugins.openmmlab.run.checkpoint_readers import fetch_checkpoint

    assert fetch_checkpoint(f"{server}/a/epoch_12.pth") == fetch(f"{server}/a/epoch_12.pth")
    with pytest.raises(UserError, match=r"s3:// cannot be checked"):
        fetch_checkpoint("s3://bucket/a.pth")
