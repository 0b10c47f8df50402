"""Reading of texts: borders, line ends, wrong bytes, downloads that go wrong."""

import errno
import functools
import hashlib
import http.server
import os
import random
import re
import threading

import pytest
import texts

SEPARATORS = ["<|endoftext|>", "\n\n", "\r\n\r\n", "\r\r"]


@pytest.fixture
def small_steps(monkeypatch):
    """Blocks and ranges so small that every border falls everywhere."""

    def set_sizes(block, size, longest=2**16):
        monkeypatch.setattr(texts, "BLOCK", block)
        monkeypatch.setattr(texts, "RANGE", size)
        monkeypatch.setattr(texts, "LONGEST_STORY", longest)

    return set_sizes


def read_all(path):
    return [story for task in texts.tasks(path) for story in texts.read_stories(*task)]


def message_of(stopped):
    lines = str(stopped.value).splitlines()
    assert len(lines) == 3, lines
    return "\n".join(lines)


# ---------------------------------------------------------------------------- borders


@pytest.mark.parametrize("separator", SEPARATORS)
def test_no_border_of_blocks_or_ranges_changes_the_stories(
    tmp_path, small_steps, separator
):
    # Characters of one to four bytes, so that borders fall into the middle of each.
    rng = random.Random(separator)
    letters = "aé漢👍 .<|>"
    for _ in range(60):
        stories = [
            "".join(rng.choices(letters, k=rng.randint(0, 30))) for _ in range(30)
        ]
        path = tmp_path / "text.txt"
        path.write_bytes(separator.join(stories).encode())
        wanted = [story.strip() for story in stories if story.strip()]
        small_steps(rng.randint(1, 40), rng.randint(1, 90))
        tasks = texts.tasks(path)
        # The ranges are the file: nothing twice, nothing left out.
        assert tasks[0][2] == 0 and tasks[-1][3] == path.stat().st_size
        assert all(a[3] == b[2] for a, b in zip(tasks, tasks[1:]))
        assert read_all(path) == wanted


@pytest.mark.parametrize("size", [1, 10, 25, 1000])
def test_batches_hold_every_story_once_in_its_order(tmp_path, monkeypatch, size):
    monkeypatch.setattr(texts, "BATCH", size)
    stories = ["x" * n for n in range(1, 12)]
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(stories))
    batches = list(texts.batches(*texts.tasks(path)[0]))
    assert [story for batch in batches for story in batch] == stories
    # Without its last story a batch is still too small, so none is much too large.
    assert all(sum(map(len, batch[:-1])) < size for batch in batches)


@pytest.mark.parametrize("shift", range(20))
def test_a_separator_exactly_at_the_border_of_a_range_is_seen(
    tmp_path, small_steps, shift
):
    path = tmp_path / "text.txt"
    path.write_bytes(b"x" * (30 + shift) + b"<|endoftext|>" + b"y" * 50)
    small_steps(16, 40)
    assert read_all(path) == ["x" * (30 + shift), "y" * 50]


def test_empty_stories_and_runs_of_empty_lines_give_no_story(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"\n\n\none\n\n\n\n\n two \n\n\n")
    assert read_all(path) == ["one", "two"]


def test_the_line_endoftext_wins_over_empty_lines(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"one\n\nstill one\n<|endoftext|>\ntwo")
    assert read_all(path) == ["one\n\nstill one", "two"]


@pytest.mark.parametrize("end", [b"\r\n", b"\r", b"\n"])
def test_line_ends_of_all_systems_become_the_same(tmp_path, end):
    for separator in (b"<|endoftext|>" + end, end):
        path = tmp_path / "text.txt"
        path.write_bytes(end.join([b"one", b"line", separator + b"two", b"lines", b""]))
        assert read_all(path) == ["one\nline", "two\nlines"]


