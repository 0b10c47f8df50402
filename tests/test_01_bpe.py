"""Stage 1: the tokenizer is the one that Hugging Face's library would have made.

Then the text is read, whatever it looks like, and the helpers that all stages share.
"""

import doctest
import errno
import functools
import io
import itertools
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import unicodedata
from collections import Counter

import practice_stories
import pytest
import regex
import separate
from conftest import ROOT

# What breaks cutting into pre-tokens, if anything does: whitespace of every kind
# (\x1c-\x1f are whitespace for re, but not for GPT-2), line ends, marks that join the
# letter before them, joiners, right-to-left text, the names of special tokens.
# fmt: off
WHITESPACE = [
    "\x1c", "\x1d", "\x1e", "\x1f", "\x85", "\xa0", "\u1680", "\u2000", "\u2003",
    "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\t", "\v",
    "\f", "\r", "\r\n", "\n", "\n\n\n", " ", "  ", "     ", " \n ",
]
OTHERS = [
    "a", "Z", "the", "Once", "upon", "'s", "'ll", "'", "don't", "I'VE", "12", "3.14",
    "½", "Ⅷ", "٣", ".", "...", "!?", "\"", "—", "“", "”", "é", "e\u0301", "\u0301",
    "\u0308\u0323", "ß", "ı", "漢字", "かな", "한글", "ไทย", "हिन्दी", "שלום", "مرحبا",
    "\u202e", "\u200f", "\u200d", "\ufe0f", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "\0",
    "\x07", "\x1b[0m", "\x7f", "\x9f", "\ufeff", "\ufffd", "\U0010ffff", "<PAD>",
    "<UNK>", "<BOS>", "<EOS>", "<|endoftext|>", "<EO", "S>",
]
# fmt: on


def random_string(rng, alphabet=None, whitespace=WHITESPACE):
    """Up to 20 parts: whitespace, hard cases, and characters from all of Unicode."""
    parts = []
    for _ in range(rng.randint(0, 20)):
        kind = rng.random()
        if kind < 0.35:
            parts.append(rng.choice(whitespace))
        elif kind < 0.75 or alphabet is None:
            parts.append(rng.choice(OTHERS))
        else:
            parts.append("".join(rng.choices(alphabet, k=rng.randint(1, 4))))
    return "".join(parts)


@pytest.fixture(scope="module")
def stories():
    return list(practice_stories.stories(300, seed=7))


@pytest.fixture(scope="module")
def pre_token_counts(bpe, stories):
    return Counter(
        p for story in stories for p in regex.findall(bpe.GPT2_PATTERN, story)
    )


@pytest.fixture(scope="module")
def tokenizer(bpe, pre_token_counts):
    return bpe.train(pre_token_counts, 1000, 2)[0]


def peer_trained(bpe, documents, vocab_size, min_frequency):
    """Hugging Face's trainer on whole documents -> its model as a dictionary."""
    tokenizers = pytest.importorskip("tokenizers")
    peer = tokenizers.ByteLevelBPETokenizer()
    # Its file mode feeds single lines and never sees two line ends; an iterator does.
    peer.train_from_iterator(
        documents, vocab_size=vocab_size, min_frequency=min_frequency,
        special_tokens=bpe.SPECIAL_TOKENS, show_progress=False,
    )  # fmt: skip
    return json.loads(peer._tokenizer.to_str())["model"]


def plainly_counted(bpe, documents):
    return Counter(
        p for text in documents for p in regex.findall(bpe.GPT2_PATTERN, text)
    )


def test_the_examples_in_the_docstrings_are_true(bpe):
    outcome = doctest.testmod(bpe)
    assert outcome.attempted >= 3 and outcome.failed == 0


# ---------------------------------------------------------------------------- learning


def test_the_worked_example_comes_out_as_in_the_textbook(bpe):
    # "aaabdaaabac" (Gage 1994): aa, then ab, then aaab
    words = {(0, 0, 0, 1, 3, 0, 0, 0, 1, 0, 2): 1}
    assert bpe.train_naive(words, 3, 4) == [(0, 0), (0, 1), (4, 5)]


def test_among_equally_frequent_pairs_the_smaller_ids_win(bpe):
    assert bpe.train_naive({(5, 6): 1, (2, 9): 1}, 1, 10) == [(2, 9)]


def test_the_fast_trainer_finds_the_merges_of_the_naive_one(bpe, pre_token_counts):
    fast, _ = bpe.train(pre_token_counts, 320, 1)
    words = {
        tuple(fast.byte_id[b] for b in p.encode()): n
        for p, n in pre_token_counts.items()
    }
    assert bpe.train_naive(words, 60, 260) == fast.merges


@pytest.mark.parametrize("alphabet", ["a", "ab", "abc", "aé "])
def test_the_fast_trainer_equals_the_naive_one_where_everything_repeats(bpe, alphabet):
    # Few letters: overlapping pairs (aaa), ties and pairs that die out, all the time.
    rng = random.Random(alphabet)
    for _ in range(30):
        counts = Counter()
        for _ in range(rng.randint(1, 15)):
            word = "".join(rng.choices(alphabet, k=rng.randint(1, 12)))
            counts[word] += rng.randint(1, 5)
        fast, merge_counts = bpe.train(counts, 300, 1)
        words = {
            tuple(fast.byte_id[b] for b in p.encode()): n for p, n in counts.items()
        }
        assert bpe.train_naive(words, 40, 260) == fast.merges
        assert merge_counts == sorted(merge_counts, reverse=True)
        # No two merges spell the same token, so that each makes a new id.
        assert len(set(fast.token_bytes)) == len(fast) == 260 + len(fast.merges)


