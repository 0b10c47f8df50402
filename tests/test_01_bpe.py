"""Stage 1: the tokenizer is the one that Hugging Face's library would have made."""

import itertools
import json
import random
import subprocess
import sys
from collections import Counter

import practice_stories
import pytest
import regex
import texts
from conftest import ROOT

# What breaks cutting into pieces, if anything does: blanks of every kind (\x1c-\x1f
# are blanks for re and for str.split, not for GPT-2), line ends, marks that join the
# letter before them, joiners, right-to-left text, the names of special tokens.
# fmt: off
BLANKS = [
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


def random_string(rng, alphabet=None, blanks=BLANKS):
    """Up to 20 parts: blanks, hard cases, and characters from the whole of Unicode."""
    parts = []
    for _ in range(rng.randint(0, 20)):
        kind = rng.random()
        if kind < 0.35:
            parts.append(rng.choice(blanks))
        elif kind < 0.75 or alphabet is None:
            parts.append(rng.choice(OTHERS))
        else:
            parts.append("".join(rng.choices(alphabet, k=rng.randint(1, 4))))
    return "".join(parts)


@pytest.fixture(scope="module")
def stories():
    return list(practice_stories.stories(300, seed=7))


@pytest.fixture(scope="module")
def piece_counts(bpe, stories):
    return Counter(
        p for story in stories for p in regex.findall(bpe.GPT2_PATTERN, story)
    )


@pytest.fixture(scope="module")
def tokenizer(bpe, piece_counts):
    return bpe.train(piece_counts, 1000, 2)[0]


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


# ---------------------------------------------------------------------------- learning


def test_the_worked_example_comes_out_as_in_the_textbook(bpe):
    # "aaabdaaabac" (Gage 1994): aa, then ab, then aaab
    words = {(0, 0, 0, 1, 3, 0, 0, 0, 1, 0, 2): 1}
    assert bpe.train_naive(words, 3, 4) == [(0, 0), (0, 1), (4, 5)]


def test_among_equally_frequent_pairs_the_smaller_ids_win(bpe):
    assert bpe.train_naive({(5, 6): 1, (2, 9): 1}, 1, 10) == [(2, 9)]


def test_the_fast_trainer_finds_the_merges_of_the_naive_one(bpe, piece_counts):
    fast, _ = bpe.train(piece_counts, 400, 1)
    words = {
        tuple(fast.byte_id[b] for b in p.encode()): n for p, n in piece_counts.items()
    }
    assert bpe.train_naive(words, 140, 260) == fast.merges


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
    bpe, stories, piece_counts, vocab_size, min_frequency
):
    theirs = peer_trained(bpe, stories, vocab_size, min_frequency)
    ours = json.loads(bpe.train(piece_counts, vocab_size, min_frequency)[0].to_json())
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


def test_ids_that_are_no_characters_are_merged_like_all_others(bpe):
    # train() keeps a word as chr(id); from 55,296 to 57,343 these are halves of
    # characters in UTF-16, which a str can hold but no file
    rng = random.Random(8)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=12)) for _ in range(13_000)]
    tokenizer, _ = bpe.train(Counter(words), 60_000, 1)
    assert len(tokenizer) == 60_000
    theirs = peer_trained(bpe, words, 60_000, 1)
    assert json.loads(tokenizer.to_json())["model"]["merges"] == theirs["merges"]
    assert all(tokenizer.decode(tokenizer.encode(w)) == w for w in words[:100])


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
def counted(bpe, monkeypatch):
    """Counts the pieces of lists of stories, as if each list were a range of a file."""
    def here(function, ranges, workers, desc):
        return map(function, ranges)

    monkeypatch.setattr(texts, "batches", lambda *stories: [stories])
    monkeypatch.setattr(texts, "in_workers", here)
    return lambda *ranges: bpe.count_text(ranges, 1)


def test_counting_by_words_equals_counting_by_the_pattern(
    bpe, every_character, counted
):
    rng, by_numbers = random.Random(1), 0
    for i in range(20_000):
        alphabet = every_character if i % 2 else None
        # Stories with blanks beyond ASCII go another way: so not all may have them.
        blanks = BLANKS if i % 5 == 0 else [b for b in BLANKS if b.isascii()]
        stories = [
            random_string(rng, alphabet, blanks) for _ in range(rng.randint(1, 4))
        ]
        # A story has no blanks around it, and holds something (texts.read_stories).
        stories = [story.strip() for story in stories if story.strip()]
        assert counted(stories) == plainly_counted(bpe, stories), stories
        by_numbers += sum(
            "\0" not in s and not bpe.foreign_blank(s) and " " in s for s in stories
        )
    assert by_numbers > 10_000


