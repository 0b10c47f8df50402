# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy", "regex", "tqdm"]
# ///
"""Stage 2 of 6: clean the stories and write them as one long array of token ids.

    text --> 01_bpe --> [02_prepare] --> 03_model --> 04_train --> 05_eval --> 06_sample
                         you are here

READS   artifacts/01_bpe/ (tokenizer.json, meta.json) and the text that meta.json names,
        or the text named by TEXT below
WRITES  artifacts/02_prepare/train.bin   token ids for training (two bytes each)
        artifacts/02_prepare/valid.bin   token ids of held-out stories, for validation
        artifacts/02_prepare/meta.json   counts, sizes, and sha256 of both
RUN     python 02_prepare.py
TAKES   about 2 seconds for the practice stories (2 cores of an Intel Xeon, 2026-11-26)
LESSON  lessons/03_dataset.md
"""
# =========================================================================== 1. Imports
import functools
import hashlib
import importlib
import json
import re
import shlex
import time

try:
    # `import 01_bpe` is a syntax error (a name cannot start with a digit), hence:
    bpe = importlib.import_module("01_bpe")
    import numpy as np
    import regex  # like re, and it knows Unicode's categories
except ModuleNotFoundError as error:
    cure = "keep the six scripts together; pip install torch numpy regex tqdm"
    raise SystemExit(f"{error.name} is missing: {cure}") from None

# ============================================================= 2. Constants: edit these
TEXT = None  # None: the text of stage 1. To fine-tune a trained model on another text,
#              name it here as in 01; the tokenizer stays (see START_FROM in 04)
VALID_SHARE = 0.05  # fraction of the stories held out for validation, 0.001 to 0.5;
#                     used only if the text has no validation part of its own
WORKERS = "auto"  # processes that encode; "auto": one per core, at most one per 8 MB

OUT = bpe.HERE / "artifacts" / "02_prepare"
FORMAT = "02_prepare/2"  # changes when the content of the files changes
MIN_STORIES, LONG = 20, 1000  # fewer will do, if marked and LONG tokens long on average
MAX_CACHED = 150_000  # words whose ids a process remembers: about 30 MB

# ============================================================= 3. Glossary of this file
# story        one document of the text; it becomes <BOS>, its tokens, <EOS>
# N            number of stories; a mask (N,) of True and False selects some of them
# uint16       an unsigned two-byte integer, 0 to 65,535: enough for every id
# memmap       a file used like an array: only the parts that you index are read from
#              disk, so the file may be larger than memory
# word         text between two spaces: "said,"; the tokenizer may split it further
# fingerprint  a 64-bit hash of a story; equal stories have equal fingerprints

# ================================================ 4. The idea: one flat array of tokens
# Training reads sequences from all over the text, so we store all stories in one
# flat array of ids. Each story begins with <BOS> and ends with <EOS>. From these the
# model learns how stories begin and, above all, when to stop.

def frame(stories, encode):  # strings -> list of ids
    """Put each encoded story between <BOS> (2) and <EOS> (3), all in one list.

    >>> frame(["ab", "c"], encode=lambda story: [ord(letter) for letter in story])
    [2, 97, 98, 3, 2, 99, 3]
    """
    return [i for story in stories for i in [bpe.BOS, *encode(story), bpe.EOS]]

# ================================================================= 5. Clean the stories
# A model also learns the errors in its training text. We fix what we can, remove the
# rest, and print how often we did either: unreported cleaning can hide lost data.

