"""The judge's quest asks a server of ours, which answers as badly as real ones do."""

import contextlib
import doctest
import importlib
import json
import os
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from conftest import ROOT
from test_take_home import lively, write_best

GOOD = {"grammar": 8, "creativity": 6, "consistency": 7, "plot": 5, "age": "C"}
SECRET = "sk-nobody-may-see-this"


@pytest.fixture(scope="module")
def quest():
    """The quest as a module."""
    sys.path.append(str(ROOT / "lessons" / "quests"))
    return importlib.import_module("judge")


class Server:
    """An OpenAI-style server on this machine; `answers` says what it does, in turn.

    An answer is a text (200), (status, text, headers), or a function of the request.
    The last one is repeated.
    """

    def __init__(self, answers):
        self.answers, self.asked, self.headers = answers, [], []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                number = min(len(outer.asked), len(outer.answers) - 1)
                outer.asked.append(body)
                outer.headers.append(dict(self.headers))
                answer = outer.answers[number]
                if callable(answer):
                    answer = answer(body)
                status, text, headers = (
                    answer if isinstance(answer, tuple) else (200, wrap(answer), {})
                )
                with contextlib.suppress(OSError):  # whoever asked may have left
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(text.encode())))
                    self.end_headers()
                    self.wfile.write(text.encode())

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.02,)).start()
        return self

    def __exit__(self, *args):
        self.server.shutdown()
        self.server.server_close()


def wrap(text):
    """A text in the form of OpenAI's answers."""
    return json.dumps(
        {"choices": [{"message": {"role": "assistant", "content": text}}]}
    )


@pytest.fixture
def ask(quest, tmp_path, monkeypatch):
    """ask(answers) -> (what the judge says about a story, the server)."""
    monkeypatch.setattr(quest, "TIMEOUT", 30)
    pauses = []
    monkeypatch.setattr(quest.time, "sleep", pauses.append)

    def run(*answers):
        with Server(answers) as server:
            judge = quest.Judge(server.url, "a-model", tmp_path / "cache.jsonl")
            try:
                said = judge.marks("Once upon a", "time, Tom ran.")
            except quest.Refused as error:
                said = str(error)
            server.pauses, server.judge = list(pauses), judge
            pauses.clear()
            return said, server

    return run


def without_text(entry):
    return {name: entry[name] for name in GOOD}


def test_the_examples_in_the_docstrings_are_true(quest):
    failed, tried = doctest.testmod(quest)
    assert tried > 0 and failed == 0


# --------------------------------------------------------------------- the answers


JSON_GOOD = json.dumps(GOOD)


@pytest.mark.parametrize(
    "answer",
    [
        f"It is well told.\n{JSON_GOOD}",
        f"It is well told.\n```json\n{JSON_GOOD}\n```\nI hope this helps!",
        '<think>Maybe {"grammar": 1, "creativity": 1, "consistency": 1, "plot": 1}?'
        f"</think>Good.\n{JSON_GOOD}",
        f"Grammar: 2. Creativity: 2. Consistency: 2. Plot: 2.\n{JSON_GOOD}",
        f'{{"grammar": 1}} {{"note": "not this"}} {JSON_GOOD}',
        '{"Grammar": "8/10", "Creativity": "3/5", "Consistency": 7.0, "Plot": "50/100",'
        ' "Age group": "C: 6-7"}',
        "**Grammar:** 8/10\n**Creativity:** 6/10\n"
        "**Consistency:** 7/10\n**Plot:** 5/10\n"
        "**Age group:** C",
        "Grammar - 8, creativity - 6, consistency - 7, plot - 5, age: C (6-7)",
        f"the thought began elsewhere </think> {JSON_GOOD}",
        f'Format: {{"grammar": 0, "creativity": 0, "consistency": 0, "plot": 0}}. '
        f"Mine: {JSON_GOOD}",  # the last one is meant
    ],
)
def test_marks_are_found_in_whatever_surrounds_them(quest, answer):
    assert quest.read_marks(answer) == GOOD


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "I cannot grade this.",
        "<think>grammar 8, creativity 6, consistency 7, plot 5",  # it never ended
        '{"grammar": 8, "creativity": 6, "consistency": 7}',  # no plot
        '{"grammar": 11, "creativity": 6, "consistency": 7, "plot": 5}',
        '{"grammar": -1, "creativity": 6, "consistency": 7, "plot": 5}',
        '{"grammar": null, "creativity": 6, "consistency": 7, "plot": 5}',
        '{"grammar": true, "creativity": 6, "consistency": 7, "plot": 5}',
        '{"grammar": "good", "creativity": "ok", "consistency": "ok", "plot": "ok"}',
        "Grammar: 200/100. Creativity: 6. Consistency: 7. Plot: 5.",
    ],
)
def test_what_is_no_mark_is_not_taken_for_one(quest, answer):
    assert quest.read_marks(answer) is None


