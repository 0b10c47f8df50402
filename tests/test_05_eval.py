"""Stage 5 says what is true: the loss, the ladder, the copies, the quiz.

Small worlds are built here by hand: a tokenizer, two files of tokens and a model,
written as stages 1, 2 and 4 write them. Each claim is compared with a plain computation
of the same thing that shares no code with the script.
"""

import contextlib
import importlib
import json
import math
import random
import re
import tracemalloc
from collections import Counter

import ngrams
import numpy as np
import plumbing
import practice_stories
import pytest
import quiz
import regex
import torch


@pytest.fixture(scope="session")
def ev():
    """Stage 5 as a module."""
    return importlib.import_module("05_eval")


def build(folder, bpe, gpt, train, valid, context=64, width=32, text="practice"):
    """Write artifacts as stages 1, 2 and 4 do; -> (tokenizer, fresh model)."""
    find = regex.compile(bpe.GPT2_PATTERN).findall
    counts = Counter(piece for story in train for piece in find(story))
    tokenizer, _ = bpe.train(counts, 500, 2)
    first, second = folder / "artifacts/01_bpe", folder / "artifacts/02_prepare"
    plumbing.write_whole(first / "tokenizer.json", tokenizer.to_json().encode())
    sha = plumbing.sha256_of(first / "tokenizer.json")
    meta = {"format": bpe.FORMAT, "constants": {"TEXT": text}, "tokenizer": sha}
    plumbing.write_whole(first / "meta.json", json.dumps(meta).encode())
    meta |= {"format": "02_prepare/2", "vocab_size": len(tokenizer)}
    for name, stories in [("train", train), ("valid", valid)]:
        ids = [i for story in stories for i in [2, *tokenizer.encode(story), 3]]
        path = second / f"{name}.bin"
        plumbing.write_whole(path, np.array(ids, dtype="<u2").tobytes())
        size = sum(len(story.encode()) for story in stories)
        meta[name] = {"stories": len(stories), "tokens": len(ids), "bytes": size}
        meta[name]["sha256"] = plumbing.sha256_of(path)
    plumbing.write_whole(second / "meta.json", json.dumps(meta).encode())
    torch.manual_seed(0)
    config = {"vocab_size": len(tokenizer), "context": context}
    model = gpt.GPT(config | {"n_layer": 2, "n_head": 2, "n_embd": width}).eval()
    save(folder, model, meta)
    return tokenizer, model


def save(folder, model, meta):
    """Write best.pt as stage 4 does."""
    content = {"format": "04_train/1", "config": model.config, "step": 1}
    content |= {"tokenizer": meta["tokenizer"], "weights": model.state_dict()}
    content |= {"identity": {"data": meta["train"]["sha256"]}}
    path = folder / "artifacts/04_train/best.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)