# Mojibake is UTF-8 text that was decoded as Windows-1252: "it’s" became "itâ€™s". We
# fix only Western letters, quotes, dashes, and emoji. A broader pattern would match and
# damage correct text, such as the German "Spaß“".
HIGH = "\u00a0-\u00bfŒœŠšŸŽžƒˆ˜–—‚„†‡•…‰‹›€™"  # cp1252's bytes 128 to 191, but no ‘’“”
ANY = HIGH + "\u0080-\u009f‘’“”"
MOJIBAKE = re.compile(f"[ÂÃ][{HIGH}]|â[€‚„†][{ANY}]|ðŸ[{ANY}]{{2}}|ï»¿")
# Control and zero-width characters, and U+FFFD (a lost character). Tab and \n stay.
STRAY = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2060\ufeff\ufffd]")
# A heuristic for how a complete story ends. After a letter (L), digit (N), dash (Pd),
# opening bracket (Ps), or comma, more must follow. Other punctuation, symbols, and
# emoji are fine, and so are Thai and Lao letters: these languages have no period.
# Accents, variation selectors, joiners (Mn, Mc, Cf), footnote marks (No) may follow.
ENDING = regex.compile(
    r"([^\s\p{L}\p{N}\p{Pd}\p{Ps}\p{Mn}\p{Mc}\p{Cf},،、，﹐､՝፣]|[\p{Thai}\p{Lao}])"
    r"[\p{Mn}\p{Mc}\p{Cf}\p{No}]*\Z"
)
THE_END = {"the end", "ende", "das ende", "fin", "fine", "fim", "einde", "koniec"}
THE_END |= {"конец", "τέλος".casefold(), "النهاية", "הסוף", "끝", "終わり", "おわり", "完"}

def fix_mojibake(match):  # a match of MOJIBAKE -> str
    """The original characters, if the match encodes to valid UTF-8; else unchanged."""
    try:  # cp1252 leaves five bytes without a character; latin-1 has all 256
        codes = [(c, "latin-1" if ord(c) < 256 else "cp1252") for c in match.group()]
        return b"".join(c.encode(code) for c, code in codes).decode("utf-8")
    except UnicodeError:
        return match.group()

FIXES = [  # SUBTLE: in this order, because mojibake contains stray control characters
    ("mojibake fixed", MOJIBAKE, fix_mojibake),
    ("line separators replaced", re.compile("[\u2028\u2029]"), "\n"),
    ("stray control characters removed", STRAY, ""),
]

def is_whole(story):  # str -> bool
    """Does the story end where a sentence can end?

    >>> [is_whole(end) for end in ("So he", "So,", "Then.", "“Ja.“", "好。", "Bye 👋🏽")]
    [False, False, True, True, True, True]
    """
    last_line = story.rsplit("\n", 1)[-1].strip(" —–-").casefold()
    return bool(ENDING.search(story[-20:])) or last_line in THE_END

def clean(story, notes, drop_broken):  # str -> str or None
    """Return the repaired story, or None to drop it. Record what was done in `notes`,
    {what: [count, example]}; only dropped stories get an example.

    >>> notes = {}
    >>> clean("It\\u00e2\\u20ac\\u2122s late,\\x07 Tom.", notes, True)
    'It’s late, Tom.'
    >>> clean("And then the dog", notes, True)
    >>> notes["broken off, dropped"]
    [1, "'And then the dog'"]
    """
    before = story  # if it is plain ASCII, only the last of the three fixes can apply
    for what, pattern, replacement in FIXES[2:] if story.isascii() else FIXES:
        fixed = pattern.sub(replacement, story)
        if fixed != story:
            notes.setdefault(what, [0, ""])[0] += 1
        story = fixed
    story = re.sub(r"\A\s*\n", "", story).rstrip()  # keeps the indentation of code
    if not story:
        what = "empty, dropped"
    # TinyStories contains stories that break off in the middle of a sentence.
    elif drop_broken and not is_whole(story):
        what = "broken off, dropped"
    else:
        return story
    example = repr(before if len(before) <= 60 else f"{before[:28]} ... {before[-28:]}")
    notes.setdefault(what, [0, example])[0] += 1
    return None

# ================================================================ 6. Encode the stories
# TinyStories has 440 million words, but few different ones. Each word is encoded once,
# together with the space before it; after that, encoding is a lookup in a dictionary.

def to_bytes(ids):  # list of ids -> bytes, two per id
    """Ids as they are written to the file: uint16, the low byte first."""
    return np.array(ids, dtype="<u2").tobytes()

class Encoder(dict):
    """A dictionary {word: ids of " " + word, as bytes} that fills itself."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.bos, self.eos = to_bytes([bpe.BOS]), to_bytes([bpe.EOS])

    def __missing__(self, word):  # Python calls this when self[word] is not there
        # SUBTLE: GPT2_PATTERN cuts before each space, unless whitespace follows it.
        if not word or word[0].isspace():
            raise KeyError(word)
        ids = to_bytes(self.tokenizer.encode(" " + word))
        if len(self) >= MAX_CACHED:  # bounded, so that long texts cannot exhaust memory
            self.clear()
        if len(word) <= 100:  # longer words rarely occur twice
            self[word] = ids
        return ids

    def encode(self, story):  # str -> bytes
        """<BOS>, the story's tokens, <EOS>, as they are written to the file."""
        first, *words = story.split(" ")
        first = to_bytes(self.tokenizer.encode(first))
        try:
            return b"".join([self.bos, first, *map(self.__getitem__, words), self.eos])
        except KeyError:  # the slow way; few stories need it
            return to_bytes(frame([story], self.tokenizer.encode))