@pytest.mark.parametrize("blank", BLANKS)
def test_every_kind_of_blank_is_counted_right_on_every_side_of_a_space(
    bpe, blank, counted
):
    for parts in itertools.product(["", " ", blank, "a", "."], repeat=5):
        text = "".join(parts).strip()
        for stories in ([text], ["x", text, ".", text]) if text else []:
            assert counted(stories) == plainly_counted(bpe, stories), stories


def test_words_around_eight_bytes_are_counted_apart(bpe, counted):
    # 8 bytes, with the space, are counted as one number; nine are not
    stories = [" ".join("abcdefghijkl"[:n] for n in range(1, 13)) for _ in range(3)]
    stories += [" ".join("é" * n for n in range(1, 6)), "\x01a \x01a"]
    stories += ["a\0 a \0a a\0\0"]  # as a number, "a" and "a\0" would be the same
    assert counted(stories) == plainly_counted(bpe, stories)


def test_what_one_range_counted_is_added_to_what_others_counted(bpe, stories, counted):
    assert counted(stories[:9], stories[9:90], stories[90:]) == plainly_counted(
        bpe, stories
    )


def test_re_and_regex_agree_on_what_is_a_blank_beyond_ascii(bpe, every_character):
    beyond = "".join(every_character[128:])
    theirs = set(regex.findall(r"\s", beyond))
    assert {c for c in beyond if bpe.foreign_blank(c)} == theirs
    # Every space that stands before a byte above this one stands before no blank.
    assert max(c for c in every_character[:128] if regex.match(r"\s", c)) == " "


def test_counting_a_file_equals_counting_its_stories(bpe, tmp_path):
    rng = random.Random(2)
    stories = [random_string(rng) for _ in range(3000)]
    # A file's separators are no part of a story, and a zero byte is no text.
    stories = [s.replace("<|endoftext|>", "").replace("\0", "") for s in stories]
    stories = [s.replace("\r\n", "\n") for s in stories]
    stories = [s.replace("\r", "\n").strip() for s in stories]
    path = tmp_path / "text.txt"
    path.write_bytes("\n<|endoftext|>\n".join(stories).encode())
    counted = bpe.count_text(texts.tasks(path), 1)
    assert counted == plainly_counted(bpe, stories)


def test_two_processes_count_what_one_counts(bpe, stories, tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    path.write_text("\n<|endoftext|>\n".join(stories), "utf-8")
    monkeypatch.setattr(texts, "RANGE", 50_000)
    tasks = texts.tasks(path)
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
    """All characters that our regex module and the peer's put into the same class.

    Unicode grows each year. A letter that is newer than the tables of one of the two is
    "anything else" there, and no rule of ours can change that; the test sees to it that
    nothing but such newcomers is left out.
    """
    tokenizers = pytest.importorskip("tokenizers")
    different = set()
    for pattern in (r"\s", r"\p{L}", r"\p{N}"):
        ours = set(regex.findall(pattern, "".join(every_character)))
        cut = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "removed")
        theirs = set(every_character)
        for i in range(0, len(every_character), 4096):
            for kept, _ in cut.pre_tokenize_str("".join(every_character[i : i + 4096])):
                theirs -= set(kept)
        different |= ours ^ theirs
    assert len(different) < 25_000
    # ours know 2,247 numbers and 158,172 letters, of regex 2026.11.15
    return [c for c in every_character if c not in different]


def test_twenty_thousand_random_strings_get_the_ids_of_the_peer(
    tokenizer, peer, shared_alphabet
):
    rng = random.Random(4)
    strings = [random_string(rng, shared_alphabet) for _ in range(20_000)]
    peer.encode_special_tokens = True  # "<EOS>" in a text is five plain characters
    for text, theirs in zip(strings, peer.encode_batch_fast(strings)):
        assert tokenizer.encode(text) == theirs.ids, repr(text)


def test_with_special_tokens_allowed_the_peer_agrees_as_well(
    tokenizer, peer, shared_alphabet
):
    rng = random.Random(5)
    strings = [random_string(rng, shared_alphabet) + "<EOS>" for _ in range(3000)]
    peer.encode_special_tokens = False
    for text, theirs in zip(strings, peer.encode_batch_fast(strings)):
        assert tokenizer.encode(text, allow_special=True) == theirs.ids, repr(text)


def test_whole_stories_get_the_ids_of_the_peer(tokenizer, peer, stories):
    for story in itertools.islice(stories, 100):
        assert tokenizer.encode(story) == peer.encode(story).ids