def test_an_age_is_welcome_but_not_necessary(quest):
    for age, expected in [("B", "B"), ("(D) 8-9", "D"), ("seven", None), (None, None)]:
        assert quest.read_marks(json.dumps(GOOD | {"age": age}))["age"] == expected


# ---------------------------------------------------------------------- the server


def test_a_good_answer_is_taken_and_kept_with_its_assessment(ask):
    said, server = ask(f"Well told.\n{JSON_GOOD}")
    assert without_text(said) == GOOD and said["assessment"].startswith("Well told.")
    assert len(server.asked) == 1
    content = server.asked[0]["messages"][0]["content"]
    assert "Once upon a *** time, Tom ran." in content
    # Words before marks.
    assert content.index("assessment") < content.index('"grammar"')
    said, server = ask("no answer is needed: it is in the cache")
    assert without_text(said) == GOOD and server.asked == []


def test_an_answer_without_marks_is_asked_for_once_more_and_then_counted_as_failed(ask):
    said, server = ask("I am not sure.", f"Now I am. {JSON_GOOD}")
    assert without_text(said) == GOOD and len(server.asked) == 2
    server.judge.cache_path.unlink()
    said, server = ask("I am not sure.")
    assert "no marks" in said and len(server.asked) == 2
    assert not server.judge.cache_path.exists()  # so the next run asks again


def test_options_that_the_model_does_not_know_are_dropped(ask):
    bad = [
        (400, f'{{"error": {{"message": "Unsupported parameter: \'{name}\'"}}}}', {})
        for name in ("max_tokens", "temperature")
    ]
    said, server = ask(*bad, JSON_GOOD)
    assert without_text(said) == GOOD and server.pauses == []
    assert [sorted(body) for body in server.asked] == [
        ["max_tokens", "messages", "model", "temperature"],
        ["messages", "model", "temperature"],
        ["messages", "model"],
    ]


def test_a_request_that_is_refused_for_good_is_not_repeated(ask):
    said, server = ask((400, "the prompt offends me", {}))
    assert said == "400: the prompt offends me" and len(server.asked) == 1


def test_too_many_requests_are_answered_by_waiting_as_long_as_asked(ask):
    said, server = ask((429, "slowly", {"Retry-After": "7"}), JSON_GOOD)
    assert without_text(said) == GOOD and server.pauses == [7.0]


def test_a_retry_after_of_a_day_is_not_waited_for(ask, quest):
    said, server = ask((429, "slowly", {"Retry-After": "86400"}), JSON_GOOD)
    assert server.pauses == [quest.LONGEST_PAUSE]


def test_a_retry_after_can_be_a_date(quest, monkeypatch):
    monkeypatch.setattr(quest.time, "time", lambda: 1_000_000_000.0)
    assert quest.retry_after("Sun, 09 Sep 2001 01:47:10 GMT") == 30
    assert quest.retry_after("Mon, 01 Jan 2001 00:00:00 GMT") == 0


def test_a_server_in_trouble_is_asked_again_with_longer_pauses(ask, quest):
    said, server = ask((500, "oh", {}), (503, "oh", {}), JSON_GOOD)
    assert without_text(said) == GOOD and server.pauses == [1.0, 2.0]
    server.judge.cache_path.unlink()
    said, server = ask((500, "oh dear", {}))
    assert said == "500: oh dear"
    assert len(server.asked) == quest.TRIES and server.pauses == [1, 2, 4, 8]