def test_a_byte_order_mark_is_no_part_of_the_first_story(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("\ufeffone\n\n\ufefftwo".encode())
    assert read_all(path) == ["one", "\ufefftwo"]  # only the mark at the very beginning


def test_a_text_in_which_nothing_separates_is_refused(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("one line\n" * 5000)
    with pytest.raises(SystemExit) as stopped:
        texts.tasks(path)
    assert "one single story" in message_of(stopped)
    assert "Put a line <|endoftext|>" in message_of(stopped)


def test_a_text_of_blanks_is_refused(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(" \n\n" * 5000)
    with pytest.raises(SystemExit, match="nothing but blanks"):
        texts.first_stories(texts.tasks(path), 3)


@pytest.mark.parametrize("before", [1, 5, 500, 1500])
def test_a_story_that_does_not_end_is_refused(tmp_path, small_steps, before):
    # 3,000 bytes where 1,000 are allowed: at the beginning, in a range, beyond it
    path = tmp_path / "text.txt"
    path.write_bytes(b"a\n\n" * before + b"x" * 3000 + b"\n\nb" * 10)
    small_steps(100, 700, longest=1000)
    with pytest.raises(SystemExit, match="is longer than 1,000 bytes"):
        read_all(path)


def test_one_story_of_very_many_bytes_is_refused_without_reading_them_all(tmp_path):
    path = tmp_path / "text.txt"
    with open(path, "wb") as file:
        file.write(b"a\n\n" * 100)
        for _ in range(40):
            file.write(b"word " * 200_000)  # 40 MB in all
    with pytest.raises(SystemExit) as stopped:
        texts.tasks(path)
    assert "longer than 16,777,216 bytes" in message_of(stopped)


# ------------------------------------------------------------------------- wrong bytes


@pytest.mark.parametrize("offset", [0, 7, 499, 500, 501, 2500, 4999])
def test_the_first_byte_that_is_not_utf8_is_named_with_its_offset(
    tmp_path, small_steps, offset
):
    content = bytearray(b"One day.\n\n" * 500)  # 5,000 bytes
    content[offset] = 0xE9  # "é" as Windows-1252 writes it
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    small_steps(64, 500)
    with pytest.raises(SystemExit) as stopped:
        read_all(path)
    assert f"byte 0xe9 at offset {offset:,} does" in message_of(stopped)


def test_a_character_cut_off_at_the_end_of_the_file_is_named(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"one\n\ntwo \xe2\x80")
    with pytest.raises(SystemExit, match="byte 0xe2 at offset 9 "):
        read_all(path)


def count_stories(task):
    return sum(1 for _ in texts.read_stories(*task))


def fail_at(number, task):
    if task == number:
        raise ValueError(f"task {task} went wrong")
    return task


def die(task):
    os._exit(9)


def test_a_wrong_byte_found_by_a_worker_stops_the_run_with_its_offset(
    tmp_path, small_steps
):
    path = tmp_path / "text.txt"
    path.write_bytes(b"One day.\n\n" * 400 + b"caf\xe9" + b"\n\nOne day." * 400)
    small_steps(2**20, 500)
    tasks = texts.tasks(path)
    with pytest.raises(SystemExit, match="offset 4,003 does not belong"):
        list(texts.in_workers(count_stories, tasks, 2, "reading"))


# ---------------------------------------------------------------------------- workers


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_tasks(workers):
    function = functools.partial(fail_at, -1)
    assert list(texts.in_workers(function, range(20), workers, "test")) == list(
        range(20)
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_in_a_worker_reaches_the_screen(workers):
    results = texts.in_workers(functools.partial(fail_at, 3), range(9), workers, "test")
    with pytest.raises(ValueError, match="task 3 went wrong"):
        list(results)


def test_a_worker_that_dies_is_told_in_three_lines():
    with pytest.raises(SystemExit) as stopped:
        list(texts.in_workers(die, range(4), 2, "test"))
    assert "WORKERS = 1" in message_of(stopped)


def test_auto_starts_no_process_that_would_not_pay(capsys):
    assert texts.processes("auto", [1]) == 1
    assert texts.processes("auto", range(1000)) >= 1
    assert texts.processes(3, range(1000)) == 3
    assert texts.processes(3, [1, 2]) == 2  # no more processes than tasks
    assert "(auto: " in capsys.readouterr().out


# ---------------------------------------------------------------------------- sources


@pytest.mark.parametrize("text", ["no-such.txt", "", 5, None, ["a"]])
def test_a_text_that_is_not_there_is_refused_with_the_choices(text):
    with pytest.raises(SystemExit) as stopped:
        texts.sources(text)
    assert '"tinystories-mini"' in message_of(stopped)


def test_a_folder_is_no_text(tmp_path):
    with pytest.raises(SystemExit, match="is a folder"):
        texts.sources(str(tmp_path))


@pytest.mark.parametrize("size, word", [(0, "is empty"), (9_999, "too small")])
def test_an_empty_or_tiny_text_is_refused_with_the_minimum(tmp_path, size, word):
    path = tmp_path / "text.txt"
    path.write_bytes(b"a" * size)
    with pytest.raises(SystemExit, match=word) as stopped:
        texts.sources(str(path))
    assert "at least 10,000 bytes" in message_of(stopped)


def test_a_binary_file_is_refused_with_the_place(tmp_path):
    path = tmp_path / "text.bin"
    path.write_bytes(b"PK" * 3000 + b"\0" * 9000)
    with pytest.raises(SystemExit, match="offset 6,000") as stopped:
        texts.tasks(path)
    assert "binary" in message_of(stopped)


# --------------------------------------------------------------------------- downloads

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
    monkeypatch.setattr(texts, "ADDRESS", f"http://127.0.0.1:{served.server_port}/")
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    monkeypatch.setattr(texts, "FILES", {"file.txt": (len(CONTENT), sha256)})
    monkeypatch.setattr(texts, "DATA", tmp_path / "data")
    monkeypatch.setattr(texts, "WAIT", 0.01)
    monkeypatch.setattr(texts, "BLOCK", 10_000)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    Server.tricks, Server.asked = [], []
    yield Server
    served.shutdown()
    served.server_close()


def downloaded():
    path = texts.download("file.txt")
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
def test_a_server_that_misbehaves_twice_is_put_up_with(server, tricks, asked):
    server.tricks[:] = tricks
    downloaded()
    assert server.asked == asked


def test_after_three_tries_the_reason_is_told_and_the_beginning_kept(server):
    server.tricks[:] = ["drop"] * 3
    with pytest.raises(SystemExit) as stopped:
        texts.download("file.txt")
    assert "could not be downloaded: the connection ended" in message_of(stopped)
    assert "TEXT = 'practice' needs none" in message_of(stopped)
    assert not (texts.DATA / "file.txt").exists()
    assert (texts.DATA / "file.txt.part").stat().st_size == 262_500
    server.asked.clear()
    downloaded()  # the next run goes on there
    assert server.asked == [262_500]


def test_wrong_bytes_three_times_are_never_called_the_file(server):
    server.tricks[:] = ["other bytes"] * 3
    with pytest.raises(SystemExit, match="another sha256"):
        texts.download("file.txt")
    assert list(texts.DATA.iterdir()) == []


def test_a_beginning_that_is_too_long_is_started_anew(server):
    texts.DATA.mkdir()
    (texts.DATA / "file.txt.part").write_bytes(b"x" * 300_001)
    downloaded()
    assert server.asked == [0]


def test_without_a_network_the_message_says_what_needs_none(server, monkeypatch):
    monkeypatch.setattr(texts, "ADDRESS", "http://127.0.0.1:9/")  # nobody listens there
    with pytest.raises(SystemExit) as stopped:
        texts.download("file.txt")
    assert "TEXT = 'practice' needs none" in message_of(stopped)


def test_a_full_disk_is_not_tried_again(server, monkeypatch):
    tried = []

    def full(*arguments):
        tried.append(arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(texts, "fetch", full)
    with pytest.raises(OSError, match="No space left"):
        texts.download("file.txt")
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
        patch.setattr(texts, "tqdm", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            texts.download("file.txt")
    assert (texts.DATA / "file.txt.part").stat().st_size == 30_000
    server.asked.clear()
    downloaded()
    assert server.asked == [30_000]
