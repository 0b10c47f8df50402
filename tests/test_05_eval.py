"""Stage 5 says what is true: loss, baselines, memorization, right stories, the quiz.

Small worlds are built here by hand: a tokenizer, two files of tokens and a model,
written as stages 1, 2 and 4 write them. Loss, baselines and matches are compared with
plain computations of the same things that share no code with the script. No model is
trained here: what a model would have sampled is given.
"""
import contextlib
import doctest
import importlib
import itertools
import json
import math
import random
import re
import tracemalloc
from collections import Counter
from dataclasses import asdict

import numpy as np
import practice_stories
import pytest
import torch

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def ev():
    """Stage 5 as a module."""
    return importlib.import_module("05_eval")


def build(folder, bpe, gpt, train, valid, context=64, text="my.txt"):
    """Write artifacts as stages 1, 2 and 4 do; -> (tokenizer, untrained model)."""
    counts = Counter(part for story in train for part in bpe.find_pre_tokens(story))
    tokenizer, _ = bpe.train(counts, 500, 2)
    first, second = folder / "artifacts/01_bpe", folder / "artifacts/02_prepare"
    bpe.write_all({first / "tokenizer.json": tokenizer.to_json()})
    meta = {"format": "02_prepare/2", "constants": {"TEXT": text}}
    meta["tokenizer"] = bpe.sha256_of(first / "tokenizer.json")
    for name, stories in [("train", train), ("valid", valid)]:
        ids = [i for story in stories for i in [2, *tokenizer.encode(story), 3]]
        path = second / f"{name}.bin"
        bpe.write_all({path: np.array(ids, dtype="<u2").tobytes()})
        size = sum(len(story.encode()) for story in stories)
        meta[name] = {"stories": len(stories), "tokens": len(ids), "bytes": size}
        meta[name]["sha256"] = bpe.sha256_of(path)
    bpe.write_all({second / "meta.json": json.dumps(meta)})
    torch.manual_seed(0)
    model = gpt.GPT(gpt.GPTConfig(len(tokenizer), context, 2, 2, 32)).eval()
    save(folder, gpt, model, meta)
    return tokenizer, model


def save(folder, gpt, model, meta):
    """Write best.pt as stage 4 does."""
    content = {"format": "04_train/3", "config": asdict(model.config), "step": 1}
    content |= {"tokenizer": meta["tokenizer"], "weights": model.state_dict()}
    content |= {"fingerprint": {"data": meta["train"]["sha256"]}}
    gpt.save_checkpoint(folder / "artifacts/04_train/best.pt", content)


