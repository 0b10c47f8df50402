# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy", "regex", "tqdm"]
# ///
"""Stage 2 of 6: clean the stories and write them down as one long row of token ids.

    text --> 01_bpe --> [02_prepare] --> 03_model --> 04_train --> 05_eval --> 06_sample
                         you are here

READS   artifacts/01_bpe/ (tokenizer.json, meta.json) and the text that meta.json names,
        or the text named by TEXT below
WRITES  artifacts/02_prepare/train.bin   ids to learn from, two bytes each, no header
        artifacts/02_prepare/valid.bin   ids of stories that training never sees
        artifacts/02_prepare/meta.json   counts, sizes and fingerprints of both
RUN     python 02_prepare.py
TAKES   about 2 seconds for the practice stories (2 cores of an AMD EPYC (Zen 3),
        2026-11-23)
LESSON  lessons/03_dataset.md
"""

# ======================================================================= 2. IMPORTS
import contextlib
import functools
import hashlib
import importlib
import json
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE / "lessons"))
import texts  # lessons/texts.py: opens and reads the text
from plumbing import in_range, need, read_json, run_stage
from plumbing import sha256_of, shown, stop, write_whole

# `import 01_bpe` is a syntax error, because a name cannot begin with a digit; this says
# the same. We take the class Tokenizer from there: one copy, so that an edit of stage 1
# is an edit everywhere.
bpe = importlib.import_module("01_bpe")

# ===================================================================== 3. CONSTANTS
# -- what to read
TEXT = None  # None: the text of stage 1; or another, as in 01, cut by stage 1's
#              tokenizer: a trained model can go on with it (START_FROM in 04)
# -- what to keep back
VALID_SHARE = 0.05  # share of the stories to test with, 0.001 to 0.5; only used when
#                     the text has no validation part of its own
# -- how to run
WORKERS = "auto"  # processes that encode; "auto": one per CPU core if it pays

IN = HERE / "artifacts" / "01_bpe"
OUT = HERE / "artifacts" / "02_prepare"
FORMAT = "02_prepare/2"  # changes when the files below change their form
SMALLEST = 20  # stories
REMEMBERED = 150_000  # words whose ids a worker keeps; about 30 MB

# ========================================================================= 4. WORDS
# story    what stands between two separators: becomes <BOS> its tokens <EOS>
# uint16   a whole number of two bytes, 0 to 65,535: enough for every id, and a quarter
#          of the eight bytes that numpy and torch take if nobody says otherwise
# memmap   a file used as if it were an array: reading ids 5,000 to 5,256 touches a
#          page or two of the disk, so the file may be larger than memory
# word     what stands between two spaces: "said,"; one or more pieces of stage 1

# ====================================================================== 5. THE IDEA
# The model wants numbers, and it wants to start reading anywhere, at once. So the whole
# text becomes one flat row of ids; a story begins with <BOS> and ends with <EOS>, and
# what the model learns from that is to begin and, above all, to stop.


def frame(stories, encode):
    """Stories -> one flat list of ids, each story between <BOS> (2) and <EOS> (3).

    >>> frame(["ab", "c"], encode=lambda story: [ord(letter) for letter in story])
    [2, 97, 98, 3, 2, 99, 3]
    """
    return [i for story in stories for i in [2, *encode(story), 3]]


# ======================================================================== 6. PIECES
# ---- cleaning: a model learns dirt as eagerly as language. What we cannot mend we
# drop, and we count everything: silent cleaning is how data sets go wrong.

# UTF-8 read as Windows-1252 by somebody, some day: "it’s" has become "itâ€™s". Only
# Western letters, quotes, dashes and emoji are looked for: the German "Spaß“" could be
# such an accident too, and mending it would do the damage.
HIGH = "\u00a0-\u00bfŒœŠšŸŽžƒˆ˜–—‚„†‡•…‰‹›€™"  # how bytes from 128 to 191 look then
ANY = HIGH + "\u0080-\u009f‘’“”"
MOJIBAKE = re.compile(f"[ÂÃ][{HIGH}]|â[€‚„†][{ANY}]|ðŸ[{ANY}]{{2}}|ï»¿")
# Characters that nobody sees and no story needs; tab and line end are not among them.
STRAY = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2060\ufeff\ufffd]")
ENDINGS = tuple(".!?…\"'”’»)*:;~")  # how a finished story can end


