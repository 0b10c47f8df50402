"""The playground's server: every reader gets a story, and foreign pages get nothing.

Most tests run the server in this process, on a free port, with a small random model
whose tokens are bytes; the clients are as rude as those of the real world.
"""
import contextlib
import doctest
import http.client
import importlib
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections import Counter

import pytest
import torch
from conftest import ROOT
from test_take_home import lively

ME = "lessons/quests/playground.py"
SIZES = {"block_size": 64, "n_layer": 2, "n_head": 2, "n_embd": 16}


@pytest.fixture(scope="module")
def quest():
    """The quest as a module."""
    sys.path.append(str(ROOT / "lessons" / "quests"))
    module = importlib.import_module("playground")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PATIENCE", 120.0)  # for a machine that is very busy
        patch.setattr(module, "HEARTBEAT", 0.02)
        yield module


@pytest.fixture(scope="module")
def tokenizer(bpe):
    """Without merges: a token is a byte, and é needs two of them."""
    return bpe.train(Counter(), 260, 1)[0]


class Slow:
    """A model that takes its time for each token; it can be made to wait altogether."""

    def __init__(self, model, seconds):
        self.model, self.seconds, self.go = model, seconds, threading.Event()
        self.go.set()

    def __getattr__(self, name):
        return getattr(self.model, name)

    def hidden(self, idx, cache=None):
        self.go.wait(30)
        time.sleep(self.seconds)
        return self.model.hidden(idx, cache)


class Playground:
    """A server with its worker, and ways to ask it."""

    def __init__(self, quest, model, tokenizer):
        self.quest, self.model, self.tokenizer = quest, model, tokenizer

    def __enter__(self):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.quest, "PORT", 0)  # any that is free
            self.server = self.quest.open_server(len(self.tokenizer))
        self.port, self.asked_to_stop = self.server.port, []
        work = self.server, self.model, self.tokenizer, self.asked_to_stop
        self.worker = threading.Thread(target=self.quest.serve, args=work)
        self.worker.start()
        return self

    def __exit__(self, *_):
        self.asked_to_stop.append("the test is over")
        getattr(self.model, "go", threading.Event()).set()
        self.worker.join(30)
        assert not self.worker.is_alive()

    def request(self, method="POST", path="/story", body=b"{}", **headers):
        """-> (status, text). headers: Content_Type="..."; None leaves one out."""
        usual = {"Host": f"127.0.0.1:{self.port}"}
        usual |= {"Content_Type": "application/json"} if method == "POST" else {}
        usual |= {"Content_Length": str(len(body))} if method == "POST" else {}
        lines = [f"{method} {path} HTTP/1.1"] + [
            f"{name.replace('_', '-')}: {value}"
            for name, value in (usual | headers).items()
            if value is not None
        ]
        with self.connect() as connection:
            head = "\r\n".join([*lines, "", ""]).encode("latin-1")
            connection.sendall(head + (body if method == "POST" else b""))
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.status, answer.read().decode("utf-8")

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=120)

    def ask(self, **wish):
        """A connection over which a story comes (it has not begun to be read)."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        kind = {"Content-Type": "application/json"}
        client.request("POST", "/story", json.dumps(wish), kind)
        return client

    def tell(self, **wish):
        """The events of a story."""
        answer = self.ask(**wish).getresponse()
        text = answer.read().decode("utf-8")
        assert answer.status == 200, text
        return [json.loads(line) for line in text.splitlines()]

    def alone(self, text, length, seed, **settings):
        """The same story from stage 6, without any server: its prompt and new ids."""
        sample = self.quest.sample
        ids = [self.tokenizer.bos, *self.tokenizer.encode(text.rstrip(" "))]
        settings = sample.SETTINGS | settings
        return ids, sample.generate_all(self.model, [ids], length, settings, seed)[0]


def until(condition, seconds=120):
    """Wait for something that another thread does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.002)


def written(events):
    """(ids, text) of the tokens that were chosen."""
    ids = [event["id"] for event in events if "id" in event]
    return ids, "".join(event["text"] for event in events if "text" in event)


