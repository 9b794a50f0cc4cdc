"""Downloads from servers that misbehave. Oracle: the bytes that the server has, and what it was asked for."""

import dataclasses
import threading
import time

import pytest

from cvplugins.datasets.remote.download import Download, Patience, StoppedError
from cvplugins.errors import UserError

HURRY = Patience(silence=0.5, attempts=3, pause=0.01, longest_pause=0.05)


@pytest.fixture
def load(data_set, tmp_path):
    """Download the first archive, and return what has arrived."""

    def run(addresses=None, archive=data_set.archives[0], stop=None):
        found = Download(
            archive,
            tmp_path,
            archive.addresses if addresses is None else addresses,
            arrived=lambda count: None,
            stop=stop or threading.Event(),
            patience=HURRY,
        ).run()
        assert [path.name for path in tmp_path.iterdir()] == [archive.name]
        return found.read_bytes()

    return run


def drop_after(count):
    def fault(handler, content):
        handler.send_part(content, count)
        handler.close_connection = True
        return True

    return fault


def answer(code, **headers):
    def fault(handler, content):
        handler.send_response(code)
        for name, value in {"Content-Length": "0", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        return True

    return fault


def ignore_range(handler, content):
    del handler.headers["Range"]


def stall(handler, content):
    handler.send_part(content, 1000)
    handler.wfile.flush()
    time.sleep(2)
    handler.close_connection = True
    return True


def wrong_range(handler, content):
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes 0-{len(content) - 1}/{len(content)}")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)
    return True


def without_length(handler, content):
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])
    handler.close_connection = True
    return True


@pytest.mark.parametrize(
    "faults",
    [
        [],
        [drop_after(70_000), drop_after(50_000)],
        [drop_after(70_000), ignore_range],
        [drop_after(0), drop_after(0)],
        [answer(503), answer(429, Retry_After="0")],
        [stall],
        [drop_after(70_000), wrong_range],
        [without_length],
        [drop_after(70_000), answer(416)],
    ],
)
def test_the_file_arrives_whole(load, server, contents, faults):
    server.faults["/train.tar"] = list(faults)
    assert load() == contents["train.tar"]
    assert len(server.requests) == len(faults) + 1 or ignore_range in faults


def test_it_goes_on_where_it_stopped_and_only_with_the_same_file(load, server, contents):
    server.faults["/train.tar"] = [drop_after(70_000)]
    load()
    (_, first, _), (_, second, version) = server.requests
    assert (first, second) == (None, "bytes=70000-")
    assert version.strip('"').isalnum()


def test_a_file_that_changes_meanwhile_is_read_anew(load, server, contents, tmp_path):
    """The server answers with all of the new file, because its version is another."""
    (tmp_path / "train.tar.part").write_bytes(b"x" * 500)
    (tmp_path / "train.tar.part.json").write_text(f'{{"address": "{server.base}/train.tar", "version": "\\"old\\""}}')
    assert load() == contents["train.tar"]
    assert server.requests == [("/train.tar", "bytes=500-", '"old"')]


def test_a_beginning_from_elsewhere_is_used_and_thrown_away_if_it_does_not_fit(load, server, contents, tmp_path):
    (tmp_path / "train.tar.part").write_bytes(contents["train.tar"][:500])
    assert load() == contents["train.tar"]
    assert server.requests == [("/train.tar", "bytes=500-", None)]
    (tmp_path / "train.tar").unlink()
    (tmp_path / "train.tar.part").write_bytes(b"x" * 500)
    assert load() == contents["train.tar"]
    assert [asked for _, asked, _ in server.requests[1:]] == ["bytes=500-", None]


def test_addresses_are_tried_in_turn(load, server, contents):
    """Missing, moved in a circle, of another size, of the same size with other bytes, and then the file."""
    server.contents["/other"] = contents["train.tar"][:-1] + b"?"
    server.contents["/short"] = b"<html>moved</html>"
    server.contents["/twice"] = contents["train.tar"] * 2
    server.faults["/circle"] = [answer(302, Location="/circle")] * 20
    server.faults["/moved"] = [answer(302, Location="/train.tar")]
    paths = ("none", "circle", "short", "other", "twice", "moved")
    assert load([f"{server.base}/{path}" for path in paths]) == contents["train.tar"]


def test_a_redirect_leads_to_no_file_of_this_machine(load, server, tmp_path):
    server.faults["/train.tar"] = [answer(302, Location="file:///etc/hostname")]
    with pytest.raises(UserError, match="HTTP 302"):
        load()


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ([answer(404)], "HTTP 404"),
        ([drop_after(0)] * 3, "ended after 0 of"),
        ([answer(500)] * 3, "HTTP 500"),
        ([answer(200, Content_Encoding="gzip")], "answers in the encoding gzip"),
    ],
)
def test_what_no_address_has_is_said_with_what_to_do(load, server, tmp_path, faults, said):
    server.faults["/train.tar"] = list(faults)
    with pytest.raises(UserError, match=said) as caught:
        load()
    assert server.base in str(caught.value)
    assert "--mirror URL" in str(caught.value)
    assert "--archives DIR" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_port_where_nobody_listens(load):
    with pytest.raises(UserError, match="refused"):
        load(["http://127.0.0.1:9/train.tar"])


def test_an_endless_answer_ends(load, server, data_set, contents):
    """Of a file whose size is known to about a half only, and without a length of the server's."""

    def endless(handler, content):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(content)
        handler.close_connection = True
        return True

    server.faults["/train.tar"] = [endless]
    archive = dataclasses.replace(data_set.archives[0], size_is_exact=False)
    with pytest.raises(UserError, match="sends more than"):
        load(archive=archive)


def test_a_size_that_is_only_known_roughly(load, server, data_set, contents):
    archive = dataclasses.replace(data_set.archives[0], size_is_exact=False, size=100)
    assert load(archive=archive) == contents["train.tar"]


def test_a_whole_file_is_not_asked_for_and_a_broken_one_is(load, server, contents, tmp_path):
    (tmp_path / "train.tar").write_bytes(contents["train.tar"])
    load()
    assert server.requests == []
    (tmp_path / "train.tar").write_bytes(contents["train.tar"][:-1] + b"?")
    assert load() == contents["train.tar"]


def test_whoever_stops_it_keeps_what_has_arrived(load, server, contents, tmp_path):
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        load(stop=stop)
    assert not (tmp_path / "train.tar").exists()
