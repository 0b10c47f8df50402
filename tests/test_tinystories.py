"""Downloads that go wrong: broken connections, wrong bytes, servers with ideas."""
import errno
import hashlib
import http.server
import random
import re
import subprocess
import sys
import threading

import pytest
import tinystories
from conftest import ROOT


def message_of(stopped):
    lines = str(stopped.value).splitlines()
    assert len(lines) == 3, lines
    return "\n".join(lines)


CONTENT = random.Random(1).randbytes(300_000)


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT, each answer as badly as the next word of `tricks` says."""

    tricks, asked = [], []

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        begin = int(re.match(r"bytes=(\d+)-", self.headers["Range"])[1])
        self.asked.append(begin)
        trick = self.tricks.pop(0) if self.tricks else "well"
        if trick == "error":
            return self.send_error(503)
        if trick == "ignore range":
            begin = 0
        body = CONTENT[begin:]
        if trick == "other bytes":
            body = body[::-1]
        length = len(body) + {"promise more": 5000, "promise less": -70_000}.get(
            trick, 0
        )
        self.send_response(200 if trick == "ignore range" else 206)
        if trick == "endless":
            self.end_headers()  # no length: the body ends with the connection
            body += body
        else:
            self.send_header("Content-Length", length)
            self.end_headers()
        if trick == "drop":
            body = body[: len(body) // 2]
        self.wfile.write(body)
        self.close_connection = True


@pytest.fixture
def server(tmp_path, monkeypatch):
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{served.server_port}/"
    monkeypatch.setattr(tinystories, "ADDRESS", address)
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    monkeypatch.setattr(tinystories, "FILES", {"file.txt": (len(CONTENT), sha256)})
    monkeypatch.setattr(tinystories, "DATA", tmp_path / "data")
    monkeypatch.setattr(tinystories, "WAIT", 0.01)
    monkeypatch.setattr(tinystories, "BLOCK", 10_000)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    Server.tricks, Server.asked = [], []
    yield Server
    served.shutdown()
    served.server_close()


def downloaded():
    path = tinystories.download("file.txt")
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]


def test_a_file_is_fetched_once_and_then_kept(server):
    downloaded()
    downloaded()
    assert server.asked == [0]


@pytest.mark.parametrize(
    "tricks, asked",
    [
        # half of it, half of the rest, then the rest
        (["drop", "drop"], [0, 150_000, 225_000]),
        # the server sends all of it though asked for the rest
        (["drop", "ignore range"], [0, 150_000]),
        (["error", "error"], [0, 0, 0]),
        # a promise of more bytes than there are: what came is whole all the same
        (["promise more"], [0]),
        # a promise of fewer: the rest is asked for
        (["promise less"], [0, 230_000]),
        # wrong bytes of the right number are thrown away, all of them
        (["other bytes"], [0, 0]),
        (["drop", "other bytes"], [0, 150_000, 0]),
        # more than there can be
        (["endless"], [0, 0]),
    ],
)
def test_a_server_that_misbehaves_twice_is_tolerated(server, tricks, asked):
    server.tricks[:] = tricks
    downloaded()
    assert server.asked == asked


def test_after_three_tries_the_reason_is_given_and_the_beginning_kept(server):
    server.tricks[:] = ["drop"] * 3
    with pytest.raises(SystemExit) as stopped:
        tinystories.download("file.txt")
    assert "could not be downloaded: the connection ended" in message_of(stopped)
    assert "TEXT = 'practice' needs none" in message_of(stopped)
    assert not (tinystories.DATA / "file.txt").exists()
    assert (tinystories.DATA / "file.txt.part").stat().st_size == 262_500
    server.asked.clear()
    downloaded()  # the next run resumes there
    assert server.asked == [262_500]


def test_wrong_bytes_three_times_are_never_called_the_file(server):
    server.tricks[:] = ["other bytes"] * 3
    with pytest.raises(SystemExit, match="another sha256"):
        tinystories.download("file.txt")
    assert list(tinystories.DATA.iterdir()) == []


def test_a_beginning_that_is_too_long_is_started_again(server):
    tinystories.DATA.mkdir()
    (tinystories.DATA / "file.txt.part").write_bytes(b"x" * 300_001)
    downloaded()
    assert server.asked == [0]


def test_without_a_network_the_message_says_what_needs_none(server, monkeypatch):
    nobody_listens = "http://127.0.0.1:9/"
    monkeypatch.setattr(tinystories, "ADDRESS", nobody_listens)
    with pytest.raises(SystemExit) as stopped:
        tinystories.download("file.txt")
    assert "TEXT = 'practice' needs none" in message_of(stopped)


def test_a_full_disk_is_not_tried_again(server, monkeypatch):
    tried = []

    def full(*arguments):
        tried.append(arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tinystories, "fetch", full)
    with pytest.raises(OSError, match="No space left"):
        tinystories.download("file.txt")
    assert len(tried) == 1


def test_ctrl_c_keeps_what_has_arrived(server, monkeypatch):
    class Interrupted:
        def __init__(self, *arguments, **named):
            self.left = 3

        def __enter__(self):
            return self

        def __exit__(self, *arguments):
            pass

        def update(self, number):
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tinystories, "tqdm", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            tinystories.download("file.txt")
    assert (tinystories.DATA / "file.txt.part").stat().st_size == 30_000
    server.asked.clear()
    downloaded()
    assert server.asked == [30_000]


@pytest.mark.parametrize(
    "text, names",
    [("tinystories-mini", ["VALID"]), ("tinystories", ["TRAIN", "VALID"])],
)
def test_a_value_of_text_names_what_is_downloaded(monkeypatch, bpe, text, names):
    asked = []
    monkeypatch.setattr(tinystories, "download", asked.append)
    found = bpe.find_text(text, "01_bpe.py")
    assert asked == [getattr(tinystories, name) for name in names]
    assert list(found) == ["train", "valid"][: len(names)]


@pytest.mark.parametrize("arguments", [[], ["big"], ["mini", "full"]])
def test_by_itself_it_asks_for_a_size(monkeypatch, arguments):
    monkeypatch.setattr(sys, "argv", ["tinystories.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        tinystories.main()
    assert message_of(stopped).endswith("python lessons/tinystories.py mini")


def test_it_starts_from_any_folder(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "lessons/tinystories.py"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.startswith("Which size?")


def test_by_itself_it_names_the_next_step(server, monkeypatch, capsys):
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    monkeypatch.setattr(tinystories, "FILES", {tinystories.VALID: (300_000, sha256)})
    monkeypatch.setattr(sys, "argv", ["tinystories.py", "mini"])
    tinystories.main()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith('Next: set TEXT = "tinystories-mini"')
