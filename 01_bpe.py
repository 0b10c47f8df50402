# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy", "regex", "tqdm"]
# ///
"""Stage 1 of 6: learn from a text which pieces of words deserve a number of their own.

    text --> [01_bpe] --> 02_prepare --> 03_model --> 04_train --> 05_eval --> 06_sample
              you are here

READS   the text named by TEXT below (made for you, downloaded, or your own file)
WRITES  artifacts/01_bpe/tokenizer.json   the tokenizer, in Hugging Face's format
        artifacts/01_bpe/vocab.txt        the same for people: every token and its parts
        artifacts/01_bpe/meta.json        which text it was made from
        artifacts/01_bpe/tokens.html      stories coloured by token, for your browser
RUN     python 01_bpe.py
TAKES   about 3 seconds for the practice stories (2 cores of an AMD EPYC (Zen 3),
        2026-11-23)
LESSON  lessons/02_tokenization.md
"""
# ======================================================================= 2. IMPORTS
import hashlib
import heapq
import json
import os
import re
import sys
import textwrap
import time
from collections import Counter, defaultdict
from operator import add
from pathlib import Path

import numpy as np
import regex  # like the standard library's re, and it knows \p{L}, "any letter"

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE / "lessons"))
import texts  # lessons/texts.py: makes, downloads, opens and reads the text
from plumbing import filled_page, hugging_face_json, in_range, need
from plumbing import run_stage, sha256_of, shown, stop, write_all

# ===================================================================== 3. CONSTANTS
# -- what to read
TEXT = "practice"  # "practice": stories made on this machine, no download;
#                    "tinystories-mini": 22.5 MB download; "tinystories": 2.2 GB more;
#                    or a path: a UTF-8 file with a line <|endoftext|> between stories,
#                    or else a blank line
# -- how to cut
VOCAB_SIZE = 2048  # tokens in all, 260 to 65,536; try 512: more tokens per story
MIN_FREQUENCY = 2  # a pair seen less often than this is never merged; try 10_000
# -- how to run
WORKERS = "auto"  # processes that count words; "auto": one per CPU core if it pays

SPECIAL_TOKENS = ["<PAD>", "<UNK>", "<BOS>", "<EOS>"]  # ids 0-3; TRY NOT TO MODIFY
# GPT-2's pattern: the text is cut into these pieces first, and no token crosses a cut.
# In order: endings like 's and 'll, then (each with the space before it) a run of
# letters, of digits, of anything else; then blanks.
GPT2_PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
find_pieces = regex.compile(GPT2_PATTERN).findall
OUT = HERE / "artifacts" / "01_bpe"
FORMAT = "01_bpe/1"  # changes when the files below change their form

# ========================================================================= 4. WORDS
# token   a sequence of bytes that has a number, its id: " time" is one token, 5 bytes
# V       VOCAB_SIZE: ids run from 0 to V-1; 4 special tokens, 256 bytes, V-260 merges
# piece   what GPT2_PATTERN cuts off: "Once", " upon", "'s", "..."
# pair    two neighbouring ids in a piece: what a merge turns into one new id
# rank    the place of a merge in the order of learning; lower ranks merge first

# ====================================================================== 5. THE IDEA
# Byte pair encoding (Gage 1994; for language models Sennrich et al., arXiv 1508.07909):
# start with single bytes; count which two tokens most often stand side by side; give
# that pair a number of its own; write that number wherever the pair stands; repeat.
# This is the whole algorithm. The fast trainer below gives the same, dozens of times
# faster, by not counting again what has not changed.


def merge(ids, pair, new_id):
    """Replace every `pair` in `ids`, left to right, by `new_id`.

    >>> merge([7, 8, 9, 7, 8], pair=(7, 8), new_id=300)
    [300, 9, 300]
    """
    merged, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def train_naive(words, merges_wanted, first_new_id):
    """The idea, word for word: words is {tuple of ids: how often}; returns the merges.

    "aaabdaaabac" is the classic example; a, b, c, d are 0, 1, 2, 3 here:
    >>> train_naive({(0, 0, 0, 1, 3, 0, 0, 0, 1, 0, 2): 1}, 3, first_new_id=4)
    [(0, 0), (0, 1), (4, 5)]
    """
    merges = []
    while len(merges) < merges_wanted:
        pair_counts = Counter()
        for ids, count in words.items():
            for pair in zip(ids, ids[1:]):
                pair_counts[pair] += count
        if not pair_counts:
            break
        # The most frequent pair; among equals the one with the smaller ids.
        best = min(pair_counts, key=lambda pair: (-pair_counts[pair], pair))
        new_id = first_new_id + len(merges)
        words = {tuple(merge(ids, best, new_id)): n for ids, n in words.items()}
        merges.append(best)
    return merges