@pytest.mark.parametrize(
    "garbage",
    [
        "<html>hello</html>",
        "[]",
        '{"choices": []}',
        "",
        '{"choices": [{"message": {"content": null}}]}',
    ],
)
def test_garbage_is_asked_about_again_and_then_counted(ask, quest, garbage):
    said, server = ask((200, garbage, {}))
    assert "not in the form" in said and len(server.asked) == quest.TRIES
    said, _ = ask((200, garbage, {}), JSON_GOOD)
    assert without_text(said) == GOOD


def test_an_answer_that_takes_too_long_is_asked_for_again(ask, quest, monkeypatch):
    # The first request waits for 50 ms, those after a pause as long as it takes. Both
    # sides wait for each other, so that a slow machine cannot change the order.
    monkeypatch.setattr(quest, "TIMEOUT", 0.05)
    arrived, given_up = threading.Event(), threading.Event()

    def pause(seconds):
        assert arrived.wait(60)
        monkeypatch.setattr(quest, "TIMEOUT", 60)
        given_up.set()

    def first(body):
        arrived.set()
        given_up.wait(60)
        return JSON_GOOD

    monkeypatch.setattr(quest.time, "sleep", pause)
    said, server = ask(first, JSON_GOOD)
    assert without_text(said) == GOOD and len(server.asked) == 2


@pytest.mark.parametrize("code, words", [(401, "key"), (403, "key"), (404, "no model")])
def test_a_wrong_key_or_name_stops_the_run_in_three_lines(ask, code, words):
    with pytest.raises(SystemExit, match=words) as stopped:
        ask((code, "no", {}))
    assert len(str(stopped.value).split("\n")) == 3


def test_nobody_there_stops_the_run_in_three_lines(quest, tmp_path):
    with socket.socket() as mute:  # it has a port, and nobody listens there
        mute.bind(("127.0.0.1", 0))
        for port in (mute.getsockname()[1], "port"):
            url = f"http://127.0.0.1:{port}/v1"
            judge = quest.Judge(url, "a-model", tmp_path / "cache.jsonl")
            with pytest.raises(SystemExit, match="Is it running") as stopped:
                judge.marks("a", "b")
            assert len(str(stopped.value).split("\n")) == 3


def test_a_cache_line_that_was_not_finished_is_ignored(ask, quest):
    said, server = ask(JSON_GOOD)
    path = server.judge.cache_path
    path.write_text(path.read_text() + '\n{"story": "half a li')
    said, server = ask("no marks here")
    assert without_text(said) == GOOD and server.asked == []
    with Server([JSON_GOOD]) as server:  # and does not spoil the line after it
        quest.Judge(server.url, "a-model", path).marks("another", "story")
        quest.Judge(server.url, "a-model", path).marks("another", "story")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe not UTF-8", b"[1, 2]", b"null", b"7", b"[" * 20_000, b"{}",
        b'{"story": "S"}', b'{"story": ["S"], "grammar": 1}',
        b'{"story": "S", "grammar": 8, "creativity": 6, "consistency": 7}',
        b'{"story": "S", "grammar": "?", "creativity": 6, "consistency": 7, "plot": 5}',
    ],
    ids=lambda line: str(line)[:30],
)  # fmt: skip
def test_a_damaged_cache_costs_its_damaged_lines_only(quest, tmp_path, line):
    path = tmp_path / "cache.jsonl"
    good = json.dumps(GOOD | {"story": "T", "grammar": "8/10"}).encode()
    path.write_bytes(line + b"\n" + good)
    cache = quest.read_cache(path)
    assert list(cache) == ["T"] and without_text(cache["T"]) == GOOD


# ----------------------------------------------------------------------- the quest


def test_the_beginnings_are_44_and_none_ends_with_its_sentence(quest):
    beginnings = quest.read_beginnings(quest.BEGINNINGS)
    assert len(set(beginnings)) == len(beginnings) == 44
    for beginning in beginnings:
        assert beginning[-1].isalpha() and "  " not in beginning