@contextlib.contextmanager
def inside(folder, ev, bpe):
    """Let stage 5 read and write in this folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "OUT", folder / "artifacts/01_bpe")
        patch.setattr(ev, "DATA", folder / "artifacts/02_prepare")
        patch.setattr(ev, "MODEL", folder / "artifacts/04_train/best.pt")
        patch.setattr(ev, "OUT", folder / "artifacts/05_eval")
        patch.setattr(ev, "SAMPLES", 5)
        yield patch


def short_stories(count, seed, sentences=5):
    """The first sentences of some practice stories, none twice."""
    stories = practice_stories.stories(3 * count, seed=seed)
    cut = [re.findall(r".*?[.!?]\"?(?=\s|$)", story)[:sentences] for story in stories]
    return list(dict.fromkeys("".join(parts) for parts in cut))[:count]


@pytest.fixture(scope="module")
def world(tmp_path_factory, bpe, gpt):
    """(folder, tokenizer, a fresh model, training ids, validation ids)."""
    folder = tmp_path_factory.mktemp("world")
    stories = short_stories(260, seed=3)
    tokenizer, model = build(folder, bpe, gpt, stories[:200], stories[200:])
    read = [np.fromfile(folder / f"artifacts/02_prepare/{n}.bin", "<u2") for n in
            ("train", "valid")]  # fmt: skip
    return folder, tokenizer, model, *read


# ------------------------------------------------------------------------ the loss


@pytest.mark.parametrize("context", [1, 2, 3, 8, 9, 64])
def test_windows_score_every_token_once_with_at_least_half_a_context_of_past(
    ev, context
):
    for length in [1, 2, 3, 8, 9, 10, 17, 40, 65, 66]:
        scored = []
        for first, begin, end in ev.windows(100, 100 + length, context):
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
    context, nats = model.config["context"], {}
    step = -(-context // 2)
    for token in range(begin + 1, end):
        window = max(0, math.ceil((token - begin - context) / step))
        past = ids[begin + window * step : token].astype(np.int64)
        with torch.no_grad():
            logits = model(torch.from_numpy(past)[None])[0, -1]
        nats[token] = -logits.log_softmax(0)[int(ids[token])].item()
    model.float()
    return nats


def test_the_loss_is_that_of_one_token_at_a_time_in_float64(ev, gpt, world):
    _, tokenizer, _, _, valid = world
    starts = np.flatnonzero(valid == 2)[:6]
    ids = valid[: starts[5]]
    starts = starts[:5]
    torch.manual_seed(1)
    config = {"vocab_size": len(tokenizer), "n_layer": 2, "n_head": 2, "n_embd": 32}
    model = gpt.GPT(config | {"context": 24}).eval()  # shorter than the stories
    for weight in model.parameters():  # not the mild beginning of a training
        weight.data *= 2
    sizes = np.array([0] * 4 + [len(t) for t in tokenizer.token_bytes[4:]])
    ends = [*starts[1:], len(ids)]
    assert min(e - b for b, e in zip(starts, ends)) > 24
    by_story = {}
    for begin, end in zip(starts, ends):
        by_story |= reference(model, ids, begin, end)
    sliding = reference(model, ids, 0, len(ids))
    sliding = {token: cost for token, cost in sliding.items() if ids[token] != 2}
    parts = {
        "by story": (by_story, ev.story_windows(ids, starts, 24)),
        "sliding": (sliding, ev.windows(0, len(ids), 24)),
    }
    for name, (expected, windows) in parts.items():
        nats = ev.score(model, ids, windows, torch.device("cpu"), "test")
        found = ev.summary(nats, ids, starts, sizes)
        loss = sum(expected.values()) / len(expected)
        assert found["tokens"] == len(expected) == len(ids) - 5, name
        assert found["loss"] == pytest.approx(loss, abs=1e-5), name
        for token, cost in expected.items():
            assert nats[token] == pytest.approx(cost, abs=1e-3), (name, token)


def test_special_tokens_cost_nats_but_have_no_bytes(ev, world):
    _, tokenizer, model, _, valid = world
    starts = np.flatnonzero(valid == 2)
    sizes = np.array([0] * 4 + [len(t) for t in tokenizer.token_bytes[4:]])
    parts = ev.story_windows(valid, starts, 64)
    nats = ev.score(model, valid, parts, torch.device("cpu"), "test")
    found = ev.summary(nats, valid, starts, sizes)
    text = "".join(tokenizer.decode(valid.tolist()))
    assert (nats[valid == 2] == 0).all() and (nats[valid == 3] > 0).all()
    assert found["tokens"] == (valid != 2).sum()  # <EOS> is one of them
    assert found["bits_per_byte"] == pytest.approx(
        nats.sum() / math.log(2) / len(text.encode())
    )
    assert found["perplexity"] == pytest.approx(math.exp(nats.sum() / found["tokens"]))


def test_the_batch_size_changes_nothing(ev, world, monkeypatch):
    _, _, model, _, valid = world
    parts = ev.story_windows(valid, np.flatnonzero(valid == 2), 64)
    many = ev.score(model, valid, parts, torch.device("cpu"), "test")
    monkeypatch.setattr(ev, "TOKENS_AT_ONCE", 1)  # one window after the other
    one = ev.score(model, valid, parts, torch.device("cpu"), "test")
    assert np.abs(many - one).max() < 1e-4


def test_losses_by_position_add_up_to_the_whole(ev):
    starts = np.array([0, 5, 9])
    nats = np.array([0, 1, 2, 3, 4, 0, 1, 1, 1, 0, 7], dtype=float)
    places = ev.by_position(nats, starts)
    assert places[0] == (1, 1, 3, 3.0)  # the first tokens cost 1, 1 and 7
    assert sum(count * mean for *_, count, mean in places) == nats.sum()
    assert sum(count for *_, count, _ in places) == 8
    assert [low for low, *_ in places[1:]] == [high + 1 for _, high, *_ in places[:-1]]


# ---------------------------------------------------------------------- the ladder


def plain_trigram(train, valid, V, k2, k3):
    """Bits of valid by an interpolated trigram, with dictionaries and a loop."""
    one, two, three = Counter(), Counter(), Counter()
    context1, context2 = Counter(), Counter()
    history = [3]
    for token in train:
        if token != 2:
            one[token] += 1
            two[history[-1], token] += 1
            context1[history[-1]] += 1
            three[history[-2], history[-1], token] += 1
            context2[history[-2], history[-1]] += 1
        history.append(token)
    total, bits, history = sum(one.values()), Counter(), [3]
    for token in valid:
        if token != 2:
            u, v = history[-2:]
            p1 = (one[token] + 1) / (total + V)
            p2 = (two[v, token] + k2 * p1) / (context1[v] + k2)
            p3 = (three[u, v, token] + k3 * p2) / (context2[u, v] + k3)
            for name, p in zip(("unigram", "bigram", "trigram"), (p1, p2, p3)):
                bits[name] -= math.log2(p)
        history.append(token)
    return bits


@pytest.mark.parametrize("chunk", [2**21, 1000, 64])  # files much longer than a chunk
def test_the_trigram_agrees_with_a_plain_computation(world, monkeypatch, chunk):
    _, tokenizer, _, train, valid = world
    monkeypatch.setattr(ngrams, "CHUNK", chunk)
    V = len(tokenizer)
    found, how = ngrams.ngram_losses(train, valid, V)
    counted = train[: how["counted_tokens"]].tolist()
    assert 0.9 * len(train) < len(counted) < len(train)
    expected = plain_trigram(counted, valid.tolist(), V, how["k2"], how["k3"])
    size = len(tokenizer.decode(valid.tolist()).encode())
    for name, bits in expected.items():
        assert found[name] / math.log(2) / size == pytest.approx(bits / size, abs=1e-9)
    assert found["unigram"] > found["bigram"] > found["trigram"]


def test_the_weights_of_the_trigram_are_not_chosen_on_the_validation_stories(world):
    _, tokenizer, _, train, valid = world
    _, how = ngrams.ngram_losses(train, valid, len(tokenizer))
    _, other = ngrams.ngram_losses(train, valid[:100], len(tokenizer))
    assert how == other


def test_probabilities_of_the_trigram_sum_to_one(world):
    _, tokenizer, _, train, _ = world
    V = len(tokenizer)
    u, v = int(train[3]), int(train[4])
    every = [np.array([2, 9, u, v, w]) for w in range(V) if w != 2]
    counts = ngrams.Counts(train, every, V)
    total = 0
    for text in every:
        one, vw, v1, uvw, uv = (values[-1] for values in counts.facts(text))
        total += (uvw + 5 * (vw + 3 * one) / (v1 + 3)) / (uv + 5)
    assert total == pytest.approx(1 - 5 * 3 * counts.unigram[2] / ((v1 + 3) * (uv + 5)))


# ---------------------------------------------------------------------- the copies


def longest_common_run(ids, train):
    """The slow and certain way."""
    best = 0
    text = " " + " ".join(map(str, train)) + " "
    for i in range(len(ids)):
        while (
            i + best < len(ids)
            and f" {' '.join(map(str, ids[i : i + best + 1]))} " in text
        ):
            best += 1
    return best


@pytest.mark.parametrize("letters", [2, 5, 40])
def test_the_longest_copied_run_is_exact(letters, monkeypatch):
    dice = random.Random(letters)
    monkeypatch.setattr(ngrams, "CHUNK", 50)
    for _ in range(15):
        train = np.array([dice.randrange(letters) for _ in range(300)], dtype="<u2")
        texts = [[dice.randrange(letters) for _ in range(dice.randrange(1, 40))]
                 for _ in range(6)]  # fmt: skip
        texts.append(train[100:130].tolist())  # a copy
        texts.append(texts[0])  # the same text twice
        automaton = ngrams.Automaton(texts).read(train)
        for ids in texts:
            runs = automaton.runs(ids)
            for end, (length, where) in enumerate(runs, start=1):
                assert ids[end - length : end] == train[where - length : where].tolist()
                longer = ids[max(0, end - length - 1) : end]
                if len(longer) > length:  # one more token, and it stands nowhere
                    assert longest_common_run(longer, train.tolist()) <= length
            assert max(run for run, _ in runs) == longest_common_run(
                ids, train.tolist()
            )


@pytest.mark.parametrize("chunk", [2**21, 97])
def test_the_nearest_story_is_the_one_with_most_4_grams_in_common(
    world, monkeypatch, chunk
):
    _, tokenizer, _, train, valid = world
    monkeypatch.setattr(ngrams, "CHUNK", chunk)

    def grams(ids):
        return {tuple(ids[i : i + 4]) for i in range(len(ids) - 3)}

    starts = np.flatnonzero(train == 2)
    stories = {int(b): grams(part.tolist()) for b, part in
               zip(starts, np.split(train, starts[1:]))}  # fmt: skip
    everywhere = set().union(*stories.values())
    texts = [part.tolist() for part in np.split(valid, np.flatnonzero(valid == 2)[1:])]
    texts = [*texts[:20], [2, 3]]  # a story of nothing has no 4-grams
    for ids, (seen, share, place) in zip(texts, ngrams.nearest(train, texts)):
        own = grams(ids)
        best = max(len(own & other) for other in stories.values())
        assert share == best / max(1, len(own))
        assert seen == len(own & everywhere) / max(1, len(own))
        assert len(own & stories[place]) == best if own else place == 0


def test_the_memory_of_the_searches_does_not_grow_with_the_training_text(
    tmp_path, monkeypatch
):
    # A chunk is set to 16 K here, so that texts of a quarter and of one million tokens
    # are to it what 30 and 130 million are to a real one. Measured with the real chunk
    # and 448 million tokens: see lessons/07_evaluation.md.
    monkeypatch.setattr(ngrams, "CHUNK", 2**14)
    dice = np.random.default_rng(0)
    texts = [[2, *dice.integers(4, 300, 100).tolist(), 3] for _ in range(10)]
    valid = np.concatenate(texts).astype("<u2")
    peaks = {}
    for size in (2**18, 2**20):
        ids = dice.integers(4, 300, size).astype("<u2")
        ids[::100], ids[99::100] = 2, 3
        ids.tofile(tmp_path / "train.bin")
        train = np.memmap(tmp_path / "train.bin", dtype="<u2", mode="r")
        monkeypatch.setattr(ngrams, "KEPT", 20_000)
        for name, search, arguments in [
            ("counting", ngrams.ngram_losses, (train, valid, 300, (1,))),
            ("copies", ngrams.Automaton(texts).read, (train[: size // 4],)),
            ("nearest", ngrams.nearest, (train, texts)),
        ]:
            tracemalloc.start()
            search(*arguments)
            peaks[name, size] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    for name in ("counting", "copies", "nearest"):
        assert peaks[name, 2**20] < 1.3 * peaks[name, 2**18] + 2**20, peaks


@pytest.fixture(scope="module")
def copier(tmp_path_factory, bpe, gpt):
    """A model that has read 50 stories until it knows them by heart."""
    folder = tmp_path_factory.mktemp("copier")
    stories = short_stories(110, seed=8, sentences=2)
    tokenizer, model = build(folder, bpe, gpt, stories[:50], stories[50:], 64, 64)
    ids = torch.zeros(50, 65, dtype=torch.int64)
    targets = torch.full((50, 65), -1)
    for row, story in enumerate(stories[:50]):
        story = torch.tensor([2, *tokenizer.encode(story), 3][:65])
        ids[row, : len(story)] = targets[row, : len(story)] = story
    optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3, betas=(0.9, 0.95))
    torch.manual_seed(0)
    for step in range(100):
        some = torch.randperm(50)[:25]
        loss = model.train().loss(ids[some, :-1], targets[some, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 8e-3 * min(1, (step + 1) / 10) * (1 - step / 105)
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.4, "the fixture has not learnt them"
    meta = json.loads((folder / "artifacts/02_prepare/meta.json").read_text())
    save(folder, model, meta)
    return folder, tokenizer, model.eval()


def test_a_model_that_knows_50_stories_by_heart_is_called_a_copier(
    ev, bpe, copier, capsys
):
    folder, tokenizer, _ = copier
    with inside(folder, ev, bpe):
        ev.main()
    found = json.loads((folder / "artifacts/05_eval/eval.json").read_text())
    assert found["copier"] and found["copies"] >= 4
    assert "It copies." in capsys.readouterr().out
    copy = next(story for story in found["samples"] if story["copy"])
    train = np.fromfile(folder / "artifacts/02_prepare/train.bin", "<u2")
    assert copy["cut"][1] in tokenizer.decode(train.tolist())
    assert "".join(copy["cut"]) == copy["text"]
    assert copy["nearest_share"] > 0.4 and not copy["opening_new"]
    # Learnt by heart means: easy what it has read, hard what it has not.
    assert found["training_stories"]["loss"] < 0.5 < found["stories"]["loss"]


def test_a_fresh_model_is_not_called_a_copier(ev, bpe, world, capsys):
    folder = world[0]
    judged = folder / "artifacts/05_eval/judge.json"
    plumbing.write_whole(judged, b'{"format": "judge/1", "model": "another"}')
    with inside(folder, ev, bpe):
        ev.main()
    found = json.loads((folder / "artifacts/05_eval/eval.json").read_text())
    assert found["copies"] == 0 and not found["copier"]
    assert "It does not copy." in capsys.readouterr().out
    assert found["ladder"]["this model"] == pytest.approx(
        found["ladder"]["untrained model"], rel=0.1
    )
    assert found["ladder"]["uniform"] > found["ladder"]["trigram"]
    assert found["landmarks"] == []  # those are about TinyStories, and this is not
    assert "judge" not in found  # those marks are of another model
    judged.write_bytes(b'{"format": "jud')
    with inside(folder, ev, bpe), pytest.raises(SystemExit, match="judge.py"):
        ev.main()


def test_real_stories_are_the_control_and_no_copies(ev):
    control = [{"run": 30, "run_share": 0.2}, {"run": 48, "run_share": 0.9}]
    assert ev.is_copy({"run": 60, "run_share": 0.5}, control)
    assert not ev.is_copy({"run": 48, "run_share": 0.9}, control)  # as the real ones do
    assert not ev.is_copy(
        {"run": 60, "run_share": 0.4}, control
    )  # most of it is its own


def test_the_opening_is_the_first_sentence():
    assert (
        ngrams.first_sentence('"Hello," said Tom. Then he ran.') == '"Hello," said Tom.'
    )
    assert ngrams.first_sentence('"Good morning!" said Tom.') == '"Good morning!"'
    assert ngrams.first_sentence("no end") == "no end"
    assert ngrams.first_sentence("") == ""


def test_diversity_tells_the_same_story_told_twice():
    same = ngrams.diversity(["one two three four five"] * 2)
    assert same["overlap"] == 1 and same["distinct1"] == 0.5 and same["repetition"] == 0
    again = ngrams.diversity(["a b c d a b c d", "x y"])
    assert again["repetition"] == 1 / 10 and again["overlap"] == 0


# --------------------------------------------------------------------- the telling


def test_stories_are_the_same_in_every_run_and_end_at_eos(ev, copier):
    _, _, model = copier
    cpu = torch.device("cpu")
    one, two = ev.tell(model, 6, 0.8, cpu), ev.tell(model, 6, 0.8, cpu)
    assert one == two
    for ids in one:
        assert ids[0] == 2 and not {0, 1, 2, 3} & set(ids[1:-1])
        assert ids[-1] == 3 or len(ids) == model.config["context"]


# ------------------------------------------------------------------------ the quiz


def test_the_quiz_has_sixty_items_in_five_categories_with_endings_of_one_form(
    bpe, world
):
    items = quiz.read_items(plumbing.ROOT / "lessons" / "quiz.txt")
    assert len(items) >= 60 and sum(item["practice"] for item in items) >= 30
    groups = Counter((item["category"], item["practice"]) for item in items)
    categories = ("facts", "reasoning", "context", "grammar", "names")
    assert set(groups) == {(c, p) for c in categories for p in (True, False)}
    assert min(groups.values()) >= 8
    asked = [(item["text"], item["right"]) for item in items]
    assert len(set(asked)) == len(asked)
    tokenizer = world[1]
    for item in items:
        for ending in (item["right"], item["wrong"]):
            # The cut between text and ending must be one that the tokenizer makes too.
            whole = tokenizer.encode(item["text"] + " " + ending)
            assert whole == tokenizer.encode(item["text"]) + tokenizer.encode(
                " " + ending
            )


def test_neither_longer_nor_shorter_endings_are_right_more_often():
    items = quiz.read_items(plumbing.ROOT / "lessons" / "quiz.txt")
    longer = sum(len(item["right"]) > len(item["wrong"]) for item in items)
    shorter = sum(len(item["right"]) < len(item["wrong"]) for item in items)
    assert abs(longer - shorter) <= 0.2 * len(items)


def test_the_quiz_scores_each_ending_per_byte_after_its_text(ev, world):
    _, tokenizer, model, _, _ = world
    items = quiz.read_items(plumbing.ROOT / "lessons" / "quiz.txt")[:3]
    ev.take_quiz(model, tokenizer, items, torch.device("cpu"))
    for item in items:
        for side in ("right", "wrong"):
            text = [2, *tokenizer.encode(item["text"])][-63:]
            ending = tokenizer.encode(" " + item[side])
            # The context is 64 tokens: the oldest are given up.
            ids = torch.tensor([(text + ending)[-65:]])
            with torch.no_grad():
                chances = model(ids[:, :-1])[0].log_softmax(-1)
            right = chances[range(-len(ending), 0), ids[0, -len(ending) :]]
            size = len((" " + item[side]).encode())
            assert item[f"{side}_nats"] == pytest.approx(
                -right.sum().item() / size, abs=1e-4
            )
        assert item["solved"] == (item["right_nats"] < item["wrong_nats"])


def test_on_practice_text_only_the_practice_world_counts(ev):
    items = [
        {"category": "facts", "practice": p, "solved": p} for p in (True, False)
    ] * 5
    found = ev.show_quiz(items, "practice")
    assert next(iter(found.items()))[0] == "practice world"
    assert (
        found["practice world"]["share"] == 1 and found["the wide world"]["share"] == 0
    )
    assert found["facts"]["of"] == 5
    assert ev.show_quiz(items, "tinystories")["all"]["share"] == 0.5


def test_the_interval_is_wilsons(ev):
    low, high = ev.wilson(10, 10)  # R: prop.test(10, 10, correct = FALSE)
    assert (low, high) == (pytest.approx(0.7225, abs=1e-4), pytest.approx(1, abs=1e-9))
    low, high = ev.wilson(0, 10)
    assert (low, high) == (pytest.approx(0, abs=1e-9), pytest.approx(0.2775, abs=1e-4))


# ----------------------------------------------------------------- the whole of it


def test_two_runs_give_the_same_eval_json(workshop, ev, bpe, gpt):
    stories = short_stories(60, seed=4)
    build(
        workshop.folder, bpe, gpt, stories[:40], stories[40:], text="tinystories-mini"
    )
    workshop.edit("05_eval.py", SAMPLES=5)
    done = workshop.run("05_eval.py")
    assert done.returncode == 0, done.stderr
    result = workshop.folder / "artifacts/05_eval/eval.json"
    first = result.read_bytes()
    with inside(workshop.folder, ev, bpe):
        ev.main()  # another process than the first, so other hashes of strings too
    assert result.read_bytes() == first
    assert "Next: python 06_sample.py" in done.stdout
    found = json.loads(first)
    assert len(found["landmarks"]) > 4  # the text is TinyStories, it says
    for name, bits, protocol in found["landmarks"]:
        assert bits < 1 and protocol in done.stdout and name in done.stdout
    (workshop.folder / "artifacts/04_train/best.pt").unlink()
    workshop.refuses("05_eval.py", "best.pt is missing", "python 04_train.py")
    assert result.read_bytes() == first


def refused(ev, *expected):
    """The checks must stop with three lines that hold the expected words."""
    with pytest.raises(SystemExit) as stopped:
        ev.check_constants()
        ev.check_inputs()
    lines = str(stopped.value).split("\n")
    assert len(lines) == 3, lines
    for words in expected:
        assert words in str(stopped.value), lines


def test_what_does_not_belong_together_is_refused(ev, bpe, gpt, tmp_path):
    stories = short_stories(40, seed=5)
    _, model = build(tmp_path, bpe, gpt, stories[:30], stories[30:])
    second, best = (
        tmp_path / "artifacts/02_prepare",
        tmp_path / "artifacts/04_train/best.pt",
    )
    meta = json.loads((second / "meta.json").read_text())
    with inside(tmp_path, ev, bpe) as patch:
        ev.check_inputs()
        for name, value in [("SAMPLES", 0), ("SAMPLES", 2.5), ("SEED", -1),
                            ("TOKENS_AT_ONCE", 0)]:  # fmt: skip
            patch.setattr(ev, name, value)
            refused(ev, name, "05_eval.py")
            patch.setattr(ev, name, 5)
        for wrong in (0.8, (), (0.8, 0), ("warm",)):
            patch.setattr(ev, "TEMPERATURES", wrong)
            refused(ev, "TEMPERATURES", "05_eval.py")
        patch.setattr(ev, "TEMPERATURES", (1,))

        save(tmp_path, model, meta | {"train": {"sha256": "of another file"}})
        refused(ev, "another train.bin", "python 04_train.py")
        save(tmp_path, model, meta | {"tokenizer": "another"})
        refused(ev, "best.pt was made with another tokenizer", "python 04_train.py")
        best.write_bytes(best.read_bytes()[:1000])
        refused(ev, "best.pt cannot be read", "python 04_train.py")
        save(tmp_path, model, meta)
        ev.check_inputs()

        valid = (second / "valid.bin").read_bytes()
        (second / "valid.bin").write_bytes(valid[:-200])
        refused(ev, "valid.bin is damaged", "python 02_prepare.py")
        (second / "valid.bin").write_bytes(valid)
        other = json.dumps(meta | {"tokenizer": "another"})
        (second / "meta.json").write_text(other)
        refused(ev, "train.bin was made with another tokenizer", "python 02_prepare.py")
        (second / "meta.json").write_text('{"format": ')
        refused(ev, "meta.json cannot be used", "python 02_prepare.py")
        (second / "meta.json").unlink()
        refused(ev, "meta.json is missing", "python 02_prepare.py")


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "holds no items"),
        ("facts\nThe sky is\n+ blue.", "cannot be read"),  # one ending
        ("facts wide\nThe sky is\n+ blue.\n- wood.", "cannot be read"),  # what is wide?
        ("facts\n+ blue.\n- wood.", "cannot be read"),  # no text
    ],
)
def test_a_quiz_that_cannot_be_read_is_refused(tmp_path, text, words):
    (tmp_path / "quiz.txt").write_text(text, "utf-8")
    with pytest.raises(SystemExit, match=words) as stopped:
        quiz.read_items(tmp_path / "quiz.txt")
    assert len(str(stopped.value).split("\n")) == 3


def test_a_gpu_that_computes_wrongly_is_not_used(ev, monkeypatch):
    class Model:
        where = "cpu"

        def to(self, device):
            self.where = device.type
            return self

        def cpu(self):
            return self.to(torch.device("cpu"))

    gpu = torch.device("cuda")
    monkeypatch.setattr(ev.machine, "devices", lambda: [gpu, torch.device("cpu")])
    for there, expected in [(100.01, "cuda"), (103.0, "cpu")]:
        costs = {"cpu": np.array([100.0]), "cuda": np.array([there])}
        monkeypatch.setattr(ev, "score", lambda *a, costs=costs: costs[a[3].type])
        model, device = ev.choose_device(Model(), None, None)
        assert (model.where, device.type) == (expected, expected)