@pytest.mark.parametrize("vocab_size, min_frequency", [(260, 2), (700, 2), (3000, 20)])
def test_vocabulary_and_merges_are_those_of_the_peer(
    bpe, stories, pre_token_counts, vocab_size, min_frequency
):
    theirs = peer_trained(bpe, stories, vocab_size, min_frequency)
    tokenizer, _ = bpe.train(pre_token_counts, vocab_size, min_frequency)
    ours = json.loads(tokenizer.to_json())
    assert ours["model"]["vocab"] == theirs["vocab"]
    assert ours["model"]["merges"] == theirs["merges"]


def test_on_texts_of_two_letters_the_peer_still_agrees(bpe):
    for seed in range(60):
        rng = random.Random(seed)
        alphabet = rng.choice(["a", "ab", "abc", "aé", "ab ñ"])
        documents = [
            " ".join(
                "".join(rng.choices(alphabet, k=rng.randint(1, 12))) for _ in range(6)
            )
            for _ in range(rng.randint(1, 30))
        ]
        size, least = rng.choice([262, 280, 1000]), rng.choice([1, 2, 3])
        theirs = peer_trained(bpe, documents, size, least)
        ours, _ = bpe.train(plainly_counted(bpe, documents), size, least)
        ours = json.loads(ours.to_json())["model"]
        assert (ours["vocab"], ours["merges"]) == (theirs["vocab"], theirs["merges"]), (
            seed
        )


def test_on_random_unicode_the_peer_still_agrees(bpe, shared_alphabet):
    rng = random.Random(3)
    documents = [random_string(rng, shared_alphabet) for _ in range(400)]
    theirs = peer_trained(bpe, documents, 900, 2)
    ours, _ = bpe.train(plainly_counted(bpe, documents), 900, 2)
    ours = json.loads(ours.to_json())["model"]
    assert ours["vocab"] == theirs["vocab"] and ours["merges"] == theirs["merges"]


def test_ids_that_are_no_characters_are_merged_like_all_others(
    bpe, pre_token_counts, monkeypatch
):
    # train() keeps a word as chr(id); from 55,296 to 57,343 these are halves of
    # characters in UTF-16, which a str can hold but no file. Here the first of 1,000
    # merges makes id 55,160 instead of 260.
    wanted = bpe.train(pre_token_counts, 1260, 2)[0].merges
    more = 55_160 - 260
    monkeypatch.setattr(bpe, "tqdm", lambda ids, *_, **__: (i + more for i in ids))
    monkeypatch.setattr(bpe, "Tokenizer", list)
    merges, _ = bpe.train(pre_token_counts, 1260, 2)
    assert max(map(max, merges)) > 55_296
    assert [tuple(i - more if i > more else i for i in pair) for pair in merges] == wanted


def test_where_the_pairs_run_out_training_ends_early(bpe):
    # 5 x "ab" gives one merge; "xy" occurs once and is below the minimum
    tokenizer, counts = bpe.train(Counter({"ab": 5, "xy": 1}), 1000, 2)
    assert len(tokenizer) == 261 and counts == [5]
    assert tokenizer.token_bytes[260] == b"ab"


def test_a_minimum_of_two_lets_a_pair_pass_that_is_seen_twice(bpe):
    tokenizer, _ = bpe.train(Counter({"ab": 2}), 1000, 2)
    assert len(tokenizer) == 261


# ---------------------------------------------------------------------------- counting


@pytest.fixture(scope="module")
def every_character():
    return [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000]


@pytest.fixture
def count_story(bpe, monkeypatch):
    """Counts the pre-tokens of one story, as if a file held nothing else."""
    monkeypatch.setattr(bpe, "read_stories", lambda *stories: stories)
    monkeypatch.setattr(bpe, "map_tasks", lambda function, tasks, *_: map(function, tasks))
    return lambda story: bpe.count_text([(story,)], 1)


def test_splitting_at_spaces_changes_no_count(bpe, count_story, every_character):
    rng, cheap = random.Random(1), 0
    for i in range(10_000):
        # As in most stories, most spaces stand before something visible here.
        whitespace = WHITESPACE if i % 5 == 0 else [" ", "\n", " ", "\u3000"]
        story = random_string(rng, every_character if i % 2 else None, whitespace)
        story = story.rstrip()  # as read_stories() yields it
        assert count_story(story) == Counter(bpe.find_pre_tokens(story)), repr(story)
        cheap += " " in story and not bpe.irregular(story)
    assert cheap > 1500  # so many stories took the cheap way


@pytest.mark.parametrize("character", WHITESPACE)
def test_every_kind_of_whitespace_is_cut_right_on_every_side_of_a_space(
    bpe, count_story, character
):
    for parts in itertools.product(["", " ", character, "a"], repeat=4):
        story = "".join(parts).rstrip()
        assert count_story(story) == Counter(bpe.find_pre_tokens(story)), repr(story)