@contextlib.contextmanager
def inside(folder, ev, bpe):
    """Let stage 5 read and write in this folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "OUT", folder / "artifacts/01_bpe")
        patch.setattr(ev, "DATA", folder / "artifacts/02_prepare")
        patch.setattr(ev, "MODEL", folder / "artifacts/04_train/best.pt")
        patch.setattr(ev, "OUT", folder / "artifacts/05_eval")
        patch.setattr(ev, "SAMPLES", 5)
        patch.setattr(ev, "GRAMMAR_SAMPLES", 3)
        patch.setattr(ev, "DEVICE", "cpu")
        yield patch


def evaluated(folder):
    return json.loads((folder / "artifacts/05_eval/eval.json").read_text("utf-8"))


def short_stories(count, seed, sentences=5):
    """The first sentences of some practice stories, none twice."""
    stories = practice_stories.stories(3 * count, seed=seed)
    cut = [re.findall(r".*?[.!?]\"?(?=\s|$)", story)[:sentences] for story in stories]
    return list(dict.fromkeys("".join(parts) for parts in cut))[:count]


@pytest.fixture(scope="module")
def world(tmp_path_factory, bpe, gpt):
    """(folder, tokenizer, untrained model, training ids, validation ids)."""
    folder = tmp_path_factory.mktemp("world")
    stories = short_stories(160, seed=3)
    tokenizer, model = build(folder, bpe, gpt, stories[:120], stories[120:])
    files = [folder / f"artifacts/02_prepare/{name}.bin" for name in ("train", "valid")]
    return folder, tokenizer, model, *(np.fromfile(file, "<u2") for file in files)


def bytes_of(tokenizer):
    return np.array([0] * 4 + [len(token) for token in tokenizer.token_bytes[4:]])


def test_the_examples_in_the_script_are_right(ev):
    outcome = doctest.testmod(ev)
    assert outcome.attempted >= 3 and outcome.failed == 0


def stories_of(ids):
    """The stories of a file, as lists of ids."""
    return [story.tolist() for story in np.split(ids, np.flatnonzero(ids == 2)[1:])]


# ------------------------------------------------------------------------ the loss


@pytest.mark.parametrize("context", [1, 2, 3, 8, 9, 64])
def test_windows_score_every_token_once_from_at_least_half_a_context(ev, context):
    for length in [1, 2, 3, 8, 9, 10, 17, 40, 65, 66]:
        scored = []
        for first, begin, end in ev.sliding_windows(100, 100 + length, context):
            assert 100 <= first < begin < end <= 100 + length
            assert end - 1 - first <= context  # no more than the model can read
            for token in range(begin, end):
                past = token - first
                assert past == token - 100 or past >= context // 2
                scored.append(token)
        assert scored == list(range(101, 100 + length))


def reference(model, ids, begin, end):
    """Nats of tokens begin+1 .. end-1, one at a time, in float64, by the rule in words:
    windows begin every half context (rounded up); a token belongs to the first window
    that holds it as the successor of one of its inputs."""
    model = model.double()
    context, nats = model.config.block_size, {}
    step = -(-context // 2)
    for token in range(begin + 1, end):
        window = max(0, math.ceil((token - begin - context) / step))
        past = ids[begin + window * step : token].astype(np.int64)
        with torch.no_grad():
            logits = model(torch.from_numpy(past)[None])[0][0, -1]
        nats[token] = -logits.log_softmax(0)[int(ids[token])].item()
    model.float()
    return nats


def test_the_loss_is_that_of_one_token_at_a_time_in_float64(ev, gpt, world):
    _, tokenizer, _, _, valid = world
    starts = np.flatnonzero(valid == 2)[:6]
    ids, starts = valid[: starts[5]], starts[:5]
    torch.manual_seed(1)
    context = 24  # shorter than the stories
    model = gpt.GPT(gpt.GPTConfig(len(tokenizer), context, 2, 2, 32)).eval()
    for weight in model.parameters():  # not as mild as an untrained model
        weight.data *= 2
    ends = [*starts[1:], len(ids)]
    assert min(e - b for b, e in zip(starts, ends)) > context
    by_story = {}
    for begin, end in zip(starts, ends):
        by_story |= reference(model, ids, begin, end)
    sliding = reference(model, ids, 0, len(ids))
    sliding = {token: cost for token, cost in sliding.items() if ids[token] != 2}
    for begins, expected in [(starts, by_story), ([0], sliding)]:
        nats = ev.score(model, ids, begins, CPU, "test")
        result = ev.summary(nats, ids, starts, bytes_of(tokenizer))
        assert result["tokens"] == len(expected) == len(ids) - 5
        loss = sum(expected.values()) / len(expected)
        assert result["loss"] == pytest.approx(loss, abs=1e-5)
        for token, cost in expected.items():
            assert nats[token] == pytest.approx(cost, abs=1e-3), token


def test_eos_costs_nats_and_bos_none_and_neither_has_bytes(ev, world):
    _, tokenizer, model, _, valid = world
    starts = np.flatnonzero(valid == 2)
    nats = ev.score(model, valid, starts, CPU, "test")
    result = ev.summary(nats, valid, starts, bytes_of(tokenizer))
    n_bytes = len(tokenizer.decode(valid.tolist()).encode())
    assert (nats[valid == 2] == 0).all() and (nats[valid == 3] > 0).all()
    as_one_sequence = ev.score(model, valid, [0], CPU, "test")  # there <BOS> has a past
    assert (as_one_sequence[valid == 2] == 0).all()
    assert result["tokens"] == (valid != 2).sum()  # <EOS> is one of them
    bits = nats.sum() / math.log(2)
    assert result["bits_per_byte"] == pytest.approx(bits / n_bytes)
    perplexity = math.exp(nats.sum() / result["tokens"])
    assert result["perplexity"] == pytest.approx(perplexity)


def test_the_interval_is_1_96_standard_errors_of_bits_per_byte_over_stories(ev):
    # Two stories of 10 bytes, 10 and 20 bits: 1 and 2 bits per byte, 0.5 off the mean.
    ids, starts = np.array([2, 4, 2, 4]), np.array([0, 2])
    nats = np.array([0, 10, 0, 20]) * math.log(2)
    result = ev.summary(nats, ids, starts, np.array([0] * 4 + [10]))
    assert result["bits_per_byte"] == pytest.approx(1.5)
    assert result["plus_minus"] == pytest.approx(1.96 * 0.5 / math.sqrt(2))


def test_one_story_has_no_interval(ev, world):
    _, tokenizer, model, _, valid = world
    story = valid[: np.flatnonzero(valid == 3)[0] + 1]
    nats = ev.score(model, story, [0], CPU, "test")
    result = ev.summary(nats, story, np.array([0]), bytes_of(tokenizer))
    assert result["plus_minus"] is None and result["loss"] > 0


def test_the_batch_size_changes_nothing(ev, world, monkeypatch):
    _, _, model, _, valid = world
    starts = np.flatnonzero(valid == 2)[:20]
    ids = valid[: starts[-1]]
    many = ev.score(model, ids, starts[:-1], CPU, "test")
    monkeypatch.setattr(ev, "LOGITS_AT_ONCE", 1)  # one window after the other
    single = ev.score(model, ids, starts[:-1], CPU, "test")
    assert np.abs(many - single).max() < 1e-4


def file_of(*lengths):
    """Documents <BOS>, that many tokens, <EOS>, as one array of ids."""
    return np.concatenate([[2, *[9] * n, 3] for n in lengths]).astype("<u2")


def test_some_stories_are_whole_and_evenly_spread(ev):
    stories, starts = ev.some_stories(file_of(*range(1, 101)), 10)
    stories = np.split(stories, starts[1:])
    # Every tenth of a hundred; the first one is <BOS> 9 <EOS>.
    assert [len(story) - 2 for story in stories] == list(range(1, 101, 10))
    assert all(story[0] == 2 and story[-1] == 3 for story in stories)
    assert stories[0].tolist() == [2, 9, 3]


@pytest.mark.parametrize("lengths, expected", [
    ((5,), [7]),  # a single document
    ((0, 0, 3), [2, 2, 5]),  # empty stories
    ((3_000,), [1024, 1024, 954]),  # a short book: its passages do not overlap
    ((70_000,), 9 * [1024]),  # a long one: every eighth of its 69 passages
    ((10, 70_000, 10), [12, *8 * [1024]]),  # a book among stories: of 71 parts
])  # fmt: skip
def test_documents_of_any_length_give_some_stories(ev, lengths, expected):
    ids, starts = ev.some_stories(file_of(*lengths), 8)
    assert [len(story) for story in np.split(ids, starts[1:])] == expected


def test_some_stories_come_from_the_first_tokens_of_a_file(ev, monkeypatch):
    # However large train.bin is: only these are read.
    monkeypatch.setattr(ev, "CHUNK", 2**10)
    ids, _ = ev.some_stories(np.concatenate([file_of(*[9] * 93), file_of(500)]), 1000)
    assert len(ids) == 2**10


# ------------------------------------------------------------------- the baselines


def plain_trigram(train, valid, V, k2, k3):
    """Nats of valid by an interpolated trigram, with dictionaries and a loop; and the
    sum of the probabilities of all tokens after two that were seen."""
    c1, c2, c3, context1, context2 = (Counter() for _ in range(5))
    history = [3]
    for token in train:
        if token != 2:
            c1[token] += 1
            c2[history[-1], token] += 1
            context1[history[-1]] += 1
            c3[history[-2], history[-1], token] += 1
            context2[history[-2], history[-1]] += 1
        history.append(token)
    total = sum(c1.values())

    def probs(u, v, w):
        p1 = (c1[w] + 1) / (total + V)
        p2 = (c2[v, w] + k2 * p1) / (context1[v] + k2)
        return p1, p2, (c3[u, v, w] + k3 * p2) / (context2[u, v] + k3)

    nats, history = Counter(), [3]
    for token in valid:
        if token != 2:
            names = "unigram", "bigram", "trigram"
            for name, p in zip(names, probs(*history[-2:], token)):
                nats[name] -= math.log(p)
        history.append(token)
    return nats, sum(probs(train[3], train[4], w)[2] for w in range(V))


def choices(ev, tuning, counted, V):
    """k2 and k3 with the lowest loss on the stories left out, by the plain way."""
    options = (0.3, 1, 3, 10, 30, 100, 300, 1000)

    def loss(name, k2, k3):
        return plain_trigram(counted, tuning, V, k2, k3)[0][name]

    k2 = min(options, key=lambda k: loss("bigram", k, 1))
    return k2, min(options, key=lambda k: loss("trigram", k2, k))


def test_the_baselines_agree_with_a_plain_computation(ev, world, monkeypatch):
    _, tokenizer, _, train, valid = world
    V = len(tokenizer)
    losses, tokens = ev.ngram_losses(train, valid, V)
    assert 0.9 * len(train) < tokens < len(train) and train[tokens] == 2
    counted, tuning = train[:tokens].tolist(), train[tokens:].tolist()
    expected, sum_of_probs = plain_trigram(
        counted, valid.tolist(), V, *choices(ev, tuning, counted, V)
    )
    for name, nats in expected.items():
        assert losses[name] == pytest.approx(nats, rel=1e-9), name
    assert sum_of_probs == pytest.approx(1)  # so the plain computation is sound
    assert losses["uniform"] == (valid != 2).sum() * math.log(V)
    assert losses["uniform"] > losses["unigram"] > losses["bigram"] > losses["trigram"]
    for chunk in (1000, 64):  # files much longer than a chunk
        monkeypatch.setattr(ev, "CHUNK", chunk)
        assert ev.ngram_losses(train, valid, V) == (losses, tokens)


def test_n_grams_are_counted_from_a_limited_number_of_tokens(ev, world, monkeypatch):
    _, tokenizer, _, train, valid = world
    monkeypatch.setattr(ev, "NGRAM_TOKENS", 3000)
    losses, tokens = ev.ngram_losses(train, valid, len(tokenizer))
    assert 2700 < tokens < 3000
    same, _ = ev.ngram_losses(train[:3000], valid, len(tokenizer))
    assert losses == same


def test_one_long_document_has_baselines_too(ev, world):
    _, tokenizer, _, train, valid = world
    book = train[(train != 2) & (train != 3)]
    book = np.concatenate([[2], book, [3]]).astype("<u2")
    losses, tokens = ev.ngram_losses(book, valid, len(tokenizer))
    assert 0.94 * len(book) < tokens < 0.96 * len(book)
    assert losses["unigram"] > losses["trigram"]


# ------------------------------------------------------------------- memorization


def longest_common(ids, train):
    """The slow and certain way."""
    best, text = 0, " " + " ".join(map(str, train)) + " "
    for i in range(len(ids)):
        while i + best < len(ids):
            if f" {' '.join(map(str, ids[i : i + best + 1]))} " not in text:
                break
            best += 1
    return best


@pytest.mark.parametrize("letters", [2, 5, 40])
@pytest.mark.parametrize("n", [4, 8])
def test_the_longest_match_is_exact(ev, monkeypatch, letters, n):
    rng = random.Random(letters)
    monkeypatch.setattr(ev, "CHUNK", 50)
    for _ in range(8):
        train = np.array([rng.randrange(letters) for _ in range(300)], dtype="<u2")
        stories = [[rng.randrange(letters) for _ in range(rng.randrange(1, 40))]
                   for _ in range(6)]  # fmt: skip
        stories.append(train[135:165].tolist())  # a copy, across the edge of a chunk
        stories.append(train[295:].tolist() * 3)  # the end of the file
        stories.append(stories[0])  # the same story twice
        matches = ev.longest_matches(train, stories, n)
        for ids, (length, start, place) in zip(stories, matches):
            expected = longest_common(ids, train.tolist())
            assert length == (expected if expected >= n else 0)
            match = ids[start : start + length]
            assert match == train[place : place + length].tolist()


def test_a_story_is_compared_with_the_training_text(ev, world):
    _, tokenizer, _, train, valid = world
    strange = [[2, 3], [2, 70, 3], [2, 70, 71]]  # the last one has no <EOS>
    stories = stories_of(valid)[:15] + strange
    rows = ev.compare_with_training(tokenizer, train, stories, 8)

    def grams(ids):
        return [tuple(ids[i : i + 4]) for i in range(len(ids) - 3)]

    known, text = set(grams(train.tolist())), tokenizer.decode(train.tolist())
    for ids, row in zip(stories, rows):
        ids = [2, *tokenizer.encode(tokenizer.decode(ids)), 3]
        new = [gram not in known for gram in grams(ids)]
        assert row["new_4grams"] == (np.mean(new) if new else 0)
        assert row["tokens"] == len(ids)
        assert "".join(row["parts"]) == row["text"] == tokenizer.decode(ids)
        assert row["parts"][1] in text and row["parts"][1] in row["source"]
    assert max(row["match"] for row in rows) > 8 and rows[-2]["source"] == ""
    assert [row["ended"] for row in rows[-3:]] == [True, True, False]


def test_the_memory_of_the_searches_does_not_grow_with_the_training_text(
    ev, tmp_path, monkeypatch
):
    # With chunks of 16 K tokens, texts of a quarter and of one million tokens are as
    # much longer than a chunk as real ones of 16 and 64 million.
    monkeypatch.setattr(ev, "CHUNK", 2**14)
    rng = np.random.default_rng(0)
    stories = [[2, *rng.integers(4, 300, 100).tolist(), 3] for _ in range(10)]
    peaks = {}
    for size in (2**18, 2**20):
        ids = rng.integers(4, 300, size).astype("<u2")
        ids.tofile(tmp_path / "train.bin")
        train = np.memmap(tmp_path / "train.bin", dtype="<u2", mode="r")
        for search in (lambda: ev.count_ngrams(train, np.concatenate(stories), 4),
                       lambda: ev.longest_matches(train, stories, 8)):  # fmt: skip
            tracemalloc.start()
            search()
            peaks.setdefault(size, []).append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert max(peaks[2**20]) < 1.3 * max(peaks[2**18]) + 2**20, peaks


def reciting(stories):
    """In place of GPT.generate: always the next of these stories, as lists of ids."""
    endless = itertools.cycle(stories)

    def generate(model, idx, *_, **__):
        rows = [next(endless) for _ in range(len(idx))]
        longest = max(map(len, rows))
        return torch.tensor([row + [3] * (longest - len(row)) for row in rows])

    return generate


def test_a_model_that_recites_its_training_text_is_found_out(
    ev, bpe, gpt, world, capsys, monkeypatch
):
    folder, tokenizer, _, train, _ = world
    monkeypatch.setattr(gpt, "peak_megabytes", lambda device: math.nan)  # as on Windows
    # Most are longer than any match of a held-out story, as a copy has to be.
    long = sorted(stories_of(train), key=len)[-20:]
    with inside(folder, ev, bpe) as patch:
        patch.setattr(gpt.GPT, "generate", reciting(long))
        ev.main()
    result, out = evaluated(folder), capsys.readouterr().out
    longest = result["longest_held_out"]
    copies = sum(len(story) > longest for story in long)
    assert result["samples"] == 20 and result["copies"] == copies > 10
    assert f"{copies} of 20 samples are verbatim copies" in out and " MB" not in out
    low, high = result["interval"]
    assert 0.3 < low < copies / 20 <= high
    samples = [story for name, group in result["groups"].items() if name != "held out"
               for story in group["stories"]]  # fmt: skip
    assert [s["parts"][1] for s in samples] == [tokenizer.decode(ids) for ids in long]


def test_an_untrained_model_copies_nothing_and_generates_nothing_right(
    ev, bpe, world, capsys, monkeypatch
):
    folder, _, _, _, valid = world
    limit = practice_stories.Limit(28.6, 739.0, 0.056)  # computing it takes seconds
    monkeypatch.setattr(practice_stories, "limit", lambda: limit)
    meta = folder / "artifacts/02_prepare/meta.json"
    before = json.loads(meta.read_text())
    practice = before | {"constants": {"TEXT": "practice"}}
    graded = folder / "artifacts/05_eval/judge.json"
    bpe.write_all({graded: '{"format": "judge/1", "model": "another"}'})
    bpe.write_all({meta: json.dumps(practice)})
    with inside(folder, ev, bpe):
        ev.main()
    bpe.write_all({meta: json.dumps(before)})
    graded.unlink()
    result, out = evaluated(folder), capsys.readouterr().out
    assert result["copies"] == 0 and result["interval"][1] < 0.2
    assert "0 of 20 samples are verbatim copies" in out
    bits = result["baselines"]
    assert bits["this model"] == pytest.approx(bits["untrained model"], rel=0.1)
    assert list(bits)[:4] == ["uniform", "unigram", "bigram", "trigram"]
    assert list(bits)[-2:] == ["this model", "the grammar itself"]
    more = 0.056 - bits["this model"]
    assert f"the grammar itself 0.056{more:+8.3f}" in out
    assert result["judge"] is None  # those grades are of another model
    assert f"counted on {result['ngram_tokens']:,} tokens" in out
    assert [group["min_p"] for group in result["grammar"]] == [0, ev.MIN_P]
    for group in result["grammar"]:
        assert group["right"] == 0 and len(group["stories"]) == 3
        for story in group["stories"]:
            assert story["text"].startswith("Once upon a time")
    assert out.count("right from first to last word: 0 of 3 (95% interval: 0.0%") == 2
    assert "Next: python 06_sample.py" in out


@pytest.mark.parametrize("content", [
    b'{"format": "jud',  # cut short
    b'["judge/1"]',  # no object
    b"\xff\xfe",  # no text
    b'{"format": "judge/0"}',  # of another version
])  # fmt: skip
def test_damaged_grades_are_left_out_with_a_note(ev, bpe, world, content, capsys):
    # They are an extra. What is measured without them must not wait for their repair.
    graded = world[0] / "artifacts/05_eval/judge.json"
    graded.parent.mkdir(parents=True, exist_ok=True)
    graded.write_bytes(content)
    with inside(world[0], ev, bpe) as patch:
        patch.setattr(ev, "measure_loss", none_further)
        with pytest.raises(EOFError):
            ev.main()
    graded.unlink()
    notes = [line for line in capsys.readouterr().out.splitlines() if "no grades" in line]
    assert len(notes) == 1 and "judge.json cannot be used" in notes[0]


def none_further(*_):
    """The work begins here: what comes before has passed."""
    raise EOFError


def memorization_of(ev, bpe, world, monkeypatch, stories):
    """What check_memorization says about these stories (lists of ids) as samples."""
    _, tokenizer, model, train, valid = world
    monkeypatch.setattr(ev, "TEMPERATURES", (1.0,))
    monkeypatch.setattr(ev, "SAMPLES", len(stories))
    monkeypatch.setattr(ev, "sample", lambda *_: stories)
    return ev.check_memorization(model, tokenizer, CPU, train, valid)


def test_a_copy_is_half_of_a_story_and_longer_than_any_held_out_match(
    ev, bpe, world, monkeypatch, capsys
):
    _, tokenizer, _, train, valid = world
    longest = max(stories_of(train), key=len)
    noise = np.random.default_rng(0).integers(4, 400, 2 * len(longest)).tolist()
    noise = tokenizer.encode(tokenizer.decode(noise))
    stories = [longest, [*longest[:-1], *noise[: len(longest) // 2], 3],
               [*longest[:-1], *noise, 3], stories_of(valid)[0], [2, 3]]  # fmt: skip
    result = memorization_of(ev, bpe, world, monkeypatch, stories)
    rows = result["groups"]["1.0"]["stories"]
    # Else the second story, whose match is a little shorter, would be no copy.
    assert len(longest) > result["longest_held_out"] + 5
    assert [row["copy"] for row in rows] == [True, True, False, False, False]
    assert result["copies"] == 2
    assert not any(row["copy"] for row in result["groups"]["held out"]["stories"])
    out = capsys.readouterr().out
    assert f"over {result['longest_held_out']} tokens;" in out
    assert "95% interval" in out


def test_samples_that_resemble_each_other_have_few_distinct_3_grams(
    ev, bpe, world, monkeypatch
):
    alike = [[2, 10, 11, 12, 13, 3]] * 4
    different = [[2, i, 50 + i, 100 + i, 3] for i in range(4, 8)]
    for stories, expected in ((alike, 0.25), (different, 1.0)):
        result = memorization_of(ev, bpe, world, monkeypatch, stories)
        assert result["groups"]["1.0"]["distinct3"] == expected


def test_a_name_of_the_training_text_is_a_copy(
    ev, bpe, gpt, tmp_path, monkeypatch, capsys
):
    # Most names have fewer than 8 tokens, so matches of 8 could not be found in them.
    rng, parts = random.Random(0), ("an", "bel", "do", "ra")
    names = ["".join(rng.choices(parts, k=rng.randint(4, 8))) for _ in range(300)]
    names = list(dict.fromkeys(names))
    learned, held_out = names[:200], names[200:]
    tokenizer, model = build(tmp_path, bpe, gpt, learned, held_out, context=16)
    files = [tmp_path / f"artifacts/02_prepare/{n}.bin" for n in ("train", "valid")]
    ids = [[2, *tokenizer.encode(name), 3] for name in learned[:10] + held_out[:10]]
    world = (tmp_path, tokenizer, model, *(np.fromfile(file, "<u2") for file in files))
    result = memorization_of(ev, bpe, world, monkeypatch, ids)
    assert result["shortest_match"] == 4
    assert "shortest match 4 tokens" in capsys.readouterr().out
    rows = result["groups"]["1.0"]["stories"]
    assert min(row["match"] == row["tokens"] for row in rows[:10])  # all of it
    assert [row["copy"] for row in rows] == [True] * 10 + [False] * 10


@pytest.mark.parametrize("shape", ["one book", "a book among stories", "empty stories"])
def test_documents_of_any_length_are_evaluated(ev, bpe, gpt, tmp_path, shape):
    stories = short_stories(150, seed=11)
    book = "\n".join(stories[:60])
    train, valid = {
        "one book": ([book], [book[12_000:]]),
        "a book among stories": ([book, *stories[60:90]], [stories[90], book]),
        "empty stories": (["", *stories[:60], ""], ["", *stories[100:120], ""]),
    }[shape]
    build(tmp_path, bpe, gpt, train, valid, context=32)
    with inside(tmp_path, ev, bpe) as patch:
        patch.setattr(ev, "TEMPERATURES", (1.0,))
        patch.setattr(ev, "QUIZ", tmp_path / "quiz.txt")  # there is none
        ev.main()
    result = evaluated(tmp_path)
    assert 0 < result["stories"]["loss"] < 20
    assert (result["stories"]["plus_minus"] is None) == (shape == "one book")
    held_out = result["groups"]["held out"]["stories"]
    # Cut at the context of 32, as samples are; encoding them again may add some.
    assert all(row["tokens"] <= 2 * 32 for row in held_out)


# -------------------------------------------------------------------- the samples


def test_samples_are_the_same_in_every_run_and_fit_into_the_context(ev, world):
    _, _, model, *_ = world
    for prompt in ([2], [2, 70, 71, 72]):
        stories = ev.sample(model, CPU, 3, 0.8, 0.1, prompt)
        assert stories == ev.sample(model, CPU, 3, 0.8, 0.1, prompt)
        assert len(stories) == 3 and stories[0] != stories[1]
        for ids in stories:
            assert ids[: len(prompt)] == prompt and len(ids) <= model.config.block_size


def test_a_sample_ends_at_its_first_eos(ev, world, monkeypatch):
    _, _, model, *_ = world
    rows = torch.tensor([[2, 70, 3, 71, 3], [2, 70, 71, 72, 73]])
    monkeypatch.setattr(model, "generate", lambda *_, **__: rows)
    assert ev.sample(model, CPU, 2, 0.8, 0.1) == [[2, 70, 3], [2, 70, 71, 72, 73]]


def test_many_samples_are_generated_64_at_a_time(ev, world, monkeypatch):
    _, _, model, *_ = world
    asked = []

    def generate(idx, most, temperature, min_p, **_):
        asked.append((len(idx), most, temperature, min_p))
        return idx

    monkeypatch.setattr(model, "generate", generate)
    assert len(ev.sample(model, CPU, 100, 0.8, 0.1, [2, 70, 71])) == 100
    assert asked == [(64, 61, 0.8, 0.1), (36, 61, 0.8, 0.1)]


def test_stage_5_samples_as_stage_6_does(ev, world, monkeypatch):
    stage_6 = importlib.import_module("06_sample")
    assert stage_6.MIN_P == ev.MIN_P
    seen, multinomial = [], torch.multinomial

    def watch(probs, *rest, **named):
        seen.append(probs)
        return multinomial(probs, *rest, **named)

    monkeypatch.setattr(torch, "multinomial", watch)
    model = world[2]
    ev.sample(model, CPU, 1, 0.8, ev.MIN_P)
    logits, ids = model(torch.tensor([[2]]))[0][0, -1], torch.tensor([2])
    shaped = stage_6.apply_samplers(logits, ids, temperature=0.8, min_p=ev.MIN_P)
    probs = shaped.softmax(dim=-1)  # (V,) of the first token after <BOS>
    assert 0 < (probs > 0).sum() < len(probs) / 2
    torch.testing.assert_close(seen[0][0] / seen[0].sum(), probs)


# --------------------------------------------------------------------- the grammar


def test_only_practice_stories_have_a_grammar(ev, monkeypatch, tmp_path, capsys):
    assert ev.load_grammar("tinystories") is None
    assert ev.load_grammar("practice") is practice_stories
    monkeypatch.setattr(ev, "GRAMMAR", tmp_path / "practice_stories.py")
    assert ev.load_grammar("my.txt") is None
    assert capsys.readouterr().out == ""
    assert ev.load_grammar("practice") is None  # the script was copied alone
    out = capsys.readouterr().out
    assert out.startswith("[note]") and out.count("\n") == 1
    assert "practice_stories.py is missing" in out


def checked(ev, world, monkeypatch, stories):
    """What check_stories says of these as samples: (text, does it end in <EOS>)."""
    _, tokenizer, model, *_ = world
    asked, ids = [], [[2, *tokenizer.encode(text), *[3] * end] for text, end in stories]

    def sample(model, device, *how):
        asked.append(how)
        return ids

    monkeypatch.setattr(ev, "sample", sample)
    results = ev.check_stories(practice_stories, model, tokenizer, CPU)
    prompt = [2, *tokenizer.encode("Once upon a time")]
    assert asked == [(ev.GRAMMAR_SAMPLES, 0.8, r["min_p"], prompt) for r in results]
    return results


def with_another_name(story):
    """-> (the story, its hero misnamed in the end; where; the right name)"""
    names = practice_stories.GIRLS + practice_stories.BOYS
    name = re.search("|".join(names), story)[0]
    other = "Lily" if name != "Lily" else "Mia"
    at = story.rindex(name)
    return story[:at] + other + story[at + len(name) :], at, name


def test_right_stories_are_counted_and_wrong_ones_explained(
    ev, world, monkeypatch, capsys
):
    told = (s for s in practice_stories.stories(500, seed=2)
            if re.search(r"named (Tom|Sam|Leo|Max)\.", s))  # fmt: skip
    good, spaced, cut, endless, story = (next(told) for _ in range(5))
    misnamed, at, name = with_another_name(story)
    first, second = checked(ev, world, monkeypatch, [
        (good, True), (f" {spaced}\n", True),  # spaces around a story are no mistake
        (cut[:200], True), (cut[:200], False),
        (endless, False),  # right as far as it goes, but it did not end
        (misnamed, True),
    ])  # fmt: skip
    assert (first["min_p"], second["min_p"]) == (0, ev.MIN_P)
    assert first["right"] == second["right"] == 2
    assert first["interval"] == ev.wilson(2, 6)
    mistakes = [story["mistake"] for story in first["stories"]]
    kinds = [mistake and mistake.kind for mistake in mistakes]
    assert kinds == [None, None, *3 * ["an end too early"], "name"]
    assert mistakes[4].fraction == 1.0  # of the endless one
    assert mistakes[5].offset == at and mistakes[5].expected == (name,)
    assert [story["text"] for story in first["stories"]][:2] == [good, spaced]
    lines = capsys.readouterr().out.splitlines()
    plain, default = [i for i, line in enumerate(lines) if "first to last" in line]
    assert "MIN_P = 0, no token excluded" in lines[plain]
    assert f"MIN_P = {ev.MIN_P}, as above" in lines[default]
    assert "right from first to last word: 2 of 6 (95% interval:" in lines[plain]
    mean = np.mean([1.0, 1.0, 1.0, at / len(misnamed)])
    assert lines[plain + 1].endswith(f"first mistake: {mean:.0%} of the story")
    assert lines[plain + 2].split()[:5] == ["3", "an", "end", "too", "early"]
    assert lines[plain + 3].split()[:2] == ["1", "name"]
    start = max(misnamed.rfind(sign, 0, at) for sign in ".!?\n") + 1
    sentence = f"{misnamed[start:at]}[{mistakes[5].found}]".removeprefix('" ').lstrip()
    assert sentence in lines[plain + 3] and len(sentence) > len(name) + 2
    assert lines[plain + 3].endswith(f"; expected: {name}")


def test_of_right_stories_there_is_nothing_to_explain(ev, world, monkeypatch, capsys):
    monkeypatch.setattr(ev, "MIN_P", 0)  # then both ways to sample are one
    stories = [(story, True) for story in practice_stories.stories(3)]
    (result,) = checked(ev, world, monkeypatch, stories)
    assert result["right"] == 3
    out = capsys.readouterr().out
    assert "3 of 3 (95% interval: 43.8% to 100.0%)" in out and "mistake" not in out


# ------------------------------------------------------------------------ the quiz


def test_the_quiz_has_eight_items_of_each_kind_cut_as_the_tokenizer_cuts(ev, world):
    items = ev.read_quiz(ev.QUIZ)
    groups = Counter((item["category"], item["practice"]) for item in items)
    categories = ("facts", "reasoning", "context", "grammar", "names")
    assert set(groups) == {(c, p) for c in categories for p in (True, False)}
    assert min(groups.values()) >= 8
    asked = [(item["text"], item["right"]) for item in items]
    assert len(set(asked)) == len(asked)
    encode = world[1].encode
    for item in items:
        for ending in (item["right"], item["wrong"]):
            # The cut between text and ending must be one that the tokenizer makes too.
            whole = encode(item["text"] + " " + ending)
            assert whole == encode(item["text"]) + encode(" " + ending)


def test_neither_longer_nor_shorter_endings_are_right_more_often(ev):
    items = ev.read_quiz(ev.QUIZ)
    longer = sum(len(item["right"]) > len(item["wrong"]) for item in items)
    shorter = sum(len(item["right"]) < len(item["wrong"]) for item in items)
    assert abs(longer - shorter) <= 0.2 * len(items)


def test_the_quiz_scores_each_ending_per_byte_after_its_text(
    ev, world, tmp_path, monkeypatch
):
    _, tokenizer, model, _, _ = world
    blocks = re.sub(r"(?m)^#.*\n", "", ev.QUIZ.read_text("utf-8")).strip().split("\n\n")
    monkeypatch.setattr(ev, "QUIZ", tmp_path / "quiz.txt")
    ev.QUIZ.write_text("# mine\n\n" + "\n\n\n".join(blocks[:4]) + "\n", "utf-8")
    items = ev.take_quiz(model, tokenizer, "practice", CPU)["quiz"]
    assert len(items) == 4
    for item in items:
        for side in ("right", "wrong"):
            ending = tokenizer.encode(" " + item[side])
            # The context is 64 tokens: the oldest are dropped.
            ids = [2, *tokenizer.encode(item["text"]), *ending][-65:]
            with torch.no_grad():
                log_probs = model(torch.tensor([ids[:-1]]))[0][0].log_softmax(-1)
            right = log_probs[range(-len(ending), 0), ids[-len(ending) :]]
            per_byte = -right.sum().item() / len((" " + item[side]).encode())
            assert item[f"{side}_nats"] == pytest.approx(per_byte, abs=1e-4)
        assert item["solved"] == (item["right_nats"] < item["wrong_nats"])


QUIZ = """facts practice
A sparrow can
+ fly.
- fry.