def mend_mojibake(found):
    """A match of MOJIBAKE -> what it was before, if its bytes are UTF-8 after all."""
    try:
        # cp1252 leaves five bytes without a character; they pass as they are (latin-1).
        raw = b"".join(
            c.encode("latin-1" if ord(c) < 256 else "cp1252") for c in found.group()
        )
        return raw.decode("utf-8")
    except UnicodeError:
        return found.group()


def clean(story, notes, drop_broken):
    """One story -> the story as it should be, or None; counts what it did in `notes`.

    >>> clean("It\\u00e2\\u20ac\\u2122s late,\\x07 Tom.", {}, True)
    'It’s late, Tom.'
    >>> print(clean("and then the dog", {}, True))
    None
    """

    def note(what):
        notes[what] = notes.get(what, 0) + 1

    if not story.isascii():
        before, story = story, MOJIBAKE.sub(mend_mojibake, story)
        if story != before:
            note("mojibake mended")
        before, story = story, re.sub("[\u2028\u2029]", "\n", story)
        if story != before:
            note("line separators replaced")
    if STRAY.search(story):
        note("stray control characters removed")
        story = STRAY.sub("", story)
    story = story.strip()
    if not story:
        note("empty, dropped")
        return None
    # A finished story ends with a full stop or the like, and none begins in the middle
    # of a sentence: the first and last of TinyStories' files do both.
    if drop_broken and (not story.endswith(ENDINGS) or story[0].islower()):
        note("broken off, dropped")
        return None
    return story


def looks_finished(stories):
    """Do nine stories in ten begin and end as clean() wants it? (Poems and lists do
    not, and must not be dropped for it.)"""
    whole = sum(clean(story, {}, True) is not None for story in stories)
    return whole >= 0.9 * len(stories)


# ---- encoding: TinyStories has 440 million words, but few different ones. Each word is
# encoded once; after that, encoding is looking up.


class TwoBlanks(Exception):
    """GPT2_PATTERN cuts at every space, unless it is one of several blanks in a row."""