def test_decoding_what_was_encoded_gives_every_string_back(tokenizer, every_character):
    rng = random.Random(6)
    for _ in range(5000):
        text = random_string(rng, every_character)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    text = "".join(every_character)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_text_that_names_a_special_token_does_not_become_one(tokenizer):
    assert min(tokenizer.encode("<EOS><PAD>")) >= 4
    assert tokenizer.encode("<BOS>a<EOS>", allow_special=True)[::2] == [2, 3]
    assert tokenizer.encode("", allow_special=True) == tokenizer.encode("") == []


def test_decoding_leaves_special_tokens_out(tokenizer):
    assert tokenizer.decode([2, *tokenizer.encode("Hi"), 3, 0]) == "Hi"


def test_half_a_character_is_shown_as_such_and_does_not_raise(tokenizer):
    first_byte_of_two = tokenizer.byte_id[0xC3]
    assert tokenizer.decode([first_byte_of_two]) == "\ufffd"


def test_the_memory_of_pieces_has_an_end_and_forgetting_changes_nothing(bpe, tokenizer):
    fresh = bpe.Tokenizer(tokenizer.token_bytes, tokenizer.merges)
    text = " ".join(f"w{i}" for i in range(120_000))
    ids = fresh.encode(text)
    assert len(fresh.cache) <= 100_001
    assert (
        fresh.encode("w5 w6") == tokenizer.encode("w5 w6") and fresh.decode(ids) == text
    )


def test_a_word_of_a_hundred_thousand_letters_is_encoded_too(tokenizer):
    # merging one place after the other would take minutes; we merge all of a pair
    assert tokenizer.decode(tokenizer.encode("abcab" * 20_000)) == "abcab" * 20_000


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
    del model["vocab"]["A"]
    model["vocab"] = {token: i for i, token in enumerate(model["vocab"])}


EDITS = {  # what was edited -> (the edit, words of the answer)
    "a merge of an unknown token": (
        lambda m: m["merges"].append(["zzz", "q"]), "'zzz' is no token"),
    "a merge whose result has no id": (
        lambda m: m["merges"].append(["Q", "Q"]), "'QQ' is no token"),
    "an id given twice": (lambda m: m["vocab"].update(A=100), "each of them once"),
    "an id left out": (lambda m: m["vocab"].pop("A"), "each of them once"),
    "a byte without a token": (drop_byte, "The token of byte 65 ('A') is missing"),
    "an id that is no number": (lambda m: m["vocab"].update(A="x"), "cannot be read"),
    "an id that is nothing": (lambda m: m["vocab"].update(A=None), "cannot be read"),
    "a special token renamed": (
        lambda m: m["vocab"].update({"<EOS>": m["vocab"]["b"], "b": 3}), "Ids 0-3"),
    "a character that is no byte": (
        lambda m: m["vocab"].update({"漢": len(m["vocab"])}), "no bytes"),
    "a merge of three": (lambda m: m["merges"].append([*"abc"]), "cannot be read"),
    "merges that are no list": (lambda m: m.update(merges=5), "cannot be read"),
    "a vocabulary that is a list": (lambda m: m.update(vocab=["a"]), "cannot be read"),
    "no merges at all": (lambda m: m.pop("merges"), "cannot be read"),
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


def test_the_film_begins_with_bytes_and_ends_with_the_tokens(bpe, piece_counts):
    tokenizer, merge_counts = bpe.train(piece_counts, 1000, 2)
    frames = list(bpe.film(tokenizer, merge_counts, "Once upon"))
    assert frames[0].endswith("O|n|c|e|_|u|p|o|n")
    assert frames[-1].endswith(" Once|_upon")
    assert len(frames) == 1 + 3 + 4  # "Once" takes 3 merges, " upon" 4


def test_vocab_txt_names_every_token_and_its_parts(bpe, tokenizer):
    lines = list(bpe.vocab_lines(tokenizer))
    assert len(lines) == len(tokenizer)
    assert lines[3].split() == ["3", "<EOS>"]
    left, right = (bpe.show(tokenizer.token_bytes[i]) for i in tokenizer.merges[0])
    assert lines[260].split() == ["260", left + right, "=", left, "+", right]


def test_the_page_counts_every_token_of_the_text(bpe, piece_counts, stories):
    tokenizer, merge_counts = bpe.train(piece_counts, 500, 2)
    data = bpe.page_data(tokenizer, merge_counts, piece_counts, stories[:2])
    everywhere = Counter(i for story in stories for i in tokenizer.encode(story))
    assert data["token_counts"] == [everywhere[i] for i in range(len(tokenizer))]
    assert data["stories"] == [
        [story, tokenizer.encode(story)] for story in stories[:2]
    ]
    assert [bytes.fromhex(token) for token in data["tokens"]] == tokenizer.token_bytes


def test_importing_the_script_does_nothing_and_says_nothing():
    code = "import sys; sys.path.insert(0, '.'); __import__('01_bpe')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