@pytest.fixture(scope="module")
def model(gpt):
    """A small random model."""
    return lively(gpt, 3, vocab_size=260, **SIZES)


@pytest.fixture(scope="module")
def shared(quest, model, tokenizer):
    """A playground for tests that do it no harm."""
    with Playground(quest, model, tokenizer) as playground:
        yield playground


@pytest.fixture
def slow(quest, model, tokenizer):
    """A playground of one's own, with a model that can be stopped."""
    with Playground(quest, Slow(model, 0.005), tokenizer) as playground:
        yield playground


def test_the_examples_in_the_docstrings_are_true(quest):
    failed, tried = doctest.testmod(quest)
    assert tried > 0 and failed == 0


# ------------------------------------------------------------------------ the stories


@pytest.mark.parametrize(
    "how",
    [
        {"temperature": 0},
        {"temperature": 1.0, "top_k": None, "top_p": 1.0, "min_p": 0},
        {"temperature": 1.5, "top_k": 3, "top_p": 1.0, "min_p": 0.0},
        {"temperature": 0.7, "top_k": 50, "top_p": 0.5, "min_p": 0.3},
    ],
)
def test_a_story_is_the_one_that_stage_6_writes(shared, how):
    # 90 tokens slide the window of 64.
    prompt, story = shared.alone("Tom ", 90, 5, **how)
    events = shared.tell(text="Tom ", length=90, seed=5, **how)
    ids, text = written(events)
    assert ids == story
    assert text == shared.tokenizer.decode(story)
    assert "".join(events[0]["prompt"]) == "Tom" and events[0]["seed"] == 5
    own_end = story[-1] == shared.tokenizer.eos
    assert events[-1] == {"end": "its own end" if own_end else "cut at its length"}


def test_each_token_comes_with_the_candidates_it_was_sampled_from(shared):
    how = {"temperature": 0.7, "top_k": 5, "top_p": 1.0, "min_p": 0}
    prompt, story = shared.alone("A dog", 20, 8, **how)
    events = [
        e for e in shared.tell(text="A dog", length=20, seed=8, **how) if "id" in e
    ]
    assert len(events) == len(story) > 5
    for step, event in enumerate(events):
        so_far = torch.tensor([prompt + story[:step]])
        with torch.no_grad():
            logits = shared.model(so_far)[0][0, -1]  # all of it anew, without a cache
        probs = logits.softmax(-1)
        best = probs.topk(10)
        assert [row[0] for row in event["candidates"]] == best.indices.tolist()
        learned = [row[2] for row in event["candidates"]]
        assert learned == pytest.approx(best.values.tolist(), abs=1e-3)
        # By hand: of the five most probable, p ** (1 / temperature), made to sum to 1.
        five = best.values[:5] ** (1 / 0.7)
        after = [*(five / five.sum()).tolist(), 0, 0, 0, 0, 0]
        assert [row[3] for row in event["candidates"]] == pytest.approx(after, abs=1e-3)
        assert event["left"] == 5 and event["id"] in best.indices[:5].tolist()
        prob = probs[event["id"]].item()
        assert event["prob"][0] == pytest.approx(prob, abs=1e-3)
        bits = -(probs * probs.log2()).sum().item()
        assert event["entropy"][0] == pytest.approx(bits, abs=0.02)


def test_the_candidates_are_those_of_the_samplers_even_when_the_window_slides(
    shared, monkeypatch
):
    # A penalty for repeated tokens depends on which tokens are seen at that moment.
    sample, shaped = shared.quest.sample, []
    choose = sample.choose

    def spy(logits, seen, settings, rngs):
        probs = sample.apply_samplers(logits[0], seen[0], **settings).softmax(-1)
        shaped.append(probs)
        return choose(logits, seen, settings, rngs)

    monkeypatch.setitem(sample.SETTINGS, "repetition_penalty", 2.0)
    monkeypatch.setattr(sample, "choose", spy)
    wish = {"temperature": 1.0, "top_k": None, "top_p": 1.0, "min_p": 0}
    events = [e for e in shared.tell(text="A", length=90, seed=4, **wish) if "id" in e]
    assert len(events) == len(shaped) > 64  # more than the context
    for event, probs in zip(events, shaped):
        prob = probs[event["id"]].item()
        assert event["prob"][1] == pytest.approx(prob, abs=1e-3)
        for i, _, _, after in event["candidates"]:
            assert after == pytest.approx(probs[i].item(), abs=1e-3)