def test_re_knows_all_whitespace_that_the_pattern_knows(bpe, every_character):
    # count_range asks re, which is faster, whether a space stands before whitespace.
    for character in regex.findall(r"\s", "".join(every_character)):
        assert bpe.irregular("a " + character)


def test_counting_a_file_equals_counting_its_stories(bpe, tmp_path):
    rng = random.Random(2)
    stories = [random_string(rng) for _ in range(3000)]
    # A file's separators are no part of a story, and a zero byte is no text.
    stories = [s.replace("<|endoftext|>", "").replace("\0", "") for s in stories]
    stories = [s.replace("\r\n", "\n").replace("\r", "\n").strip() for s in stories]
    path = tmp_path / "text.txt"
    path.write_bytes("\n<|endoftext|>\n".join(stories).encode())
    assert bpe.count_text(bpe.split_file(path), 1) == plainly_counted(bpe, stories)


def test_two_processes_count_what_one_counts(bpe, stories, tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    path.write_text("\n<|endoftext|>\n".join(stories), "utf-8")
    monkeypatch.setattr(bpe, "RANGE", 50_000)
    tasks = bpe.split_file(path)
    assert len(tasks) > 3
    one, two = bpe.count_text(tasks, 1), bpe.count_text(tasks, 2)
    assert one == two == plainly_counted(bpe, stories)
    # Same order, too: a Counter keeps it, and what is printed stays equal.
    assert list(one) == list(two)


# ---------------------------------------------------------------------------- encoding


@pytest.fixture(scope="module")
def peer(tokenizer, tmp_path_factory):
    """tokenizer.json as Hugging Face's library reads it."""
    tokenizers = pytest.importorskip("tokenizers")
    path = tmp_path_factory.mktemp("peer") / "tokenizer.json"
    path.write_text(tokenizer.to_json(), "utf-8")
    return tokenizers.Tokenizer.from_file(str(path))


@pytest.fixture(scope="module")
def shared_alphabet(every_character):
    """All characters that Python knows. Its Unicode is older than that of regex and of
    the peer, and those two may disagree about a letter that only one of them has.
    """
    unknown = ("Cn", "Co")  # not assigned yet; for private use
    return [c for c in every_character if unicodedata.category(c) not in unknown]


def test_five_thousand_random_strings_get_the_ids_of_the_peer(
    tokenizer, peer, shared_alphabet
):
    rng = random.Random(4)
    strings = [random_string(rng, shared_alphabet) for _ in range(5000)]
    peer.encode_special_tokens = True  # "<EOS>" in a text is five plain characters
    for text, theirs in zip(strings, peer.encode_batch_fast(strings)):
        assert tokenizer.encode(text) == theirs.ids, repr(text)


def test_whole_stories_get_the_ids_of_the_peer(tokenizer, peer, stories):
    for story in itertools.islice(stories, 100):
        assert tokenizer.encode(story) == peer.encode(story).ids


def test_decoding_what_was_encoded_gives_every_string_back(tokenizer, every_character):
    rng = random.Random(6)
    for _ in range(2000):
        text = random_string(rng, every_character)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    text = "".join(every_character[::40])
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_text_that_names_a_special_token_does_not_become_one(tokenizer):
    assert min(tokenizer.encode("<BOS><EOS><PAD><UNK>")) >= 4
    assert tokenizer.encode("") == []


def test_decoding_leaves_special_tokens_out(tokenizer):
    assert tokenizer.decode([2, *tokenizer.encode("Hi"), 3, 0]) == "Hi"


def test_half_a_character_is_shown_as_such_and_does_not_raise(tokenizer):
    first_byte_of_two = tokenizer.byte_id[0xC3]
    assert tokenizer.decode([first_byte_of_two]) == "\ufffd"


def test_what_is_remembered_is_bounded(bpe, tokenizer):
    fresh = bpe.Tokenizer(tokenizer.merges)
    fresh.encode("the the " + "x" * 101)  # a long pre-token is not remembered
    assert fresh.remembered.cache_info().currsize == 2  # "the" and " the"
    assert fresh.remembered.cache_info().maxsize is not None


def replayed(bpe, tokenizer, pre_token):
    """The definition of encoding: all merges, one after the other, over the ids."""
    ids = [tokenizer.byte_id[b] for b in pre_token.encode()]
    for pair in tokenizer.merges:
        ids = bpe.merge(ids, pair, 260 + tokenizer.rank[pair])
    return ids


def test_short_and_long_pre_tokens_are_encoded_by_replaying_the_merges(bpe, tokenizer):
    # 740 merges: from 28 bytes on a pre-token takes the way for long ones
    rng = random.Random(9)
    letters = "".join(practice_stories.stories(9)).replace(" ", "").replace("\n", "")
    for length in [1, 2, 3, 26, 27, 28, 29, 30, 100, 1000]:
        for _ in range(5):
            start = rng.randrange(len(letters) - length)
            pre_token = letters[start : start + length]
            ids = tokenizer.encode_pre_token(pre_token)
            assert ids == replayed(bpe, tokenizer, pre_token)


LONG = {  # one single pre-token each, but for base64, which digits and signs cut
    "DNA": "ACGT",
    "one letter": "a",
    "base64": "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    "Chinese": "的一是不了在人有我他这个们中来上大为和国",
    "Thai": "กขคงจฉชซญฎฏฐฑฒณดตถทธนบปผฝพฟภมยรลวศษสหฬอฮ",
    "Devanagari": "अआइईउऊएऐओऔकखगघचछजझटठडढणतथदधनपफबभमयरलवशषसह",
}


@pytest.mark.parametrize("name", LONG)
def test_long_pre_tokens_are_learned_and_encoded_as_the_peer_does(bpe, tmp_path, name):
    tokenizers = pytest.importorskip("tokenizers")
    rng = random.Random(name)
    documents = ["".join(rng.choices(LONG[name], k=n)) for n in (5000, 7, 3000, 900)]
    theirs = peer_trained(bpe, documents, 500, 2)
    ours, _ = bpe.train(plainly_counted(bpe, documents), 500, 2)
    assert json.loads(ours.to_json())["model"]["merges"] == theirs["merges"]
    (tmp_path / "tokenizer.json").write_text(ours.to_json(), "utf-8")
    peer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for document in documents:
        assert ours.encode(document) == peer.encode(document).ids
        assert ours.decode(ours.encode(document)) == document


# ------------------------------------------------------------------ tokenizer.json


def test_reading_what_was_written_gives_the_same_tokenizer(bpe, tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_json(), "utf-8")
    again = bpe.Tokenizer.load(path)
    assert (
        again.token_bytes == tokenizer.token_bytes and again.merges == tokenizer.merges
    )
    assert again.to_json() == tokenizer.to_json()


def drop_byte(model):
    del model["vocab"]["Q"]
    model["vocab"] = {token: i for i, token in enumerate(model["vocab"])}


FIT, READ = "its tokens do not follow from its merges", "cannot be read"
EDITS = {  # what was edited -> (the edit, words of the answer)
    "a merge of an unknown token": (lambda m: m["merges"].append(["zz", "q"]), READ),
    "a merge whose result has no id": (lambda m: m["merges"].append(["Q", "Q"]), FIT),
    "a merge left out": (lambda m: m["merges"].pop(), FIT),
    "a merge given twice": (lambda m: m["merges"].append(m["merges"][0]), FIT),
    "merges in another order": (lambda m: m["merges"].reverse(), READ),
    "an id given twice": (lambda m: m["vocab"].update(Q=100), FIT),
    "an id left out": (lambda m: m["vocab"].pop("Q"), FIT),
    "a byte without a token": (drop_byte, FIT),
    "an id that is no number": (lambda m: m["vocab"].update(t="x"), READ),
    "an id that is nothing": (lambda m: m["vocab"].update(t=None), READ),
    "a special token renamed": (
        lambda m: m["vocab"].update({"<EOS>": m["vocab"]["Q"], "Q": 3}), FIT),
    "a character that is no byte": (
        lambda m: m["vocab"].update({"漢": len(m["vocab"])}), FIT),
    "a merge of three": (lambda m: m["merges"].append([*"abc"]), READ),
    "merges that are no list": (lambda m: m.update(merges=5), READ),
    "a vocabulary that is a list": (lambda m: m.update(vocab=["a"]), READ),
    "no merges at all": (lambda m: m.pop("merges"), READ),
}  # fmt: skip


@pytest.mark.parametrize("what", EDITS)
def test_a_tokenizer_edited_by_hand_is_refused_with_the_reason(
    bpe, tokenizer, tmp_path, what
):
    edit, words = EDITS[what]
    content = json.loads(tokenizer.to_json())
    edit(content["model"])
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(SystemExit) as stopped:
        bpe.Tokenizer.load(path)
    message = str(stopped.value)
    assert words in message and len(message.splitlines()) == 3
    assert message.endswith("python 01_bpe.py")


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"null", b'{"model": 3}', b"\xff\xfe"]
)
def test_a_garbled_tokenizer_is_refused(bpe, tmp_path, damage):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(damage)
    with pytest.raises(SystemExit, match="is damaged"):
        bpe.Tokenizer.load(path)