class Encoder(dict):
    """A dictionary {word: ids of " " + word, as uint16 bytes} that fills itself."""

    def __init__(self, tokenizer):
        super().__init__()
        self.tokenizer = tokenizer
        self.words = set()  # the different words seen, in lower case, without commas
        self.first_ids = functools.lru_cache(10_000)(self.ids)  # of no space before it

    def ids(self, text):
        """str -> its ids as bytes, not remembered."""
        self.words.update(re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", text.lower()))
        return np.array(self.tokenizer.encode(text), dtype="<u2").tobytes()

    def __missing__(self, word):
        if not word or word[0].isspace():
            raise TwoBlanks
        if len(self) > REMEMBERED:
            self.clear()
        self[word] = self.ids(" " + word)
        return self[word]

    def encode(self, story):
        """str -> its ids as bytes, looked up word by word."""
        first, *spaced = story.split(" ")
        try:
            return self.first_ids(first) + b"".join(map(self.__getitem__, spaced))
        except TwoBlanks:
            return self.ids(story)


encoder = None  # of this process: made once, kept for all its tasks


def encode_range(task):
    """(range of a text, tokenizer file, drop_broken, part file) -> numbers about it.

    Runs in a worker. Writes the ids of the range's stories to the part file and returns
    for each story its number of ids, bytes and words and its 8-byte fingerprint.
    """
    global encoder
    text_range, tokenizer_path, drop_broken, part = task
    if encoder is None:
        encoder = Encoder(bpe.Tokenizer.load(tokenizer_path))
    bos, eos = (np.array([i], dtype="<u2").tobytes() for i in (2, 3))
    rows, prints, notes = [], [], {}
    with open(part, "wb") as file:
        for story in texts.read_stories(*text_range):
            story = clean(story, notes, drop_broken)
            if story is None:
                continue
            ids = bos + encoder.encode(story) + eos
            file.write(ids)
            utf8 = story.encode()
            rows.append((len(ids) // 2, len(utf8), len(story.split())))
            prints.append(hashlib.blake2b(utf8, digest_size=8).digest())
    words, encoder.words = encoder.words, set()
    return {
        "rows": np.array(rows, dtype=np.int32).reshape(-1, 3),
        "prints": np.frombuffer(b"".join(prints), dtype="<u8"),
        "words": words,
        "notes": notes,
    }


# ---- splitting: what the model is tested with it must never have learnt from. So a
# story that occurs twice must not end up on both sides.


def choose(prints, from_valid_file, valid_share):
    """Fingerprints of all stories (N,) -> two masks (N,): for training, for validation.

    Of equal stories the first stays. The validation stories are those with the smallest
    fingerprints: as good as chance, and the same in every run and on every machine.

    >>> prints = np.array([50, 10, 40, 10, 20, 30])  # the second and the fourth: equal
    >>> train, valid = choose(prints, np.zeros(6, dtype=bool), valid_share=0.4)
    >>> prints[train].tolist(), prints[valid].tolist()
    ([50, 40, 30], [10, 20])
    """
    keep = np.zeros(len(prints), dtype=bool)
    keep[np.unique(prints, return_index=True)[1]] = True
    valid = from_valid_file
    if not valid.any():
        count = max(1, round(valid_share * keep.sum()))
        valid = prints <= np.sort(prints[keep])[count - 1]
    return keep & ~valid, keep & valid


def join(parts, lengths, masks, names):
    """Copy the chosen stories of the part files, in order, into one file per mask."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(name, "wb")) for name in names]
        begin = 0
        for part, lengths_here in zip(parts, lengths):
            ids = np.fromfile(part, dtype="<u2")
            end = begin + len(lengths_here)
            for file, mask in zip(files, masks):
                # True or False for each story -> for each id
                file.write(ids[np.repeat(mask[begin:end], lengths_here)].tobytes())
            begin = end
            part.unlink()
        for file in files:
            file.flush()
            os.fsync(file.fileno())


# ---- showing


def histogram(lengths, bars=10):
    """Yield lines that draw how many stories have how many tokens."""
    top = int(np.percentile(lengths, 99)) + 1
    step = max(1, -(-top // bars // 10) * 10)  # rounded up to tens
    counts, _ = np.histogram(lengths, bins=[*range(0, step * bars + 1, step), 10**9])
    for i, count in enumerate(counts):
        label = f"{i * step}-{i * step + step - 1}" if i < bars else f"{bars * step}+"
        yield f"  {label:>9} tokens {count:9,} {'#' * round(50 * count / counts.max())}"


# ======================================================================== 7. CHECKS


def check_inputs():
    """-> (tokenizer, stage 1's meta). Raises SystemExit if something does not fit."""
    in_range("02_prepare.py", "VALID_SHARE", VALID_SHARE, float, 0.001, 0.5)
    if WORKERS != "auto":
        in_range("02_prepare.py", "WORKERS", WORKERS, int, 1, 256)
    tokenizer = bpe.Tokenizer.load(IN / "tokenizer.json")
    meta = read_json(IN / "meta.json", "01_bpe.py", bpe.FORMAT)
    again = "python 01_bpe.py"
    if meta.get("tokenizer") != sha256_of(IN / "tokenizer.json"):
        why = "It was changed after stage 1 wrote it, or is from another run."
        raise stop("tokenizer.json and meta.json do not belong together.", why, again)
    if TEXT is not None:
        found = texts.sources(TEXT, "02_prepare.py")
        meta["text"] = {name: {"path": path} for name, path in found.items()}
        return tokenizer, meta
    for text in meta["text"].values():
        path = HERE / text["path"]
        need(path, "01_bpe.py")
        if sha256_of(path) != text["sha256"]:
            why = "The tokenizer was made from its old contents."
            raise stop(f"{shown(path)} has changed since stage 1 ran.", why, again)
    return tokenizer, meta


def check_split(train, valid):
    """Raise SystemExit if there are too few stories (different ones) for the model."""
    if train + valid < SMALLEST or train == 0 or valid == 0:
        what = f"There are {train} stories to learn from and {valid} to test with."
        why = f"{SMALLEST} different ones are the least, and some must be for testing."
        how = "Put a line <|endoftext|> between stories, then: python 01_bpe.py"
        raise stop(what, why, how)


# ========================================================================== 8. MAIN
def main():
    started = time.perf_counter()
    tokenizer, meta = check_inputs()
    tokenizer_path = IN / "tokenizer.json"
    print(f"[read] {shown(tokenizer_path)}: {len(tokenizer):,} tokens")
    tasks, from_valid = [], []
    for name, text in meta["text"].items():
        path = HERE / text["path"]
        print(f"[read] {name}: {shown(path)}, {path.stat().st_size:,} bytes")
        ranges = texts.tasks(path)
        drop_broken = looks_finished(texts.first_stories(ranges, 1000))
        if not drop_broken:
            print("[plan] its stories often end without a full stop: all are kept")
        for text_range in ranges:
            part = OUT / f"{len(tasks):05}.part"
            tasks.append((text_range, tokenizer_path, drop_broken, part))
            from_valid.append(name == "valid")
    workers = texts.processes(WORKERS, tasks)

    OUT.mkdir(parents=True, exist_ok=True)
    new = [OUT / f"{name}.part" for name in ("train.bin", "valid.bin", "meta.json")]
    try:
        results = list(texts.in_workers(encode_range, tasks, workers, "encoding"))
        rows = np.concatenate([result["rows"] for result in results])
        prints = np.concatenate([result["prints"] for result in results])
        source = np.repeat(from_valid, [len(result["rows"]) for result in results])
        masks = choose(prints, source, VALID_SHARE)
        check_split(*(int(mask.sum()) for mask in masks))
        parts = [part for *_, part in tasks]
        join(parts, [result["rows"][:, 0] for result in results], masks, new[:2])
        text = meta["constants"]["TEXT"] if TEXT is None else TEXT
        constants = {"TEXT": text, "VALID_SHARE": VALID_SHARE}
        tell = {"format": FORMAT, "constants": constants}
        tell |= {"vocab_size": len(tokenizer), "tokenizer": meta["tokenizer"]}
        for name, mask, path in zip(["train", "valid"], masks, new):
            tokens, size, words = rows[mask].sum(axis=0, dtype=np.int64).tolist()
            tell[name] = {"stories": int(mask.sum()), "tokens": tokens, "bytes": size}
            tell[name] |= {"words": words, "sha256": sha256_of(path)}
        write_whole(new[2], json.dumps(tell, indent=1).encode())
        for path in new:  # all three are whole: now, and together, they take effect
            os.replace(path, path.with_suffix(""))
    finally:
        for path in OUT.glob("*.part"):
            path.unlink()
    report(results, rows[masks[0], 0], len(rows), tell)
    look_back(tokenizer)
    seconds = time.perf_counter() - started
    print(f"[wrote] {shown(OUT)}/: train.bin valid.bin meta.json in {seconds:.1f} s")
    print("Next: python 03_model.py")


def report(results, lengths, stories_before, tell):
    """Print what was cleaned and what is left."""
    notes = Counter()
    for result in results:
        notes.update(result["notes"])
    kept = tell["train"]["stories"] + tell["valid"]["stories"]
    notes["told before, dropped"] = stories_before - kept
    for what, count in sorted(notes.items()):
        print(f"[check] stories {what}: {count:,}")
    print(f"\n{'':8}{'stories':>11}{'words':>13}{'bytes':>15}{'tokens':>13}", end="")
    print(f"{'bytes/token':>13}{'tokens/story':>14}")
    for name in ("train", "valid"):
        n = tell[name]
        # <BOS> and <EOS> stand for no bytes, so they are left out of bytes per token.
        per_token = n["bytes"] / (n["tokens"] - 2 * n["stories"])
        print(f"  {name:6}{n['stories']:11,}{n['words']:13,}{n['bytes']:15,}", end="")
        print(f"{n['tokens']:13,}{per_token:13.2f}{n['tokens'] / n['stories']:14.0f}")
    words = set().union(*(result["words"] for result in results))
    print(f"  {len(words):,} different words, without regard to capitals\n")
    print("How long are the stories of train.bin?")
    for line in histogram(lengths):
        print(line)
    print()


def look_back(tokenizer):
    """Open train.bin as stage 4 will, and read the beginning of it as text."""
    ids = np.memmap(OUT / "train.bin", dtype="<u2", mode="r")
    print(f"[check] train.bin[0:12] is {ids[:12].tolist()}")
    cut = "|".join(bpe.show(tokenizer.token_bytes[i]) for i in ids[:12])
    print(f"[check] which reads      {cut}")
    # What was read of a memmap stays in memory for a while; blocks of it do not.
    step, path = 2**23, OUT / "train.bin"
    starts = range(0, len(ids), step)
    blocks = (np.fromfile(path, "<u2", step, offset=2 * start) for start in starts)
    largest = max(int(block.max()) for block in blocks)
    assert largest < len(tokenizer), "an id beyond the vocabulary: is the file ours?"
    print(f"[check] largest id {largest:,}, below the vocabulary's {len(tokenizer):,}")


# ========================================================================= 9. GUARD
# Workers import this file afresh; without the guard each would start the run again.
if __name__ == "__main__":
    run_stage(main, "02_prepare.py")