class Letters:
    """A tokenizer whose tokens are letters."""

    def decode(self, ids):
        return "".join(chr(i) for i in ids if i > 3)


def test_real_endings_are_cut_in_the_middle_of_a_sentence_and_shuffling_keeps_words(
    quest,
):
    stories = [
        "Tom ran. Then he saw a dog. He was glad.",
        "One. Two. Three. Four. Five six.",
    ]
    ids = np.array([i for s in stories for i in [2, *map(ord, s), 3]])
    pairs = quest.real_endings(Letters(), ids, 2, longest=100)
    # A third of 9 words is 3; of 6 it is 2, but that ends with a sentence: 1 word.
    assert [beginning for beginning, _ in pairs] == ["Tom ran. Then", "One."]
    for story, (beginning, ending) in zip(stories, pairs):
        assert f"{beginning} {ending}" == story
        mixed = quest.shuffled(ending, 1)
        assert sorted(mixed.split()) == sorted(ending.split())
    assert quest.shuffled("a b c d e f", 1) != "a b c d e f"


def test_a_whole_book_is_not_sent_as_a_real_ending(quest):
    book = np.array([2, *map(ord, "A long day went by. " * 5000), 3])
    ((beginning, ending),) = quest.real_endings(Letters(), book, 4, longest=100)
    assert len(f"{beginning} {ending}") == 99  # and <BOS>


def test_the_bootstrap_interval_is_as_wide_as_theory_says(quest):
    marks = [
        [float(i % 11)] for i in range(440)
    ]  # sd 3.16, so 1.96 * sd / sqrt(n) = 0.295
    found = quest.interval(marks)
    assert found["mean"] == 5.0
    assert found["high"] - found["low"] == pytest.approx(2 * 0.295, rel=0.1)
    pairs = quest.interval([mark * 2 for mark in marks])  # twice the same says no more
    assert pairs["high"] - pairs["low"] == pytest.approx(found["high"] - found["low"])
    assert quest.interval([[7.0]]) == {"mean": 7.0, "low": 7.0, "high": 7.0}


@pytest.fixture(scope="module")
def best(tmp_path_factory, bpe, gpt, prepared):
    """best.pt of a small random model for the small text's tokenizer."""
    path = tmp_path_factory.mktemp("04_train") / "best.pt"
    sizes = {"block_size": 96, "n_layer": 1, "n_head": 2, "n_embd": 16}
    model = lively(gpt, vocab_size=400, **sizes)
    write_best(path, gpt, bpe, prepared / "artifacts/01_bpe/tokenizer.json", model)
    return path


@pytest.fixture
def school(tmp_path, quest, bpe, prepared, best, monkeypatch):
    """The quest pointed at a small model; -> the folder it writes."""
    monkeypatch.setattr(bpe, "OUT", prepared / "artifacts/01_bpe")
    monkeypatch.setattr(quest, "DATA", prepared / "artifacts/02_prepare")
    monkeypatch.setattr(quest, "MODEL", best)
    monkeypatch.setattr(quest, "OUT", tmp_path / "05_eval")
    monkeypatch.setattr(quest, "CONTROLS", 4)
    path = tmp_path / "beginnings.txt"
    path.write_text("# two\n\n- Once upon\n  a\n- Tom had\n", "utf-8")
    monkeypatch.setattr(quest, "BEGINNINGS", path)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET + "\n")  # as from a file
    return tmp_path / "05_eval"


def test_without_an_address_nothing_is_sent_and_a_dry_run_shows_the_request(
    quest, school, capsys, monkeypatch
):
    def never(*args, **more):
        raise AssertionError("something was sent")

    monkeypatch.setattr(quest.urllib.request, "urlopen", never)
    assert quest.JUDGE_URL is None and quest.DRY_RUN is False  # as we deliver it
    with pytest.raises(SystemExit, match="JUDGE_URL is None") as stopped:
        quest.main()
    assert len(str(stopped.value).split("\n")) == 3
    monkeypatch.setattr(quest, "DRY_RUN", True)
    quest.main()
    said = capsys.readouterr().out
    assert "Once upon a ***" in said and "nothing was sent" in said
    assert '"model": "llama3.1"' in said and SECRET not in said
    monkeypatch.setattr(quest, "JUDGE_URL", "localhost")
    with pytest.raises(SystemExit, match="not an address"):
        quest.main()