def test_a_truncated_tokenizer_is_refused(bpe, tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_json()[:5000], "utf-8")
    with pytest.raises(SystemExit, match="is damaged"):
        bpe.Tokenizer.load(path)


# ---------------------------------------------------------------------------- showing


def test_a_token_is_shown_without_surprises(bpe):
    assert bpe.show(b" a b") == "_a_b"
    assert bpe.show(b"\n\t") == "\\n\\t"
    assert bpe.show("é".encode()) == "é"
    assert bpe.show(b"\xe2\x80") == "<e2><80>"
    assert bpe.show("\u200d".encode()) == "\\u200d"


def test_vocab_txt_names_every_token_and_its_parts(bpe, tokenizer):
    lines = list(bpe.vocab_lines(tokenizer, [7] * len(tokenizer.merges)))
    assert len(lines) == len(tokenizer)
    assert lines[3].split() == ["3", "<EOS>"]
    left, right = (bpe.show(tokenizer.token_bytes[i]) for i in tokenizer.merges[0])
    assert lines[260].strip() == f"260 {left + right} = {left} + {right}, seen 7 x"


def test_the_page_counts_every_token_of_the_text(bpe, pre_token_counts, stories):
    tokenizer, merge_counts = bpe.train(pre_token_counts, 500, 2)
    data = bpe.page_data(tokenizer, merge_counts, pre_token_counts, stories[:2])
    everywhere = Counter(i for story in stories for i in tokenizer.encode(story))
    assert data["token_counts"] == [everywhere[i] for i in range(len(tokenizer))]
    assert data["stories"] == [
        [story, tokenizer.encode(story)] for story in stories[:2]
    ]
    assert [bytes.fromhex(token) for token in data["tokens"]] == tokenizer.token_bytes