@functools.cache  # made once in each process, then used for all its tasks
def load_encoder():
    return Encoder(bpe.Tokenizer.load())

def encode_range(task):
    """Write the ids of one task of plan_tasks to a file of its own; runs in a worker.

    Returns, for the stories that clean() keeps, the numbers of tokens, bytes, and words
    (stories, 3) and the fingerprints (stories,); and clean()'s notes.
    """
    _, text_range, drop_broken, part = task
    encoder = load_encoder()
    sizes, fingerprints, notes = [], [], {}
    with open(part, "wb") as file:
        for story in bpe.read_stories(*text_range):
            story = clean(story, notes, drop_broken)
            if story is None:
                continue
            ids = encoder.encode(story)
            file.write(ids)
            utf8 = story.encode()
            sizes.append((len(ids) // 2, len(utf8), len(story.split())))
            fingerprints.append(hashlib.blake2b(utf8, digest_size=8).digest())
    sizes = np.array(sizes, dtype=np.int32).reshape(-1, 3)
    return sizes, np.frombuffer(b"".join(fingerprints), dtype="<u8"), notes

# =================================================== 7. Split into train and validation
# A model is tested on stories that it has never seen: none may be on both sides.

def choose(fingerprints, valid, valid_share):
    """Fingerprints of all stories (N,) -> two masks (N,): for training, for validation.

    Only the first of equal stories is kept. valid (N,): those in the validation file.
    If there are none, we hold out the stories with the smallest fingerprints instead:
    as good as a random choice, and the same in every run.

    >>> prints = np.array([50, 10, 40, 10, 20, 30])  # the second and fourth are equal
    >>> train, valid = choose(prints, np.zeros(6, dtype=bool), valid_share=0.4)
    >>> prints[train].tolist(), prints[valid].tolist()
    ([50, 40, 30], [10, 20])
    """
    keep = np.zeros(len(fingerprints), dtype=bool)
    keep[np.unique(fingerprints, return_index=True)[1]] = True
    if not valid.any() and keep.any():
        count = max(1, round(valid_share * keep.sum()))
        valid = fingerprints <= np.sort(fingerprints[keep])[count - 1]
    return keep & ~valid, keep & valid

def chosen_ids(parts, sizes, mask):
    """Yield the ids, as bytes, of the chosen stories of all part files, in order.

    sizes: of each part file, as encode_range returns them; mask (N,): which stories.
    """
    begin = 0
    for part, rows in zip(parts, sizes):
        here = mask[begin : begin + len(rows)]  # (stories in this part,)
        begin += len(rows)
        if here.any():  # else there is nothing to read
            ids = np.fromfile(part, dtype="<u2")  # (tokens in this part,)
            # True or False for each story -> for each token
            yield ids[np.repeat(here, rows[:, 0])].tobytes()

def describe(parts, sizes, mask):
    """What meta.json says about the file with the chosen stories."""
    sha256 = hashlib.sha256()
    for block in chosen_ids(parts, sizes, mask):
        sha256.update(block)
    rows = np.concatenate(sizes)[mask]  # (chosen stories, 3)
    tokens, size, words = rows.sum(axis=0, dtype=np.int64).tolist()
    counts = {"stories": len(rows), "tokens": tokens, "bytes": size, "words": words}
    return counts | {"sha256": sha256.hexdigest()}

# ================================================================= 8. Show the data set
def histogram(lengths, bars=10):  # (stories,) -> lines
    """Draw how many stories have how many tokens."""
    top = int(np.percentile(lengths, 99, method="lower")) + 1  # a few are much longer
    step = 10 * -(-top // (10 * bars))  # rounded up to tens
    counts = np.bincount(np.minimum(lengths // step, bars))  # (at most bars + 1,)
    labels = [f"{low:,}-{low + step - 1:,}" for low in range(0, bars * step, step)]
    for label, count in zip([*labels, f"{bars * step:,}+"], counts):
        bar = "#" * round(50 * count / counts.max())
        yield f"  {label:>{len(labels[-1])}} tokens {count:9,} {bar}"

def report(all_notes, lengths, meta):
    """Print what was cleaned and what is left. lengths: of the stories in train.bin."""
    totals = {}
    for notes in all_notes:
        for what, (count, example) in notes.items():
            totals.setdefault(what, [0, example])[0] += count
    for what, (count, example) in totals.items():
        print(f"[check] {what}: {count:,} {'story' if count == 1 else 'stories'}")
        if example:
            print(f"        for example {example}")
    print(f"\n{'':8}{'stories':>11}{'words':>13}{'bytes':>15}{'tokens':>13}", end="")
    print(f"{'bytes/token':>13}{'tokens/story':>14}")
    for name, n in (("train", meta["train"]), ("valid", meta["valid"])):
        # <BOS> and <EOS> stand for no bytes, so they do not count in bytes per token.
        per_token = n["bytes"] / (n["tokens"] - 2 * n["stories"])
        print(f"  {name:6}{n['stories']:11,}{n['words']:13,}{n['bytes']:15,}", end="")
        print(f"{n['tokens']:13,}{per_token:13.2f}{n['tokens'] / n['stories']:14,.0f}")
    print("\nHow long are the stories of train.bin?")
    print("\n".join(histogram(lengths)), end="\n\n")

def look_back(tokenizer):
    """Open train.bin as stage 4 will, and read its beginning as text."""
    ids = np.memmap(OUT / "train.bin", dtype="<u2", mode="r")  # (tokens in train.bin,)
    print(f"[check] train.bin[0:12] is {ids[:12].tolist()}")
    cut = "|".join(bpe.show(tokenizer.token_bytes[i]) for i in ids[:12])
    print(f"[check] which reads      {cut}")

# ============================================================================ 9. Checks
def check_inputs():
    """-> (tokenizer, meta of stage 1, {"train": path, ...}), if they fit together."""
    bpe.in_range("02_prepare.py", "VALID_SHARE", VALID_SHARE, float, 0.001, 0.5)
    if WORKERS != "auto":
        bpe.in_range("02_prepare.py", "WORKERS", WORKERS, int, 1, 256)
    tokenizer = bpe.Tokenizer.load(bpe.OUT / "tokenizer.json")
    path, again = bpe.OUT / "meta.json", "python 01_bpe.py"
    meta = bpe.read_json(path, "01_bpe.py", bpe.FORMAT)
    bpe.check_tokenizer(meta.get("tokenizer"), bpe.shown(path), again)
    if TEXT is not None:
        return tokenizer, meta, bpe.find_text(TEXT, "02_prepare.py")
    try:
        texts = [(name, t["path"], t["sha256"]) for name, t in meta["text"].items()]
    except (KeyError, TypeError, AttributeError):
        what = f"{bpe.shown(path)} cannot be used."
        raise bpe.stop(what, "It does not say which text it is about.", again) from None
    paths = {}
    for name, path, sha256 in texts:
        paths[name] = path = (bpe.HERE / path).resolve()
        found = bpe.sha256_of(path) if path.is_file() else None
        if found != sha256:
            what = "has changed since stage 1 ran" if found else "is missing"
            why = "Stages 1 and 2 must run on the same text."
            raise bpe.stop(f"{bpe.shown(path)} {what}.", why, again)
    return tokenizer, meta, paths

def check_encoder(tokenizer, stories):
    """Stop if Encoder and frame() (section 4) encode the first stories differently."""
    sample = [story[:2000] for story in stories]
    plain = to_bytes(frame(sample, tokenizer.encode))
    if b"".join(map(Encoder(tokenizer).encode, sample)) != plain:
        what = "Encoder.encode() does not write what frame() gives."
        how = "Undo that edit, then: python 02_prepare.py"
        raise bpe.stop(what, "An edit of one of the two has changed that.", how)
    print(f"[check] frame() and Encoder give equal bytes ({len(sample)} stories tried)")

def check_split(train, valid, sizes, text_range):
    """SystemExit, with advice, if the masks (N,) select too few stories."""
    path, separator = text_range[:2]
    lengths = np.concatenate(sizes)[train | valid, 0]  # in tokens (selected stories,)
    marked = "endoftext" in str(separator)  # by lines <|endoftext|>, not by empty lines
    long = marked and lengths.sum() >= LONG * len(lengths)
    if train.any() and valid.any() and (long or len(lengths) >= MIN_STORIES):
        return
    how = "Put a line <|endoftext|> between stories"
    if len(train) >= MIN_STORIES:
        how = "Add stories that differ from the others"
    elif not marked and path.read_bytes().count(b"\n") > 20 * len(train):
        old, new = map(shlex.quote, (str(path), path.name + ".lines.txt"))
        how = f"If each line is a story, make {new} for TEXT: sed G {old} > {new}"
    raise bpe.stop(
        f"Only {train.sum()} stories to train on and {valid.sum()} for validation.",
        f"At least {MIN_STORIES} are needed, or long ones with <|endoftext|> between.",
        f"{how}; then: python {'01_bpe.py' if TEXT is None else '02_prepare.py'}",
    )

# ============================================================================= 10. Main
def plan_tasks(paths):  # {"train": path, ...} -> tasks of encode_range
    """Divide the text into tasks of about 8 MB."""
    tasks = []
    for name, path in paths.items():
        print(f"[read] {name}: {bpe.shown(path)}, {path.stat().st_size:,} bytes")
        ranges = bpe.split_file(path)
        first = zip(range(1000), bpe.read_stories(*ranges[0]))
        whole = [is_whole(story) for _, story in first]
        drop_broken = sum(whole) >= 0.9 * len(whole)  # not so in poems, lists, code
        if not drop_broken:
            print("[plan] over 10% of its stories look unfinished, so we keep them all")
        for i, text_range in enumerate(ranges):
            tasks.append((name, text_range, drop_broken, OUT / f"{name}-{i:05}.part"))
    return tasks

def main():
    started = time.perf_counter()
    tokenizer, meta_of_01, paths = check_inputs()
    print(f"[read] {bpe.shown(bpe.OUT / 'tokenizer.json')}: {len(tokenizer):,} tokens")
    tasks = plan_tasks(paths)
    names, ranges, _, parts = zip(*tasks)
    workers = bpe.count_processes(WORKERS, tasks)
    check_encoder(tokenizer, bpe.first_stories(ranges, 20))
    text = TEXT or meta_of_01.get("constants", {}).get("TEXT")
    meta = {"format": FORMAT, "constants": {"TEXT": text, "VALID_SHARE": VALID_SHARE}}
    meta |= {"vocab_size": len(tokenizer), "tokenizer": meta_of_01["tokenizer"]}
    try:
        OUT.mkdir(parents=True, exist_ok=True)
        results = bpe.map_tasks(encode_range, tasks, workers, "encoding")
        sizes, fingerprints, all_notes = zip(*results)
        from_valid = np.repeat([n == "valid" for n in names], [len(s) for s in sizes])
        train, valid = choose(np.concatenate(fingerprints), from_valid, VALID_SHARE)
        check_split(train, valid, sizes, ranges[0])
        meta["train"] = describe(parts, sizes, train)
        meta["valid"] = describe(parts, sizes, valid)
        duplicates = {"duplicates, dropped": [int((~(train | valid)).sum()), ""]}
        bpe.write_all({
            OUT / "train.bin": lambda f: f.writelines(chosen_ids(parts, sizes, train)),
            OUT / "valid.bin": lambda f: f.writelines(chosen_ids(parts, sizes, valid)),
            OUT / "meta.json": json.dumps(meta, indent=1),
        })  # fmt: skip
    finally:
        for part in OUT.glob("*.part"):  # ours, and those of a run that was killed
            part.unlink()
    report([*all_notes, duplicates], np.concatenate(sizes)[train, 0], meta)
    look_back(tokenizer)
    took = f"{time.perf_counter() - started:.1f} s"
    print(f"[wrote] {bpe.shown(OUT)}/: train.bin valid.bin meta.json in {took}")
    print("Next: python 03_model.py")

# Worker processes import this file afresh; without this line each would start the run.
if __name__ == "__main__":
    bpe.run_stage(main, "02_prepare.py")