def test_a_run_grades_all_groups_counts_failures_and_resumes(
    quest, school, capsys, monkeypatch
):
    bad = iter([True, True])  # the first story gets no marks, twice

    def grade(body):
        if next(bad, False):
            return "I would rather not."
        return JSON_GOOD

    monkeypatch.setattr(quest.time, "sleep", lambda seconds: None)
    with Server([grade]) as server:
        monkeypatch.setattr(quest, "JUDGE_URL", server.url)
        quest.main()
        first = json.loads((school / "judge.json").read_text())
        assert len(server.asked) == 2 + 4 + 4 + 1
        assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"
        assert first["asked"] == 10 and first["failed"] == 1
        quest.main()  # only what failed is asked again
        assert len(server.asked) == 2 + 4 + 4 + 1 + 1
    second = json.loads((school / "judge.json").read_text())
    assert second["failed"] == 0
    assert second["groups"]["this model"]["stories"] == 2
    for result in (first, second):  # a failure is not a mark of zero
        for name, group in result["groups"].items():
            assert group["grammar"]["mean"] == 8 and group["plot"]["mean"] == 5, name
    assert second["groups"]["real endings"]["ages"] == {"C: 6-7": 4}
    for path in school.iterdir():
        assert SECRET not in path.read_text()
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    assert "1 of 10 answers could not be used" in said.out
    # It gives all groups the same marks.
    assert "too much alike: this judge is too weak" in said.out


def test_endings_are_the_same_in_every_run_and_stop_at_eos(
    quest, school, monkeypatch
):
    monkeypatch.setattr(quest, "DRY_RUN", True)
    model, tokenizer, _, _ = quest.check_inputs()
    first = quest.complete(model, tokenizer, "Once upon a time", 3, seed=5)
    assert first == quest.complete(model, tokenizer, "Once upon a time", 3, seed=5)
    assert first != quest.complete(model, tokenizer, "Once upon a time", 3, seed=6)
    assert len(first) == 3
    with pytest.raises(SystemExit, match="no space"):
        quest.complete(model, tokenizer, "far too long " * 60, 1, seed=5)
    ran, again = (tokenizer.encode(text) for text in (" ran.", " Again."))

    def past_eos(idx, *args, **more):  # as rows do that wait for longer ones
        return torch.cat([idx, torch.tensor([[*ran, 3, *again]])], dim=1)

    monkeypatch.setattr(model, "generate", past_eos)
    assert quest.complete(model, tokenizer, "Tom", 1, seed=5) == ["ran."]


def test_only_what_belongs_together_is_judged(
    quest, gpt, school, best, prepared, tmp_path, monkeypatch
):
    def refused(*words):
        with pytest.raises(SystemExit) as stopped:
            quest.main()
        assert len(str(stopped.value).split("\n")) == 3
        assert all(word in str(stopped.value) for word in words), stopped.value

    monkeypatch.setattr(quest, "JUDGE_URL", "http://127.0.0.1:9/v1")
    meta = json.loads((prepared / "artifacts/02_prepare/meta.json").read_text())
    (tmp_path / "meta.json").write_text(json.dumps(meta | {"tokenizer": "another"}))
    monkeypatch.setattr(quest, "DATA", tmp_path)
    refused("valid.bin was made with another tokenizer", "python 02_prepare.py")
    monkeypatch.setattr(quest, "MODEL", tmp_path / "best.pt")
    content = gpt.load_checkpoint(best, "")
    gpt.save_checkpoint(tmp_path / "best.pt", content | {"tokenizer": "another"})
    refused("best.pt was made with another tokenizer", "python 04_train.py")
    (tmp_path / "best.pt").write_bytes(best.read_bytes()[:1000])
    refused("best.pt cannot be read", "python 04_train.py")
    os.remove(tmp_path / "best.pt")
    refused("best.pt is missing", "python 04_train.py")
    monkeypatch.setattr(quest, "COMPLETIONS", 0)
    refused("COMPLETIONS = 0")