# ------------------------------------------------------------------ stories of a file

SEPARATORS = {  # what stands between stories -> names
    "<|endoftext|>": "the line of TinyStories", "\n\n": "an empty line",
    "\r\n\r\n": "on Windows", "\r\r": "on old Macs", "\n \n": "a line with a space",
    "\n\t \n": "a line with a tab", "\r\n  \r\n": "on Windows, with spaces",
    "\n\u00a0\n": "a no-break space", "\n\u3000\n": "a wide space",
    "\n\n \n\n": "three blank lines",
}  # fmt: skip


@pytest.fixture
def set_range(bpe, monkeypatch):
    """Ranges so small that their borders fall everywhere."""
    return functools.partial(monkeypatch.setattr, bpe, "RANGE")


@pytest.fixture
def text_file(tmp_path):
    """Writes bytes or a str as a file and gives its path."""

    def write(content, name="text.txt"):
        content = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def read_all(bpe, path):
    tasks = bpe.split_file(path)
    return [story for task in tasks for story in bpe.read_stories(*task)]


def message_of(stopped):
    lines = str(stopped.value).strip().splitlines()
    assert len(lines) == 3, lines
    return "\n".join(lines)


@pytest.mark.parametrize("separator", SEPARATORS, ids=SEPARATORS.values())
def test_no_border_of_ranges_changes_the_stories(
    bpe, text_file, set_range, separator
):
    # Characters of one to four bytes, so that borders fall into the middle of each.
    rng = random.Random(separator)
    for _ in range(40):
        stories = [
            "".join(rng.choices("aé漢👍 .<|>", k=rng.randint(0, 30))) for _ in range(30)
        ]
        path = text_file(separator.join(["x", *stories]))
        set_range(rng.randint(1, 90))
        tasks = bpe.split_file(path)
        # The ranges are the file: nothing twice, nothing left out.
        assert tasks[0][2] == 0 and tasks[-1][3] == path.stat().st_size
        assert all(a[3] == b[2] for a, b in zip(tasks, tasks[1:]))
        wanted = ["x", *(story.rstrip() for story in stories if story.strip())]
        assert read_all(bpe, path) == wanted


def test_the_line_endoftext_wins_over_empty_lines(bpe, text_file):
    path = text_file("one\n\nstill one\n<|endoftext|>\ntwo")
    assert read_all(bpe, path) == ["one\n\nstill one", "two"]


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
def test_line_ends_of_all_systems_become_the_same(bpe, text_file, end):
    for separator in ("<|endoftext|>" + end, end):
        path = text_file(end.join(["one", "line", separator + "two", "lines", ""]))
        assert read_all(bpe, path) == ["one\nline", "two\nlines"]


def test_the_first_line_of_a_story_keeps_its_indentation(bpe, text_file):
    code = "    if x:\n        return 1"
    path = text_file(f"def f(x):\n\n{code}\n\n\n \n\tpass\n\n　むかし")
    assert read_all(bpe, path) == ["def f(x):", code, "\tpass", "　むかし"]


def test_a_byte_order_mark_is_no_part_of_the_first_story(bpe, text_file):
    # Only the mark at the very beginning; and the offset of a wrong byte counts it.
    path = text_file("\ufeffone\n\n\ufefftwo")
    assert read_all(bpe, path) == ["one", "\ufefftwo"]
    with pytest.raises(SystemExit, match="byte 0xff at offset 5"):
        read_all(bpe, text_file(b"\xef\xbb\xbfon\xff\n\n two"))


def test_a_text_of_whitespace_is_refused(bpe, text_file):
    for content in (" \n\n" * 5000, "\n<|endoftext|>\n" * 900):
        with pytest.raises(SystemExit, match="nothing but whitespace"):
            bpe.first_stories(bpe.split_file(text_file(content)), 3)


def test_without_separators_for_too_long_the_offset_is_named(
    bpe, text_file, set_range, monkeypatch
):
    monkeypatch.setattr(bpe, "LONGEST", 1000)
    set_range(700)
    # Each range ends with the first story that ends after 700 bytes: of the 500 short
    # ones at 702 and 1,404. So the search for the third end begins at 1,404 + 700.
    for before, byte in (1, "700"), (5, "700"), (500, "2,104"):
        path = text_file(b"a\n\n" * before + b"x" * 3000 + b"\n\nb" * 10)
        with pytest.raises(SystemExit, match=f"no end of a story from byte {byte} on"):
            bpe.split_file(path)