def test_characters_come_whole_however_their_bytes_are_cut(shared, monkeypatch):
    ids = shared.tokenizer.encode("é🙂a")

    def scripted(model, prompts, *_):
        shared.quest.sample.last_logits(model, torch.tensor(prompts), model.new_cache())
        yield from ([i] for i in [*ids, *ids[:1]])  # and half an é at the end

    monkeypatch.setattr(shared.quest.sample, "generate", scripted)
    texts = [e["text"] for e in shared.tell(text="x") if "text" in e]
    assert texts == ["", "é", "", "", "", "🙂", "a", "", "\ufffd"]


def test_the_reader_learns_what_had_to_be_done_to_a_beginning(shared):
    first = shared.tell(text="a" * 500, length=1)[0]
    assert "sees 64 at once" in first["notes"] and "".join(first["prompt"]) == "a" * 48
    assert "an empty prompt" in shared.tell(text=" ", length=1)[0]["notes"]
    # Half a character, as JSON can hold it, harms nobody.
    assert "".join(shared.tell(text="a\ud83d", length=1)[0]["prompt"]) == "a\ufffd"


def test_without_a_seed_every_story_has_a_seed_of_its_own(shared):
    seeds = {shared.tell(length=1)[0]["seed"] for _ in range(5)}
    assert len(seeds) > 1


def test_fifty_at_once_and_each_gets_a_story_of_its_own(shared):
    stories, start = {}, threading.Barrier(50)

    def reader(number):
        start.wait()
        wish = {"text": f"Number {number}:", "seed": number, "temperature": 1.0}
        stories[number] = shared.tell(length=3 + number % 5, **wish)

    readers = [threading.Thread(target=reader, args=(n,)) for n in range(50)]
    for thread in readers:
        thread.start()
    for thread in readers:
        thread.join(120)
    assert len(stories) == 50, "somebody got no story"
    for number, events in stories.items():
        text, length = f"Number {number}:", 3 + number % 5
        _, story = shared.alone(text, length, number, temperature=1.0)
        first = next(event for event in events if "prompt" in event)
        assert "".join(first["prompt"]) == text and first["seed"] == number
        assert written(events) == (story, shared.tokenizer.decode(story))