# ======================================================================== 6. PIECES
# ---- bytes: 256 tokens, from which every text in every language can be built. Nothing
# is ever "unknown"; <UNK> is there only because other tools expect one.


def byte_alphabet():
    """GPT-2's names for the 256 bytes, in the order of its ids: {byte: character}.

    JSON cannot hold raw bytes, so GPT-2 (Radford et al. 2019) gave each byte a visible
    character: printable ones stand for themselves, the other 68 take the characters
    from U+0100 on. A space is 'Ġ', a line end 'Ċ'.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    names = {b: chr(b) for b in printable}
    return names | {b: chr(256 + n) for n, b in enumerate(others)}


class Tokenizer:
    """Text to ids and back; the one class that all later stages share.

    token_bytes: list of bytes, one per id (specials: their name).
    merges: list of (left id, right id), in the order in which they were learned.
    """

    def __init__(self, token_bytes, merges):
        self.token_bytes = token_bytes
        self.merges = merges
        self.id_of = {token: i for i, token in enumerate(token_bytes[4:], start=4)}
        self.rank = {pair: rank for rank, pair in enumerate(merges)}
        joined = [token_bytes[a] + token_bytes[b] for a, b in merges]
        self.merged_id = {pair: self.id_of[both] for pair, both in zip(merges, joined)}
        self.byte_id = [self.id_of[bytes([b])] for b in range(256)]
        self.pad, self.unk, self.bos, self.eos = range(4)
        self.special = regex.compile(f"({'|'.join(SPECIAL_TOKENS)})")
        self.cache = {}

    def __len__(self):
        return len(self.token_bytes)

    def encode_piece(self, piece):
        """One piece of GPT2_PATTERN -> list of ids: replay the merges in order."""
        ids = [self.byte_id[b] for b in piece.encode("utf-8")]
        while len(ids) > 1:
            # SUBTLE: not the longest token first, but the merge learned earliest first.
            pairs = zip(ids, ids[1:])
            best = min(pairs, key=lambda p: self.rank.get(p, len(self.rank)))
            if best not in self.rank:
                break
            ids = merge(ids, best, self.merged_id[best])
        return ids

    def encode(self, text, allow_special=False):
        """str -> list of ids. "<EOS>" in a text is five plain characters, so that no
        text can end a story by naming the token; allow_special=True makes it id 3.
        """
        ids = []
        if allow_special:
            for part in self.special.split(text):  # special ones are parts, too
                special = part in SPECIAL_TOKENS
                ids += [SPECIAL_TOKENS.index(part)] if special else self.encode(part)
            return ids
        for piece in find_pieces(text):
            if piece not in self.cache:
                if len(self.cache) > 100_000:  # memory has an end, the language has not
                    self.cache.clear()
                self.cache[piece] = self.encode_piece(piece)
            ids += self.cache[piece]
        return ids

    def decode_bytes(self, ids):
        """list of ids -> bytes; special tokens are left out."""
        return b"".join(self.token_bytes[i] for i in ids if i >= len(SPECIAL_TOKENS))

    def decode(self, ids):
        """list of ids -> str. Half a character (ids can do that) shows as U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def to_json(self):
        """The tokenizer as the text of a Hugging Face tokenizer.json."""
        name = byte_alphabet()
        names = ["".join(name[b] for b in token) for token in self.token_bytes[4:]]
        names = SPECIAL_TOKENS + names
        merges = [[names[a], names[b]] for a, b in self.merges]
        return hugging_face_json(names, merges, SPECIAL_TOKENS)

    @classmethod
    def load(cls, path=OUT / "tokenizer.json"):
        """Read tokenizer.json; SystemExit if it is missing, garbled or wrong."""
        need(path, "01_bpe.py")

        def broken(why):
            return stop(f"{shown(path)} is damaged.", why, "python 01_bpe.py")

        try:
            model = json.loads(path.read_text(encoding="utf-8"))["model"]
            vocab = {str(token): int(i) for token, i in model["vocab"].items()}
            merges = [(str(left), str(right)) for left, right in model["merges"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise broken(f"It cannot be read as a tokenizer ({error!r}).") from None
        if sorted(vocab.values()) != list(range(len(vocab))):
            raise broken(f"Its ids are not 0 to {len(vocab) - 1}, each of them once.")
        if [vocab.get(token) for token in SPECIAL_TOKENS] != [0, 1, 2, 3]:
            raise broken(f"Ids 0-3 are not {' '.join(SPECIAL_TOKENS)}.")
        byte_of = {character: b for b, character in byte_alphabet().items()}
        for character, b in byte_of.items():
            if character not in vocab:
                raise broken(f"The token of byte {b} ({character!r}) is missing.")
        for left, right in merges:
            for token in (left, right, left + right):
                if token not in vocab:
                    raise broken(f"Merge {left} + {right}: {token!r} is no token.")
        token_bytes = [token.encode() for token in SPECIAL_TOKENS]
        for token in sorted(vocab, key=vocab.get)[4:]:
            if not set(token) <= set(byte_of):
                raise broken(f"Token {token!r} holds characters that are no bytes.")
            token_bytes.append(bytes(byte_of[character] for character in token))
        return cls(token_bytes, [(vocab[a], vocab[b]) for a, b in merges])


# ---- counting: BPE needs no text, only how often each piece occurs. GPT2_PATTERN is
# slow, so we cut the text into words first and run it once per DIFFERENT word. A word
# begins at each space or line end that something visible follows: GPT2_PATTERN always
# cuts there, too. And up to 8 bytes are one number to a processor: numpy counts such
# numbers in less time than Python takes to make a str of each word.

STORY = b"\xff"  # stands between stories; no UTF-8 text holds this byte
MASK = np.array([2 ** (8 * n) - 1 for n in range(9)], dtype="<u8")  # keeps n bytes of 8
foreign_blank = re.compile(r"[^\S\x00-\x7f]").search  # a blank of more than one byte


def count_words(stories, counts):
    """Add the words of the stories to `counts`, a Counter {bytes: how often}."""
    data = STORY + STORY.join(story.encode() for story in stories) + bytes(8)
    letters = np.frombuffer(data, np.uint8)[:-8]
    before, after = letters[:-1], letters[1:]
    starts = ((before == ord(" ")) | (before == ord("\n"))) & (after > ord(" "))
    begins = np.flatnonzero(starts | (before == STORY[0]))
    lengths = np.diff(begins, append=len(letters))
    short = lengths <= 8
    eight = np.ndarray(len(letters), "<u8", data, strides=(1,))  # bytes from each place
    numbers = eight[begins[short]] & MASK[lengths[short]]
    words, times = np.unique(numbers, return_counts=True)
    counts.update(dict(zip(words.view("S8").tolist(), times.tolist())))
    for begin, length in zip(begins[~short].tolist(), lengths[~short].tolist()):
        counts[data[begin : begin + length]] += 1


def count_range(task):
    """A range of a text (texts.tasks) -> Counter of its words; runs in a worker."""
    counts = Counter()
    for stories in texts.batches(*task):
        plain = []
        for story in stories:
            if "\0" in story or not story.isascii() and foreign_blank(story):
                counts.update(piece.encode() for piece in find_pieces(story))
            else:
                plain.append(story)
        count_words(plain, counts)
    return counts


def count_text(tasks, workers):
    """Count the pieces of all tasks (texts.tasks) -> Counter {piece: how often}."""
    word_counts, piece_counts = Counter(), Counter()
    for counts in texts.in_workers(count_range, tasks, workers, "counting"):
        word_counts.update(counts)
    for word, count in word_counts.items():
        for piece in find_pieces(word.lstrip(STORY).decode()):
            piece_counts[piece] += count
    return piece_counts


# ---- merging: as train_naive, but after a merge only the words that hold the pair are
# touched (`where` knows them), and a heap knows the most frequent pair. A word is a str
# of one character per id, chr(id): then merge() is str.replace, which runs in C.


def train(piece_counts, vocab_size, min_frequency):
    """Learn the merges: {piece: how often} -> (Tokenizer, [count of each merge]).

    Gives exactly what Hugging Face's trainer gives: same ids, same order, same ties
    (the textbook leaves ties open). Ends early if no pair occurs min_frequency times.
    """
    token_bytes = [token.encode() for token in SPECIAL_TOKENS]
    token_bytes += [bytes([b]) for b in byte_alphabet()]
    letter = {b: chr(i) for i, b in enumerate(byte_alphabet(), start=4)}
    words = ["".join([letter[b] for b in piece.encode()]) for piece in piece_counts]
    counts = list(piece_counts.values())

    pair_counts = defaultdict(int)  # {pair, a str of two: how often}
    where = defaultdict(list)  # {pair: numbers of the words that have held it}
    for i, (word, count) in enumerate(zip(words, counts)):
        for pair in map(add, word, word[1:]):
            pair_counts[pair] += count
            where[pair].append(i)
    heap = [(-count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(heap)  # the smallest first: highest count, then the smaller ids

    merges, merge_counts = [], []
    while heap and len(token_bytes) < vocab_size:
        negative_count, pair = heapq.heappop(heap)
        count = pair_counts[pair]
        if -negative_count != count:  # SUBTLE: an entry from before a count fell:
            if count > 0:  # put back what is true now, and take the next
                heapq.heappush(heap, (-count, pair))
            continue
        if count < min_frequency:
            break
        (left, right), new = pair, chr(len(token_bytes))
        token_bytes.append(token_bytes[ord(left)] + token_bytes[ord(right)])
        merges.append((ord(left), ord(right)))
        merge_counts.append(count)
        risen = set()
        for i in where.pop(pair):
            if pair not in words[i]:  # another merge was here since
                continue
            words[i] = word = words[i].replace(pair, new)
            for a, b in zip(word, word[1:]):
                if a == new or b == new:  # here the neighbours are others than before
                    old = (right if a == new else a) + (left if b == new else b)
                    pair_counts[old] -= counts[i]
                    pair_counts[a + b] += counts[i]
                    where[a + b].append(i)
                    risen.add(a + b)
        for pair_risen in risen:
            heapq.heappush(heap, (-pair_counts[pair_risen], pair_risen))
        del pair_counts[pair]  # nothing is left of it
    return Tokenizer(token_bytes, merges), merge_counts


# ---- showing
def show(token):
    """A token's bytes as people read them: blanks visible, broken characters as hex.

    >>> show(b" time"), show(b"\\n"), show(b"\\xc3")
    ('_time', '\\\\n', '<c3>')
    """
    try:
        text = token.decode("utf-8").replace(" ", "_")
        return text if text.isprintable() else text.encode("unicode_escape").decode()
    except UnicodeDecodeError:
        return "".join(f"<{b:02x}>" for b in token)


def film(tokenizer, merge_counts, phrase):
    """Yield the frames of a film: each merge that touches `phrase`, and its new cut."""
    pieces = find_pieces(phrase)
    pieces = [[tokenizer.byte_id[b] for b in piece.encode()] for piece in pieces]
    news = [("single bytes", pieces)]
    for number, pair in enumerate(tokenizer.merges, start=1):
        merged = [merge(ids, pair, tokenizer.merged_id[pair]) for ids in pieces]
        if merged != pieces:
            left, right = (show(tokenizer.token_bytes[i]) for i in pair)
            seen = f"seen {merge_counts[number - 1]:,} x"
            news.append((f"merge {number:,}: {left} + {right}, {seen}", merged))
        pieces = merged
    for what, pieces in news:
        cut = "|".join(show(tokenizer.token_bytes[i]) for ids in pieces for i in ids)
        yield f"  {what:36} {cut}"


def vocab_lines(tokenizer):
    """Yield the lines of vocab.txt: id, token, and the two tokens it is made of."""
    parts = {tokenizer.merged_id[pair]: pair for pair in tokenizer.merges}
    for i, token in enumerate(tokenizer.token_bytes):
        made_of = [show(tokenizer.token_bytes[part]) for part in parts.get(i, [])]
        yield f"{i:6} {show(token)}" + (" = " if made_of else "") + " + ".join(made_of)


def page_data(tokenizer, merge_counts, piece_counts, stories):
    """What lessons/pages/tokens.html shows: tokens, how often they occur, stories."""
    token_counts = [0] * len(tokenizer)
    for piece, count in piece_counts.items():
        for i in tokenizer.encode_piece(piece):
            token_counts[i] += count
    return {
        "tokens": [token.hex() for token in tokenizer.token_bytes],
        "merges": tokenizer.merges,
        "merge_counts": merge_counts,
        "token_counts": token_counts,
        "stories": [[story, tokenizer.encode(story)] for story in stories],
    }


# ======================================================================== 7. CHECKS
# What can stop a run stops it with three lines: what, why, what to do. The text is
# checked while it is read (lessons/texts.py), a tokenizer.json in Tokenizer.load.


def check_constants():
    """Raise SystemExit, naming the constant and its range, unless all can be used."""
    in_range("01_bpe.py", "VOCAB_SIZE", VOCAB_SIZE, int, 260, 65_536)  # ids are uint16
    in_range("01_bpe.py", "MIN_FREQUENCY", MIN_FREQUENCY, int, 1, 10**9)
    if WORKERS != "auto":
        in_range("01_bpe.py", "WORKERS", WORKERS, int, 1, 256)


# ========================================================================== 8. MAIN
def main():
    started = time.perf_counter()
    check_constants()
    sources = texts.sources(TEXT)
    path = sources["train"]
    tasks = texts.tasks(path)
    print(f"[read] {shown(path)}: {path.stat().st_size:,} bytes")
    stories = [story[:2000] for story in texts.first_stories(tasks, 8)]
    wanted = VOCAB_SIZE - 260
    print(f"[plan] {VOCAB_SIZE:,} tokens = 4 special + 256 bytes + {wanted:,} merges")
    workers = texts.processes(WORKERS, tasks)

    piece_counts = count_text(tasks, workers)
    total = sum(piece_counts.values())
    print(f"[start] {total:,} pieces, {len(piece_counts):,} different; the top five:")
    for piece, count in piece_counts.most_common(5):
        print(f"  {show(piece.encode()):6} {count:11,}")
    tokenizer, merge_counts = train(piece_counts, VOCAB_SIZE, MIN_FREQUENCY)
    if len(tokenizer) < VOCAB_SIZE:
        print(f"[note] the text gives {len(tokenizer):,} tokens only: no pair", end=" ")
        print(f"is left that occurs {MIN_FREQUENCY:,} times. A larger text gives more.")
    opening = stories[0][:38]
    print(f"\nHow the merges put {opening!r} together:")
    for frame in film(tokenizer, merge_counts, opening):
        print(frame)
    print("\nThe first story, cut into its tokens:")
    ids = tokenizer.encode(stories[0])
    cut = "|".join(show(tokenizer.token_bytes[i]) for i in ids)
    print(textwrap.indent(textwrap.fill(cut, 86), "  "))
    size = len(stories[0].encode())
    print(f"  {size:,} bytes became {len(ids):,} tokens: {size / len(ids):.2f} each\n")

    check = tokenizer.decode(ids) == stories[0]
    print(f"[check] decoding gives the story back, letter by letter: {check}")
    assert check, "encode and decode must be inverse; did an edit break one of them?"
    save(tokenizer, sources, page_data(tokenizer, merge_counts, piece_counts, stories))
    print(f"[wrote] {shown(OUT)}/: tokenizer.json vocab.txt", end=" ")
    print(f"meta.json tokens.html in {time.perf_counter() - started:.1f} s")
    print("Next: python 02_prepare.py")


def save(tokenizer, sources, data):
    """Write the artifacts: all of them, or (if the disk is full) none."""
    text = tokenizer.to_json()
    constants = {"TEXT": TEXT, "VOCAB_SIZE": VOCAB_SIZE, "MIN_FREQUENCY": MIN_FREQUENCY}
    meta = {"format": FORMAT, "constants": constants}
    meta["tokenizer"] = hashlib.sha256(text.encode()).hexdigest()
    meta["text"] = {
        part: {"path": os.path.relpath(path, HERE), "sha256": sha256_of(path)}
        for part, path in sources.items()
    }
    files = {"tokenizer.json": text, "meta.json": json.dumps(meta, indent=1)}
    files["vocab.txt"] = "\n".join(vocab_lines(tokenizer)) + "\n"
    files["tokens.html"] = filled_page("tokens.html", data)
    write_all({OUT / name: content for name, content in files.items()})


# ========================================================================= 9. GUARD
# Workers import this file afresh; without the guard each would start the run again.
if __name__ == "__main__":
    run_stage(main, "01_bpe.py")