@pytest.mark.parametrize("offset", [0, 7, 499, 500, 501, 2500, 4999])
def test_the_first_byte_that_is_not_utf8_is_named_with_its_offset(
    bpe, text_file, set_range, offset
):
    content = bytearray(b"One day.\n\n" * 500)  # 5,000 bytes
    content[offset] = 0xE9  # "é" as Windows-1252 writes it
    set_range(500)
    with pytest.raises(SystemExit) as stopped:
        read_all(bpe, text_file(content, "it's mine.txt"))
    message = message_of(stopped)
    assert f"byte 0xe9 at offset {offset:,}." in message
    assert "-f WINDOWS-1252" in message and """it'"'"'s mine.txt'""" in message


@pytest.mark.parametrize("code", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("story", ["One day.", "Однажды лиса.", "从前有一只猫。"])
def test_utf16_is_recognized_in_every_language(bpe, text_file, code, story):
    content = f"{story}\n\n".encode(code) * 900
    with pytest.raises(SystemExit) as stopped:
        read_all(bpe, text_file(content))
    assert "UTF-16" in message_of(stopped)


# ------------------------------------------------ files in which nothing separates


STORY = {
    "English": "Tom said, \"It's late; {}!\" and ran home.",
    "German": "„Komm, {}“, sagte er; es wurde dunkel.",
    "Chinese": "从前有一只小猫,编号{}。它说:「你好!」",
    "Russian": "Жила-была лиса {}; она сказала: «Да, да».",
    "emoji": "The {}th cat 😀, a tab\tand a \\ backslash.",
}


def as_jsonl(stories, **options):
    # The longest text of a record counts, not the first.
    rows = ({"id": f"number {i}", "story": story} for i, story in enumerate(stories))
    return "".join(json.dumps(row, **options) + "\n" for row in rows)


def as_csv(stories, delimiter=","):
    stories = (story.replace('"', '""') for story in stories)
    rows = (f'{i}{delimiter}"{story}"' for i, story in enumerate(stories))
    return "\n".join([f"id{delimiter}text", *rows])


FORMS = {  # what a file looks like -> (its text, its name, what the message says)
    "JSON lines": lambda s: (as_jsonl(s), "a.jsonl", "JSON record"),
    "JSON lines in UTF-8": lambda s: (
        as_jsonl(s, ensure_ascii=False), "a b.txt", "JSON record"),
    "JSON lines with an empty one": lambda s: (
        as_jsonl(s) + "\n\n" + as_jsonl(s[:1]), "a.txt", "JSON record"),
    "a JSON list": lambda s: (
        json.dumps([{"text": t} for t in s], indent=1), "a.json", "JSON record"),
    "JSON lines of texts": lambda s: (
        "\n".join(json.dumps([t]) for t in s), "a.txt", "JSON record"),
    "a list in a JSON object": lambda s: (
        json.dumps({"from": "us", "data": [{"my text": t} for t in s]}), "a.json",
        "JSON record"),
    "JSON lines with a separator inside": lambda s: (
        as_jsonl([t + "\n<|endoftext|>" for t in s]), "a.txt", "JSON record"),
    "JSON lines with U+2028 inside": lambda s: (
        as_jsonl([f"One.\u2028{t}" for t in s], ensure_ascii=False), "a.jsonl",
        "JSON record"),
    "one story per line": lambda s: ("\n".join(s), "it's.txt", "each line"),
    "CSV": lambda s: (as_csv(s), "a.csv", "row of the table"),
    "CSV called txt": lambda s: (as_csv(s), "a.txt", "row of the table"),
    "CSV with semicolons": lambda s: (as_csv(s, ";"), "$a.csv", "row of the table"),
    "TSV": lambda s: (as_csv(s, "\t"), "a;b.tsv", "row of the table"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("language", STORY)
def test_the_command_that_is_offered_makes_a_text_of_the_file(
    bpe, text_file, tmp_path, monkeypatch, form, language
):
    stories = [STORY[language].format(i) for i in range(60)]
    content, name, words = FORMS[form](stories)
    path = text_file(content, name)
    with pytest.raises(SystemExit) as stopped:
        bpe.split_file(path)
    message = message_of(stopped)
    assert "one single story" in message and words in message
    command = shlex.split(message.splitlines()[2])
    assert command == ["python", "lessons/separate.py", str(path)]
    monkeypatch.setattr(sys, "argv", command[1:])
    separate.main()
    made = read_all(bpe, tmp_path / f"{name}.txt")
    made = [story.removeprefix("One.\u2028") for story in made]
    assert made[: len(stories)] == stories
    with pytest.raises(SystemExit, match="already exists"):  # it may be another's
        separate.main()


def test_a_book_in_one_piece_is_told_what_separates(bpe, text_file):
    with pytest.raises(SystemExit) as stopped:
        bpe.split_file(text_file("It was a dark night. " * 3000))
    assert "Put an empty line, or a line <|endoftext|>" in message_of(stopped)


@pytest.mark.parametrize(
    "text",
    [
        "{name} loved cake, and tea.\n\n",  # as many commas in each line
        '"word": "he said that was the longest word of all"\n\n',  # JSON inside prose
        "[Scene 1]\n\n{curly}, she said, braces.\n\n",
        "Alpha,Beta\n\nGamma,Delta\n\n",
        "Act 1\tScene 2\n\nAct 1\tScene 3\n\n",
    ],
)
def test_stories_that_resemble_a_table_are_read(bpe, text_file, text):
    assert len(read_all(bpe, text_file(text * 300))) >= 300


# --------------------------------------------------------------- where a text is from


@pytest.mark.parametrize(
    "text", ["no-such.txt", "", 5, None, ["a"], "~nobody/x", "a\0b"]
)
def test_a_text_that_is_not_there_is_refused_with_the_choices(bpe, text):
    with pytest.raises(SystemExit) as stopped:
        bpe.find_text(text, "02_prepare.py")
    message = message_of(stopped)
    assert "tinystories-mini" in message and message.endswith("python 02_prepare.py")
    place = bpe.HERE / os.path.expanduser(str(text))
    assert f"{place} is missing" in message  # where it looked


def test_a_folder_is_no_text(bpe, tmp_path):
    with pytest.raises(SystemExit, match="missing or too small"):
        bpe.find_text(str(tmp_path), "01_bpe.py")


@pytest.mark.parametrize("size", [0, 9_999])
def test_an_empty_or_tiny_text_is_refused_with_the_minimum(bpe, text_file, size):
    with pytest.raises(SystemExit, match="too small") as stopped:
        bpe.find_text(str(text_file(b"a" * size)), "01_bpe.py")
    assert "10,000" in message_of(stopped)


# ---------------------------------------------------------------------------- processes


def fail_at(number, task):
    if task == number:  # as a worker does that finds a byte which is not UTF-8
        raise SystemExit(f"task {task} went wrong")
    return task


def die(task):
    os._exit(9)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_tasks_until_one_fails(bpe, workers):
    results = bpe.map_tasks(functools.partial(fail_at, 7), range(9), workers, "test")
    assert list(itertools.islice(results, 7)) == list(range(7))
    with pytest.raises(SystemExit, match="task 7 went wrong"):
        next(results)


def test_a_worker_that_dies_is_reported_in_three_lines(bpe):
    with pytest.raises(SystemExit) as stopped:
        bpe.run_stage(
            lambda: list(bpe.map_tasks(die, range(4), 2, "test")), "x.py", lock=False,
            memory_hint="Set WORKERS = 1",
        )  # fmt: skip
    message = message_of(stopped)
    assert "Out of memory" in message and message.endswith("WORKERS = 1")


def test_a_wrong_byte_in_a_later_range_stops_the_run_with_its_offset(
    bpe, text_file, set_range
):
    path = text_file(b"One day.\n\n" * 400 + b"caf\xe9" + b"\n\nOne day." * 400)
    set_range(500)
    with pytest.raises(SystemExit, match="offset 4,003"):
        bpe.count_text(bpe.split_file(path), 1)


# Two workers, of which one has done a task, and so is alive, when the run waits.
TWO_WORKERS = """
import importlib
bpe = importlib.import_module("01_bpe")
def main():
    for _ in bpe.map_tasks(abs, [1, 2, 3], 2, "test"):
        print("waiting", flush=True)
        input()
bpe.run_stage(main, "x.py", lock=False)
"""


def test_ctrl_c_reaches_every_process_and_only_the_first_one_answers():
    process = subprocess.Popen(
        [sys.executable, "-c", TWO_WORKERS], cwd=ROOT, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout.readline() == "waiting\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    errors = process.communicate()[1]
    assert process.returncode == 1 and "Traceback" not in errors, errors
    assert "Stopped by Ctrl-C." in errors


def test_there_are_never_more_processes_than_tasks(bpe, capsys, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 5}, raising=False)
    assert bpe.count_processes("auto", [1]) == 1
    assert bpe.count_processes("auto", range(1000)) == 3  # one per core
    assert bpe.count_processes(3, range(1000)) == 3
    assert bpe.count_processes(3, [1, 2]) == 2
    assert "[plan]" in capsys.readouterr().out


# ------------------------------------------------------------ files and messages of all


def test_either_all_files_are_written_or_none(bpe, tmp_path):
    old, new = tmp_path / "old", tmp_path / "folder/new"
    old.write_text("old")

    def fail(file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError):
        bpe.write_all({old: "changed", new: fail})
    assert old.read_text() == "old" and not new.exists()
    bpe.write_all({old: "é", new: lambda file: file.write(b"x"), tmp_path / "no": None})
    assert old.read_text("utf-8") == "é" and new.read_bytes() == b"x"
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["new", "old"]


TROUBLES = [
    (KeyboardInterrupt(), "Stopped by Ctrl-C"),
    (OSError(errno.ENOSPC, "No space left on device"), "The disk is full"),
    (PermissionError(errno.EACCES, "Permission denied", "x"), "Permission denied: 'x'"),
    (NotADirectoryError(errno.ENOTDIR, "Not a directory", "x"), "Not a directory: 'x'"),
    (MemoryError(), "Out of memory"),
    (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "Out of memory"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), "Out of memory"),
]


@pytest.mark.parametrize("trouble, words", TROUBLES)
def test_what_a_user_can_fix_is_said_in_three_lines(bpe, trouble, words):
    def main():
        raise trouble

    with pytest.raises(SystemExit) as stopped:
        bpe.run_stage(main, "01_bpe.py", lock=False)
    assert words in message_of(stopped) and "python 01_bpe.py" in message_of(stopped)


def test_an_error_of_the_program_stays_a_traceback(bpe):
    def main():
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        bpe.run_stage(main, "01_bpe.py", lock=False)


@pytest.mark.parametrize("value", [True, 1.0, "5", None, float("nan"), 0, 11])
def test_what_is_no_whole_number_or_out_of_range_is_refused(bpe, value):
    with pytest.raises(SystemExit, match="a whole number from 1 to 10"):
        bpe.in_range("x.py", "N", value, int, 1, 10)
    bpe.in_range("x.py", "N", 1, int, 1, 10)
    bpe.in_range("x.py", "N", 1, float, 0.5, 10)  # a whole number is a number


def test_a_json_file_that_is_damaged_or_of_another_format_is_refused(bpe, text_file):
    for content in ('{"format": "x/1"}', "{", "[1]", "", "null", b"\xff"):
        with pytest.raises(SystemExit, match="cannot be used"):
            bpe.read_json(text_file(content), "01_bpe.py", "x/2")
    good = text_file('{"format": "x/2", "a": 1}')
    assert bpe.read_json(good, "01_bpe.py", "x/2")["a"] == 1


def printed_by(bpe, main, encoding, monkeypatch):
    """What a terminal of this encoding gets to see of a stage."""
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    bpe.run_stage(main, "x.py", lock=False)
    return terminal.buffer.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_that_lacks_characters_does_not_end_the_run(
    bpe, monkeypatch, encoding
):
    shown = printed_by(bpe, lambda: print("a 猫 Ω"), encoding, monkeypatch)
    assert shown.strip() == b"a ? ?"


def test_a_stage_ends_in_silence_when_nobody_reads_on(bpe):
    # As with `python 01_bpe.py | head`: the reader has left before the first line.
    code = "import importlib; bpe = importlib.import_module('01_bpe')\n"
    code += "bpe.run_stage(lambda: print('x'), 'x.py', lock=False)"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


# ----------------------------------------------------------------------- the script


ONCE = "Once upon a time.\n\n" * 900


def test_without_lessons_the_practice_text_is_refused_and_a_file_works(
    bpe, in_process, tmp_path
):
    with pytest.raises(SystemExit, match="lessons/, which makes it, is not in"):
        bpe.find_text("practice", "01_bpe.py")
    (tmp_path / "text.txt").write_text(ONCE, "utf-8")
    out = in_process("01_bpe.py", TEXT="text.txt", VOCAB_SIZE=270)
    notes = [line for line in out.splitlines() if line.startswith("[note]")]
    assert len(notes) == 1 and "tokens.html" in notes[0]
    assert "tokens.html" not in out.split("[wrote]")[1]


def test_a_run_writes_files_that_belong_together(prepared, bpe):
    path = prepared / "artifacts/01_bpe/meta.json"
    meta = bpe.read_json(path, "01_bpe.py", bpe.FORMAT)
    assert meta["text"]["train"]["path"] == "text.txt"
    assert meta["text"]["train"]["sha256"] == bpe.sha256_of(prepared / "text.txt")
    tokenizer = prepared / "artifacts/01_bpe/tokenizer.json"
    assert meta["tokenizer"] == bpe.sha256_of(tokenizer)
    assert bpe.Tokenizer.load(tokenizer).decode([bpe.BOS, 4 + ord("H") - 33]) == "H"
    vocab = (tokenizer.parent / "vocab.txt").read_text("utf-8").splitlines()
    assert [int(line.split()[0]) for line in vocab] == list(range(400))
    assert "/*DATA*/null" not in (tokenizer.parent / "tokens.html").read_text("utf-8")


def test_each_of_three_edits_is_found_by_a_check_of_its_own(
    bpe, in_process, tmp_path, capsys
):
    def train(*arguments):  # its last merge is wrong
        tokenizer, counts = right(*arguments)
        return bpe.Tokenizer([*tokenizer.merges[:-1], (5, 5)]), counts

    right = bpe.train
    find = regex.compile(r"\S+ ?|\s+").findall  # a space goes to the word before it
    (tmp_path / "text.txt").write_text(ONCE, "utf-8")
    for place, name, wrong, words in [
        (bpe, "train", train, "naive and fast training learn the same from a sample"),
        (bpe.Tokenizer, "decode", lambda *_: "", "gives the first story back exactly"),
        (bpe, "find_pre_tokens", find, "at spaces first changes no pre-token"),
    ]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(place, name, wrong)
            with pytest.raises(SystemExit) as stopped:
                in_process("01_bpe.py", TEXT="text.txt", VOCAB_SIZE=270)
        assert "A check failed." in message_of(stopped)
        printed = capsys.readouterr().out
        assert f"{words}: False" in printed and printed.count(": False") == 1
        assert not (tmp_path / "artifacts/01_bpe").exists()