# ---------------------------------------------------------------------- the strangers


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "DELETE"])
@pytest.mark.parametrize(
    "stranger",
    [
        # A name of the attacker's that now leads to 127.0.0.1: DNS rebinding.
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1.evil.example:{port}"},
        {"Host": "127.0.0.1"},  # another port, 80: another server was meant
        {"Host": "127.0.0.1:1"},
        {"Host": ""},
        {"Host": None},
        # A page of another site, or of another server on this computer.
        {"Origin": "http://evil.example"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://127.0.0.1:{port}.evil.example"},
        {"Origin": "null"},  # a file, or a frame in a sandbox
        {"Origin": ""},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
    ids=str,
)
def test_a_foreign_origin_gets_nothing_whatever_it_asks(shared, stranger, method):
    headers = {k: v and v.format(port=shared.port) for k, v in stranger.items()}
    before = shared.server.strangers
    path = "/story" if method == "POST" else "/"
    status, text = shared.request(method, path, b'{"text": "x"}', **headers)
    assert status == 403 and "prompt" not in text and "<script>" not in text
    assert shared.server.strangers == before + 1


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LocalHost"])
def test_our_own_page_gets_in_by_both_names_of_this_computer(shared, name):
    host = f"{name}:{shared.port}"
    status, page = shared.request("GET", "/", Host=host, Sec_Fetch_Site="none")
    assert status == 200 and "const DATA = {" in page
    origin = {"Origin": f"http://{host.lower()}", "Sec_Fetch_Site": "same-origin"}
    status, text = shared.request(body=b'{"length": 1}', Host=host, **origin)
    assert status == 200 and '"prompt"' in text


def test_only_this_computer_can_connect(shared):
    assert shared.server.server_address[0] == "127.0.0.1"


def test_no_page_may_frame_ours_and_ours_may_load_nothing(shared):
    client = http.client.HTTPConnection("127.0.0.1", shared.port, timeout=120)
    client.request("GET", "/")
    headers = client.getresponse().headers
    rules = headers["Content-Security-Policy"]
    assert "default-src 'none'" in rules and "frame-ancestors 'none'" in rules
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in headers


# ------------------------------------------------------------------- the bad requests


@pytest.mark.parametrize(
    "body, words",
    [
        (b"", "JSON"),
        (b'{"text": "cut sho', "JSON"),
        (b"\xff\xfe\xfd", "JSON"),
        (b"[]", "JSON"),
        (b"null", "JSON"),
        (b"7", "JSON"),
        (b"[" * 20_000, "JSON"),  # deeper than Python follows
        (b'{"length": ' + b"9" * 5000 + b"}", "JSON"),  # longer than Python counts
        (b'{"text": 7}', "at most 2,000 characters"),
        (b'{"text": "' + b"a" * 2001 + b'"}', "at most 2,000 characters"),
        (b'{"temperature": -0.1}', "temperature = -0.1"),
        (b'{"temperature": 3.1}', "a number from 0.0 to 3.0"),
        (b'{"temperature": NaN}', "a number from 0.0 to 3.0"),
        (b'{"temperature": 1e999}', "a number from 0.0 to 3.0"),
        (b'{"temperature": null}', "a number from 0.0 to 3.0"),
        (b'{"temperature": "hot"}', "a number from 0.0 to 3.0"),
        (b'{"top_k": 0}', "a whole number from 1 to 260"),
        (b'{"top_k": 261}', "a whole number from 1 to 260"),
        (b'{"top_k": 2.5}', "a whole number from 1 to 260"),
        (b'{"top_p": 0}', "a number from 0.01 to 1.0"),
        (b'{"top_p": 1.1}', "a number from 0.01 to 1.0"),
        (b'{"min_p": 1.1}', "a number from 0.0 to 1.0"),
        (b'{"length": 0}', "a whole number from 1 to 1,000"),
        (b'{"length": 1001}', "a whole number from 1 to 1,000"),
        (b'{"length": true}', "a whole number from 1 to 1,000"),
        (b'{"seed": -1}', "a whole number from 0 to"),
        (b'{"temprature": 1}', "'temprature'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_request_that_cannot_be_fulfilled_is_answered_with_words(shared, body, words):
    status, text = shared.request(body=body)
    assert status == 400 and words in text
    assert len(text) < 400  # it does not send back all that it was sent


@pytest.mark.parametrize(
    "status, words, asked",
    [
        (404, "/story", {"path": "/"}),
        (404, "at /", {"method": "GET", "path": "/../../etc/passwd"}),
        (200, "const DATA", {"method": "GET", "path": "//"}),  # it is / all the same
        (200, "const DATA", {"method": "GET", "path": "/?from=somewhere"}),
        (404, "at /", {"method": "GET", "path": "/story"}),
        (501, "", {"method": "PUT"}),
        # What a form on a foreign page can send without asking anybody:
        (415, "application/json", {"Content_Type": "text/plain"}),
        (415, "application/json", {"Content_Type": "multipart/form-data; boundary=x"}),
        (415, "application/json", {"Content_Type": None}),
        (411, "how long", {"Content_Length": None}),
        (411, "how long", {"Content_Length": "-5"}),
        (411, "how long", {"Content_Length": "1_0"}),
        (413, "32,768", {"Content_Length": "32769"}),
        (413, "32,768", {"Content_Length": "9" * 5000}),
        # Really sent, and more than the buffers between us hold:
        (413, "32,768", {"body": b"x" * 8_000_000}),
    ],
    ids=str,
)
def test_there_is_one_page_and_one_way_to_ask_for_a_story(shared, status, words, asked):
    got, text = shared.request(**asked)
    assert got == status and words in text


# ------------------------------------------------------- those who leave or dawdle


def test_whoever_vanishes_frees_the_model(slow):
    client = slow.ask(text="x", length=1000, seed=1, temperature=1.0)
    answer = client.getresponse()
    while b'"id"' not in answer.readline():
        pass
    answer.close()
    client.close()
    # 1,000 tokens would take five seconds and more; the next one need not wait.
    events = slow.tell(text="y", length=3, seed=2)
    assert written(events)[0] == slow.alone("y", 3, 2)[1]
    until(lambda: not slow.server.open)


def test_a_story_that_nobody_reads_is_given_up(slow, capsys):
    client = slow.ask(text="x", length=1000, seed=1, temperature=1.0)
    answer = client.getresponse()
    answer.readline()
    answer.close()
    client.close()
    until(lambda: not slow.server.open)
    slow.tell(length=1)
    said = capsys.readouterr().out
    left = re.search(r"story 1: 'x', seed 1: (\d+) tokens; its reader left", said)
    assert left and int(left[1]) < 1000, said


def test_a_full_line_says_so_kindly_and_those_in_it_know_how_many_are_before(
    slow, quest, monkeypatch
):
    monkeypatch.setattr(quest, "QUEUE", 2)
    slow.model.go.clear()
    first = slow.ask(text="1", length=2)
    until(lambda: slow.server.open and not slow.server.line.stories)
    clients = [first]
    for number in (1, 2):
        clients.append(slow.ask(text=str(number), length=2))
        until(lambda n=number: len(slow.server.line.stories) == n)
    status, text = slow.request(body=b"{}")
    assert status == 503 and "try again" in text
    assert slow.server.line.turned_away == 1
    answers = [client.getresponse() for client in clients]
    assert json.loads(answers[1].readline()) == {"before": 1}
    assert json.loads(answers[2].readline()) == {"before": 2}
    # Who loses patience leaves a place for the next.
    answers[1].close()
    clients[1].close()
    until(lambda: len(slow.server.line.stories) == 1)
    clients.append(slow.ask(text="4", length=2))
    until(lambda: len(slow.server.line.stories) == 2)
    slow.model.go.set()
    for answer in (answers[0], answers[2], clients[3].getresponse()):
        last = json.loads(answer.read().decode().splitlines()[-1])
        assert last["end"] in ("cut at its length", "its own end")


def test_whoever_says_nothing_or_one_letter_at_a_time_is_hung_up_on(
    quest, model, tokenizer, monkeypatch
):
    def is_hung_up_on(begins):
        with playground.connect() as connection:
            connection.sendall(begins)
            connection.settimeout(0.05)
            end = time.monotonic() + 120
            while time.monotonic() < end:
                with contextlib.suppress(TimeoutError):
                    try:
                        if begins:  # always too soon for a time-out of each byte
                            connection.sendall(b"X")
                        if connection.recv(1000) == b"":
                            return True
                    except ConnectionError:
                        return True

    monkeypatch.setattr(quest, "PATIENCE", 0.3)
    with Playground(quest, model, tokenizer) as playground:
        assert is_hung_up_on(b"")
        assert is_hung_up_on(b"GET / HTTP/1.1\r\nHost: 12")
        assert is_hung_up_on(b"POST /story HTTP/1.1\r\n")
        until(lambda: not playground.server.open)


def test_too_many_connections_are_hung_up_on_and_the_others_still_served(
    slow, quest, monkeypatch
):
    monkeypatch.setattr(quest, "CONNECTIONS", 3)
    silent = [slow.connect() for _ in range(3)]
    until(lambda: len(slow.server.open) == 3)
    with slow.connect() as fourth:
        assert fourth.recv(100) == b""
    silent.pop().close()
    until(lambda: len(slow.server.open) == 2)
    assert slow.request("GET", "/")[0] == 200
    for connection in silent:
        connection.close()


def test_the_end_of_the_playground_ends_every_story(quest, model, tokenizer):
    with Playground(quest, Slow(model, 0.01), tokenizer) as playground:
        clients = [playground.ask(length=1000, temperature=1.0) for _ in range(3)]
        answers = [client.getresponse() for client in clients]
        until(lambda: len(playground.server.line.stories) == 2)
        playground.asked_to_stop.append("the test is over")
        for answer in answers:
            last = json.loads(answer.read().decode().splitlines()[-1])
            assert last == {"end": "the playground was stopped"}
            answer.close()
        for client in clients:
            client.close()
    with pytest.raises(ConnectionRefusedError):
        playground.connect()


# ------------------------------------------------------------------- as learners run it


@pytest.mark.parametrize(
    "constant, value, words",
    [
        ("PORT", 80, "from 1,024 to 65,535"),
        ("PORT", "8010", "a whole number"),
        ("MAX_TOKENS", 0, "MAX_TOKENS = 0"),
        ("QUEUE", 0, "QUEUE = 0"),
        ("PATIENCE", 0, "PATIENCE = 0"),
        ("CONNECTIONS", 1.5, "a whole number"),
    ],
)
def test_a_constant_out_of_range_is_named(quest, monkeypatch, constant, value, words):
    monkeypatch.setattr(quest, constant, value)
    with pytest.raises(SystemExit) as error:
        quest.check_constants()
    assert words in error.value.code and len(error.value.code.splitlines()) == 3


def test_a_missing_page_is_named(quest, monkeypatch, tmp_path):
    monkeypatch.setattr(quest, "PAGE", tmp_path / "playground.html")
    with pytest.raises(SystemExit) as error:
        quest.open_server(260)
    assert "is missing" in error.value.code and "git checkout" in error.value.code


@pytest.fixture
def port(quest, model, tokenizer, monkeypatch):
    """A free port, which main() will use; and a model for it."""
    monkeypatch.setattr(quest.sample, "check_inputs", lambda: (model, tokenizer))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(quest, "PORT", free.getsockname()[1])
    return quest.PORT


def test_a_taken_port_is_named(quest, port):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(SystemExit) as stopped:
            quest.main()
    lines = str(stopped.value).splitlines()
    assert len(lines) == 3 and lines[0] == f"Port {port} is taken."
    assert "Another program" in lines[1] and "change PORT" in lines[2]


def test_ctrl_c_ends_the_story_and_the_server_in_three_lines(quest, port, capsys):
    events = []

    def reader():
        until(lambda: not socket.socket().connect_ex(("127.0.0.1", port)))
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        kind = {"Content-Type": "application/json"}
        wish = json.dumps({"text": "Once", "length": 1000, "temperature": 3, "seed": 1})
        client.request("POST", "/story", wish, kind)
        answer = client.getresponse()
        events.append(json.loads(answer.readline()))
        os.kill(os.getpid(), signal.SIGINT)  # heard by the main thread, in main()
        events.extend(json.loads(line) for line in answer.read().decode().splitlines())

    thread = threading.Thread(target=reader)
    thread.start()
    with pytest.raises(SystemExit) as stopped:
        quest.bpe.run_stage(quest.main, ME, lock=False)
    thread.join(120)
    lines = str(stopped.value).splitlines()
    assert len(lines) == 3 and lines[0] == "Stopped by Ctrl-C." and ME in lines[2]
    assert "prompt" in events[0] and "end" in events[-1]  # whoever was reading is told
    tokens = sum("id" in event for event in events)
    said = capsys.readouterr().out
    assert said.startswith("[read] ") and f"open http://127.0.0.1:{port} (" in said
    assert f"[check] 1 stories, {tokens:,} tokens" in said


def test_without_a_model_the_script_names_the_stage_to_run(workshop, small_tokenizer):
    small_tokenizer(workshop).refuses(ME, "best.pt is missing", "python 04_train.py")