facts
The capital of France is
+ Paris.
- Berlin.
"""


@pytest.mark.parametrize("text, names", [
    ("practice", ["practice world", "facts", "wider world"]),
    ("tinystories", ["all", "facts"]),
])  # fmt: skip
def test_on_practice_text_only_the_practice_world_counts(
    ev, world, tmp_path, monkeypatch, text, names
):
    _, tokenizer, model, _, _ = world
    monkeypatch.setattr(ev, "QUIZ", tmp_path / "quiz.txt")
    ev.QUIZ.write_text(QUIZ, "utf-8")
    results = ev.take_quiz(model, tokenizer, text, CPU)["quiz_results"]
    assert list(results) == names
    counts = [group["of"] for group in results.values()]
    assert counts == ([1, 1, 1] if text == "practice" else [2, 2])


def test_without_a_quiz_there_is_one_note(ev, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ev, "QUIZ", tmp_path / "quiz.txt")
    result = ev.take_quiz(None, None, "practice", CPU)
    assert result == {"quiz": [], "quiz_results": {}}
    out = capsys.readouterr().out
    assert out.startswith("[note]") and out.count("\n") == 1
    assert "quiz.txt is missing" in out


@pytest.mark.parametrize("text", [
    "",  # nothing at all
    "facts\nThe sky is\n+ blue.",  # one ending
    "facts wide\nThe sky is\n+ blue.\n- wood.",  # what is wide?
    "facts\n+ blue.\n- wood.",  # no text
    "facts\nThe sky is\n+ blue.\n+ red.\n- wood.",  # two right endings
])  # fmt: skip
def test_a_quiz_that_cannot_be_read_is_refused(ev, tmp_path, text):
    (tmp_path / "quiz.txt").write_text(text, "utf-8")
    with pytest.raises(SystemExit, match="cannot be read") as stopped:
        ev.read_quiz(tmp_path / "quiz.txt")
    assert len(str(stopped.value).split("\n")) == 3


def test_the_interval_is_wilsons(ev):
    low, high = ev.wilson(10, 10)  # R: prop.test(10, 10, correct = FALSE)
    assert (low, high) == (pytest.approx(0.7225, abs=1e-4), pytest.approx(1, abs=1e-9))
    low, high = ev.wilson(0, 10)
    assert (low, high) == (pytest.approx(0, abs=1e-9), pytest.approx(0.2775, abs=1e-4))


# ----------------------------------------------------------------- the whole of it


def test_two_runs_give_the_same_files(ev, bpe, world):
    folder, files = world[0], ["eval.json", "report.html"]
    both = []
    with inside(folder, ev, bpe) as patch:
        patch.setattr(ev, "TEMPERATURES", (1.0,))
        patch.setattr(ev, "QUIZ", folder / "quiz.txt")
        ev.QUIZ.write_text(QUIZ, "utf-8")
        for _ in range(2):
            ev.main()
            out = folder / "artifacts/05_eval"
            both.append([(out / name).read_bytes() for name in files])
    assert both[0] == both[1]


def refused(ev, *expected):
    """The checks must stop with three lines that hold the expected words."""
    with pytest.raises(SystemExit) as stopped:
        ev.check_inputs()
    lines = str(stopped.value).split("\n")
    assert len(lines) == 3, lines
    for words in expected:
        assert words in str(stopped.value), lines


def test_what_does_not_belong_together_is_refused(ev, bpe, gpt, tmp_path):
    stories = short_stories(40, seed=5)
    _, model = build(tmp_path, bpe, gpt, stories[:30], stories[30:])
    second = tmp_path / "artifacts/02_prepare"
    best = tmp_path / "artifacts/04_train/best.pt"
    meta = json.loads((second / "meta.json").read_text())
    with inside(tmp_path, ev, bpe) as patch:
        ev.check_inputs()
        for name, value in [("SAMPLES", 0), ("SAMPLES", 2.5), ("SEED", -1),
                            ("GRAMMAR_SAMPLES", 0),
                            ("MIN_P", 1.5), ("MIN_P", "0.1")]:  # fmt: skip
            before = getattr(ev, name)
            patch.setattr(ev, name, value)
            refused(ev, name, "05_eval.py")
            patch.setattr(ev, name, before)
        for wrong in (0.8, (), (0.8, 0), ("warm",), None, ((0.5, 1.0), 0.8)):
            patch.setattr(ev, "TEMPERATURES", wrong)
            refused(ev, "TEMPERATURES", "05_eval.py")
        patch.setattr(ev, "TEMPERATURES", (1,))

        save(tmp_path, gpt, model, meta | {"train": {"sha256": "of another file"}})
        refused(ev, "another train.bin", "python 04_train.py")
        save(tmp_path, gpt, model, meta | {"tokenizer": "another"})
        refused(ev, "best.pt was made with another tokenizer", "python 04_train.py")
        best.write_bytes(best.read_bytes()[:1000])
        refused(ev, "best.pt cannot be read", "python 04_train.py")
        best.unlink()
        refused(ev, "best.pt is missing", "python 04_train.py")
        save(tmp_path, gpt, model, meta)
        ev.check_inputs()

        valid = (second / "valid.bin").read_bytes()
        (second / "valid.bin").write_bytes(valid[:-200])
        refused(ev, "valid.bin is damaged", "python 02_prepare.py")
        (second / "valid.bin").unlink()
        refused(ev, "valid.bin is missing", "python 02_prepare.py")
        (second / "valid.bin").write_bytes(valid)
        other = json.dumps(meta | {"tokenizer": "another"})
        (second / "meta.json").write_text(other)
        refused(ev, "train.bin was made with another tokenizer", "python 02_prepare.py")
        (second / "meta.json").write_text('{"format": ')
        refused(ev, "meta.json cannot be used", "python 02_prepare.py")
        (second / "meta.json").unlink()
        refused(ev, "meta.json is missing", "python 02_prepare.py")


def test_a_device_that_does_not_exist_is_refused(ev, bpe, world):
    with inside(world[0], ev, bpe) as patch:
        patch.setattr(ev, "DEVICE", "abacus")
        with pytest.raises(SystemExit, match="DEVICE = 'abacus' in 05_eval.py"):
            ev.main()
