# /// script
# requires-python = ">=3.10"
# dependencies = ["regex", "tqdm"]
# ///
"""Stage 1 of 6: train the tokenizer, which turns sequences of bytes into tokens.

    text --> [01_bpe] --> 02_prepare --> 03_model --> 04_train --> 05_eval --> 06_sample
              you are here

READS   the text named by TEXT below (made for you, downloaded, or your own file)
WRITES  artifacts/01_bpe/tokenizer.json   the tokenizer, in Hugging Face's format
        artifacts/01_bpe/vocab.txt        human-readable: every token and its parts
        artifacts/01_bpe/meta.json        which text it was made from
        artifacts/01_bpe/tokens.html      stories colored by token, for your browser
RUN     python 01_bpe.py
TAKES   about 3 seconds for the practice stories (2 cores of an Intel Xeon, 2026-11-26)
LESSON  lessons/02_tokenization.md
"""
# =========================================================================== 1. Imports
import errno
import functools
import hashlib
import heapq
import json
import mmap
import multiprocessing
import os
import re
import shlex
import signal
import sys
import time
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

if sys.version_info < (3, 10):
    raise SystemExit(f"Python 3.10 or newer is needed, not {sys.version.split()[0]}.")
try:
    import regex  # like the standard library's re, and it knows \p{L}, "any letter"
    from tqdm import tqdm
except ModuleNotFoundError as error:
    cure = "python -m pip install torch numpy regex tqdm"
    raise SystemExit(f"{error.name} is missing. Run: {cure}") from None

# ============================================================= 2. Constants: edit these
TEXT = "practice"  # "practice": stories made on this machine, no download;
#                    "tinystories-mini": 22.5 MB download; "tinystories": 2.2 GB more;
#                    or a path: a UTF-8 file with a line <|endoftext|> between stories,
#                    or else an empty line
VOCAB_SIZE = 2048  # tokens in all, 260 to 65,536; try 512: more tokens per story
MIN_FREQUENCY = 2  # a pair seen less often than this is never merged; try 10_000
WORKERS = "auto"  # processes that count; "auto": one per core, at most one per 8 MB

# Leave the rest as it is: later stages rely on it.
SPECIAL_TOKENS = ["<PAD>", "<UNK>", "<BOS>", "<EOS>"]
PAD, UNK, BOS, EOS = range(4)  # ids of padding, unknown (unused), begin, end of story
# GPT-2's pattern cuts text into pre-tokens. In order: contractions like 's and 'll; a
# run of letters, of digits, or of symbols, with at most one space before; whitespace.
GPT2_PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
find_pre_tokens = regex.compile(GPT2_PATTERN).findall  # str -> list of str
EMPTY_LINE = r"\n\s*\n|\r\s*\r"  # blank, or only whitespace; \r ends lines on old Macs
RANGE = 8 * 2**20  # bytes of a text that are read at a time
LONGEST = 16 * 2**20  # bytes of a story; if one seems longer, a separator is missing
HERE = Path(__file__).resolve().parent
OUT = HERE / "artifacts" / "01_bpe"
FORMAT = "01_bpe/1"  # changes when the format of the files in OUT changes

# ============================================================= 3. Glossary of this file
# token      a sequence of bytes with a number, its id: " time" is one token of 5 bytes
# V          vocabulary size; ids 0 to V-1: 4 special tokens, 256 bytes, V-260 merges
# pre-token  a chunk that GPT2_PATTERN cuts: "Once", " upon"; no token spans two of them
# pair       two neighboring ids in a pre-token: what a merge turns into one new id
# rank       position of a merge in the order of learning; lower ranks merge first
# word       the text between two spaces; one or more pre-tokens

# ============================================ 4. The idea: merge the most frequent pair
# Byte pair encoding (Gage 1994; for translation Sennrich et al., arXiv 1508.07909):
# start with single bytes. Find the pair of neighboring tokens that occurs most often,
# replace it everywhere by a new id, and repeat. That is the whole algorithm. Section 8
# does the same without recounting unchanged pairs.

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

def train_naive(sequences, merges_wanted, first_new_id):
    """The idea, line by line: {tuple of ids: how often it occurs} -> list of merges.

    "aaabdaaabac" is the classic example; a, b, c, d are 0, 1, 2, 3 here:
    >>> train_naive({(0, 0, 0, 1, 3, 0, 0, 0, 1, 0, 2): 1}, 3, first_new_id=4)
    [(0, 0), (0, 1), (4, 5)]
    """
    merges = []
    while len(merges) < merges_wanted:
        pair_counts = Counter()
        for ids, count in sequences.items():
            for pair in zip(ids, ids[1:]):
                pair_counts[pair] += count
        if not pair_counts:
            break
        # The most frequent pair; among equals the one with the smaller ids.
        best = min(pair_counts, key=lambda pair: (-pair_counts[pair], pair))
        new_id = first_new_id + len(merges)
        sequences = {tuple(merge(s, best, new_id)): n for s, n in sequences.items()}
        merges.append(best)
    return merges

# ===================================================== 5. Read the text, story by story
# A text may be larger than memory. So we cut the file into ranges of 8 MB, each ending
# where a story ends, and read one at a time. To find the ends we use a memory map
# (mmap): the file looks like bytes, but only what we touch is read.

def find_text(text, script):
    """A value of TEXT -> {"train": path} or {"train": path, "valid": path}."""
    lessons, made = HERE / "lessons", ("practice", "tinystories-mini", "tinystories")
    if text in made and lessons.is_dir():
        sys.path.append(str(lessons))
        if text != "practice":
            import tinystories  # downloads what is not in data/
            return tinystories.get(text)
        import practice_stories
        print("[read] writing the practice stories (no download) ...", flush=True)
        paths = {k: HERE / "data" / f"practice-{k}.txt" for k in ("train", "valid")}
        practice_stories.write_corpus(paths["train"], paths["valid"])
        return paths
    path = HERE / os.path.expanduser(str(text))  # an absolute path stays as it is
    if not os.path.isfile(path) or os.path.getsize(path) < 10_000:
        why = f"Name a file of 10,000 bytes or more, or what lessons/ can make: {made}."
        why = f"lessons/, which makes it, is not in {HERE}." if text in made else why
        raise stop(f"TEXT = {text!r}: {path} is missing or too small.", why,
                   f"Edit TEXT at the top of {script}, then: python {script}")
    return {"train": path}

def kind_of_items(path, head):  # head: the beginning of the file as str
    """What the items of a file seem to be; lessons/separate.py can read them."""
    begins_json = re.match(r'[\[{][\[{\s]*"([^"\\\n]|\\.)*"\s*[:,\]]', head)
    if begins_json or path.suffix in (".json", ".jsonl"):
        return "JSON record"
    header = re.match(r'("?\w[\w ]*"?[,;\t])+"?\w[\w ]*"?\n', head[:1000])  # id,text
    if path.suffix in (".csv", ".tsv") or header and not re.search(EMPTY_LINE, head):
        return "row of the table (CSV)"
    return "line"

def find_separator(path, head):  # head: the beginning of the file, as bytes
    """The regex of what separates stories. SystemExit, with advice, if nothing does."""
    if b"\0" in head:
        raise not_utf8(path, head, head.index(0))
    head = head.decode("utf-8-sig", "replace").strip() or " "
    kind = kind_of_items(path, head)
    if "<|endoftext|>" in head and (kind != "JSON record" or "\n<|endoftext|>" in head):
        return r"<\|endoftext\|>"
    if kind == "line" and (head == " " or re.search(EMPTY_LINE, head)):
        return EMPTY_LINE
    raise stop(f"{path} is one single story: nothing separates it into several.",
               f"Put an empty line, or a line <|endoftext|>, between stories. If each"
               f" {kind} is a story, this command adds them in a new file for TEXT:",
               f"python lessons/separate.py {shlex.quote(str(path))}")

def not_utf8(path, data, at, begin=0):  # -> SystemExit; the file may have another code
    code = "WINDOWS-1252" if data[:at].isascii() else "UTF-8 -c"  # -c skips bad bytes
    code = "UTF-16" if data[at] in (0x00, 0xFE, 0xFF) else code
    what = f"{path} is not UTF-8 text: byte 0x{data[at]:02x} at offset {begin + at:,}."
    old, new = map(shlex.quote, (str(path), path.name + ".utf8.txt"))
    return stop(what, "Another encoding, damage, or not text. This makes a new TEXT:",
                f"iconv -f {code} -t UTF-8 {old} > {new}")

def split_file(path):
    """Cut a file into tasks (path, separator, begin, end); each ends with a story."""
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    separator, tasks, begin = find_separator(path, data[:LONGEST]), [], 0
    while begin < len(data):
        found = re.compile(separator.encode()).search(data, begin + RANGE)
        end = found.end() if found else len(data)
        if end - begin > RANGE + LONGEST:
            raise stop(f"{path}: no end of a story from byte {begin + RANGE:,} on.",
                       "A story is read as a whole and must fit in memory.",
                       "Put a line <|endoftext|> between stories, then run this again.")
        tasks.append((path, separator, begin, end))
        begin = end
    return tasks

def read_stories(path, separator, begin, end):
    """Yield the stories in bytes begin..end as str, with "\\n" as line end."""
    with open(path, "rb") as file:
        file.seek(begin)
        data = file.read(end - begin)
    try:
        text = data.decode("utf-8").removeprefix("" if begin else "\ufeff")  # drop BOM
    except UnicodeDecodeError as error:
        raise not_utf8(path, data, error.start, begin) from None
    for story in re.split(separator, text.replace("\r\n", "\n").replace("\r", "\n")):
        # Drop empty lines before the first line, but keep its indentation.
        if story := re.sub(r"\A\s*\n", "", story.rstrip()):
            yield story

def first_stories(tasks, count):
    """The first stories of a text, at most `count`. SystemExit if there is none."""
    stories = (story for task in tasks for story in read_stories(*task))
    first = [story for _, story in zip(range(count), stories)]
    if not first:
        raise stop("The text holds nothing but whitespace.", "It has no story.",
                   "Edit TEXT at the top of 01_bpe.py, then: python 01_bpe.py")
    return first

# ============================ 6. Share the work among processes (skip on first reading)
def count_processes(workers, tasks):
    """WORKERS -> how many processes, at most one per task; prints the choice."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    count = min(cores if workers == "auto" else workers, len(tasks))
    print(f"[plan] {len(tasks)} part(s) of the text, {count} process(es) at work"
          f" (WORKERS = {workers!r}, {cores} CPU core(s))")
    return count

def map_tasks(function, tasks, workers, desc):
    """Yield function(task) for each task, in order. Errors of workers come out here."""
    bar = {"total": len(tasks), "desc": desc, "unit": " parts", "leave": False}
    if workers == 1:
        yield from tqdm(map(function, tasks), **bar)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    # Ctrl-C reaches every process. The workers start here and inherit SIG_IGN, so that
    # only this process reacts to it.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    results = pool.map(function, tasks)
    signal.signal(signal.SIGINT, handler)
    try:
        yield from tqdm(results, **bar)
    finally:
        pool.shutdown(cancel_futures=True)  # after an error, drop what has not begun

# ============================================================== 7. Count the pre-tokens
# BPE does not need the text itself, only how often each pre-token occurs. GPT2_PATTERN
# is slow, so we split at spaces, count the words, and run it once per DIFFERENT word.
# This is exact: the pattern, too, cuts before each space, unless whitespace follows.
irregular = re.compile(r" \s").search  # finds a story that needs the slow way

def count_range(task):
    """One task of split_file -> Counter of its words; runs in a worker process."""
    counts, spaced = Counter(), Counter()
    for story in read_stories(*task):
        if irregular(story):
            counts.update(find_pre_tokens(story))
        else:
            first, *others = story.split(" ")
            counts[first] += 1
            spaced.update(others)  # the space is put back once per different word
    counts.update({" " + word: count for word, count in spaced.items()})
    return counts

def count_text(tasks, workers):
    """Count the pre-tokens of all tasks -> Counter {pre-token: how often}."""
    words, counts = Counter(), Counter()
    for part in map_tasks(count_range, tasks, workers, "counting"):
        words.update(part)
    for word, count in words.items():
        for pre_token in find_pre_tokens(word):
            counts[pre_token] += count
    return counts

# ============================================ 8. Merge the most frequent pair, but fast
# Like train_naive, with three differences. After a merge we update only the pairs next
# to it (`where` knows which pre-tokens hold a pair). The most frequent pair comes from
# a heap, a list that keeps its smallest entry in front. And a pre-token is a str with
# one character per token, chr(id), so that split() and join() can merge at C speed.

def train(pre_token_counts, vocab_size, min_frequency):
    """Learn the merges: {pre-token: how often} -> (Tokenizer, [count of each merge]).
    The ids are those of Hugging Face's trainer, where ties go to the smaller ids, too.
    """
    letter = {b: chr(i) for i, b in enumerate(byte_alphabet(), start=4)}
    pre_tokens = ["".join([letter[b] for b in p.encode()]) for p in pre_token_counts]
    counts = list(pre_token_counts.values())
    pair_counts = defaultdict(int)  # {pair, a str of two: how often}
    where = defaultdict(set)  # {pair: indices of the pre-tokens that have held it}
    for i, (pre_token, count) in enumerate(zip(pre_tokens, counts)):
        for a, b in zip(pre_token, pre_token[1:]):
            pair_counts[a + b] += count
            where[a + b].add(i)
    heap = [(-count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(heap)  # the smallest first: highest count, then the smaller ids

    merges, merge_counts = [], []
    for new_id in tqdm(range(260, vocab_size), "merging", leave=False, delay=2):
        # SUBTLE: an entry may be older than its pair's count; then we update it first.
        while heap and heap[0][0] != -pair_counts[heap[0][1]]:
            heapq.heapreplace(heap, (-pair_counts[heap[0][1]], heap[0][1]))
        if not heap or -heap[0][0] < min_frequency:
            break
        pair, new, changed = heap[0][1], chr(new_id), set()
        left, right = pair
        merges.append((ord(left), ord(right)))
        merge_counts.append(pair_counts.pop(pair))
        for i in where.pop(pair):
            parts = pre_tokens[i].split(pair)  # just one part: the pair is gone by now
            pre_tokens[i] = new.join(parts)
            previous = ""
            for before, after in zip(parts, parts[1:]):  # the pair stood between them
                a, b = before[-1:] or previous, after[:1]  # its neighbors, if any
                old_a = right if a == new else a  # what a was before this merge
                for old, now in ((old_a + left, a + new), (right + b, new + b)):
                    if len(now) == 2:
                        pair_counts[old] -= counts[i]
                        pair_counts[now] += counts[i]
                        where[now].add(i)
                        changed.add(now)
                previous = new
        pair_counts[pair] = 0  # nothing is left of it
        for now in changed:
            heapq.heappush(heap, (-pair_counts[now], now))
    return Tokenizer(merges), merge_counts

# =============================================== 9. The tokenizer: text to ids and back
def byte_alphabet():
    """{byte: character}, in the order of ids. GPT-2 (Radford et al. 2019) gave each
    byte a visible character, which JSON can hold: printable ones stand for themselves,
    the others take those from U+0100 on (a space 'Ġ', a line end 'Ċ').
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return dict(zip(printable + others, map(chr, printable + [*range(256, 324)])))

class Tokenizer:
    """Text to ids and back. merges: list of (left id, right id), in the order of
    learning; rank 0 makes id 260. Ids 4-259 are the bytes: every text can be encoded.
    """

    def __init__(self, merges):
        self.merges = merges
        self.token_bytes = [token.encode() for token in SPECIAL_TOKENS]
        self.token_bytes += [bytes([b]) for b in byte_alphabet()]
        for left, right in merges:
            self.token_bytes.append(self.token_bytes[left] + self.token_bytes[right])
        self.byte_id = {b: i for i, b in enumerate(byte_alphabet(), start=4)}
        self.rank = {pair: rank for rank, pair in enumerate(merges)}
        self.pad, self.unk, self.bos, self.eos = PAD, UNK, BOS, EOS
        self.remembered = functools.lru_cache(100_000)(self.encode_pre_token)

    def __len__(self):
        return len(self.token_bytes)

    def encode_pre_token(self, pre_token):
        """One pre-token -> list of ids: replay the merges in the order of learning."""
        ids, never = [self.byte_id[b] for b in pre_token.encode()], len(self.merges)
        if len(ids) ** 2 > never:
            # The loop below is quadratic, too slow for DNA. So try each merge once.
            text = "".join(map(chr, ids))
            for new_id, (a, b) in enumerate(self.merges, start=260):
                text = text.replace(chr(a) + chr(b), chr(new_id))
            return list(map(ord, text))
        while len(ids) > 1:
            # SUBTLE: not the longest token first, but the merge learned earliest.
            best = min(self.rank.get(pair, never) for pair in zip(ids, ids[1:]))
            if best == never:
                break
            ids = merge(ids, self.merges[best], 260 + best)
        return ids

    def encode(self, text):
        """str -> list of ids. "<EOS>" in a text is five plain characters, so that no
        text can end a story by naming the token.
        """
        ids = []
        for pre_token in find_pre_tokens(text):
            long = len(pre_token) > 100  # not remembered: memory must stay bounded
            ids += (self.encode_pre_token if long else self.remembered)(pre_token)
        return ids

    def decode_bytes(self, ids):
        """list of ids -> bytes; special tokens are left out."""
        return b"".join(self.token_bytes[i] for i in ids if i > EOS)

    def decode(self, ids):
        """list of ids -> str. An incomplete character becomes U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def to_json(self):
        """The tokenizer as the text of a Hugging Face tokenizer.json."""
        names, name = SPECIAL_TOKENS[:], byte_alphabet()
        names += ["".join(map(name.get, token)) for token in self.token_bytes[4:]]
        special = [dict(id=i, content=names[i], single_word=False, lstrip=False,
                        rstrip=False, normalized=False, special=True) for i in range(4)]
        byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True,
                          use_regex=True)  # GPT-2's pattern
        model = dict(type="BPE", dropout=None, unk_token=None,
                     continuing_subword_prefix=None, end_of_word_suffix=None,
                     fuse_unk=False, byte_fallback=False, ignore_merges=False,
                     vocab={name: i for i, name in enumerate(names)},
                     merges=[[names[a], names[b]] for a, b in self.merges])
        content = dict(version="1.0", truncation=None, padding=None, normalizer=None,
                       post_processor=None, added_tokens=special,
                       pre_tokenizer=byte_level, decoder=byte_level, model=model)
        return json.dumps(content, ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def load(cls, path=OUT / "tokenizer.json"):
        """Read a tokenizer.json that this script wrote; SystemExit if it is damaged."""
        need(path, "01_bpe.py")
        try:
            model = json.loads(path.read_text("utf-8"))["model"]
            id_of = model["vocab"]
            tokenizer = cls([(id_of[a], id_of[b]) for a, b in model["merges"]])
            if json.loads(tokenizer.to_json())["model"] != model:
                raise ValueError("its tokens do not follow from its merges")
            return tokenizer
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            why = f"It cannot be read as a tokenizer ({error!r})."
            raise stop(f"{shown(path)} is damaged.", why, "python 01_bpe.py") from None

# ============================================================ 10. Show what was learned
def show(token):
    """A token's bytes as people read them: spaces visible, broken characters as hex.

    >>> show(b" time"), show(b"\\n"), show(b"\\xc3")
    ('_time', '\\\\n', '<c3>')
    """
    try:
        text = token.decode("utf-8").replace(" ", "_")
        return text if text.isprintable() else text.encode("unicode_escape").decode()
    except UnicodeDecodeError:
        return "".join(f"<{b:02x}>" for b in token)

def vocab_lines(tokenizer, merge_counts):
    """Yield the lines of vocab.txt: id, token, the two tokens it is made of, count."""
    tokens = list(map(show, tokenizer.token_bytes))
    yield from (f"{i:6} {token}" for i, token in enumerate(tokens[:260]))
    for i, ((a, b), n) in enumerate(zip(tokenizer.merges, merge_counts), start=260):
        yield f"{i:6} {tokens[i]} = {tokens[a]} + {tokens[b]}, seen {n:,} x"

def page_data(tokenizer, merge_counts, pre_token_counts, stories):
    """What lessons/pages/tokens.html shows: tokens, how often they occur, stories."""
    token_counts = [0] * len(tokenizer)
    for pre_token, count in pre_token_counts.items():
        for i in tokenizer.encode_pre_token(pre_token):
            token_counts[i] += count
    return {"tokens": [token.hex() for token in tokenizer.token_bytes],
            "merges": tokenizer.merges, "merge_counts": merge_counts,
            "token_counts": token_counts,
            "stories": [[story, tokenizer.encode(story)] for story in stories]}

# ==================== 11. Files and messages of all six scripts (skip on first reading)
def stop(what, why, command):  # a user's mistake -> SystemExit: no traceback, code 1
    return SystemExit(f"{what}\n{why}\n{command}")

def shown(path, folder=None):
    """The path relative to `folder` (default: the current one), if it is inside it."""
    path, folder = Path(path), folder or Path.cwd()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)

def need(path, writer):  # SystemExit unless the script `writer` has written the file
    if not path.is_file():
        why = f"{writer} writes it, and has not been run yet (or not to its end)."
        raise stop(f"{shown(path)} is missing.", why, f"python {writer}")

def unusable(script, name, value, rule):  # of a constant's value
    what = f"{name} = {value!r} in {script} cannot be used."
    return stop(what, f"It must be {rule}.",
                f"Edit {name} at the top of {script}, then: python {script}")

def in_range(script, name, value, kind, low, high):  # kind: int or float
    number = "a whole number" if kind is int else "a number"
    if type(value) not in (int, kind) or not low <= value <= high:
        raise unusable(script, name, value, f"{number} from {low:,} to {high:,}")

def one_of(script, name, value, choices):
    if value not in choices:
        raise unusable(script, name, value, f"one of {', '.join(map(repr, choices))}")

def sha256_of(path):  # -> hexadecimal digits; equal digits mean an equal file
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()

def read_json(path, writer, format):  # -> dict
    need(path, writer)
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["format"] == format:
            return content
        why = f"Its format is {content['format']!r}, but this version reads {format!r}."
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        why = f"It is not a complete JSON file ({type(error).__name__}: {error})."
    raise stop(f"{shown(path)} cannot be used.", why, f"python {writer}")

def check_tokenizer(theirs, what, command):  # theirs: sha256 of a tokenizer.json
    if theirs != sha256_of(OUT / "tokenizer.json"):
        why = "Its ids would stand for other tokens: 01_bpe.py has run again since."
        raise stop(f"{what} was made with another tokenizer.", why, command)

def write_all(files):
    """Write {path: bytes, str, function of the file, or None: no file}; all or none."""
    parts = {path: path.with_name(f"{path.name}.{os.getpid()}.part")
             for path, data in files.items() if data is not None}
    try:
        for path, part in parts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            data = files[path].encode() if isinstance(files[path], str) else files[path]
            with open(part, "wb") as file:
                data(file) if callable(data) else file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for path, part in parts.items():  # all are complete; until now the old stay
            os.replace(part, path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)

def fill_page(name, data):
    """The text of lessons/pages/NAME that shows `data`, or None if there is no page."""
    folder, names = HERE / "lessons" / "pages", (name, "common.css", "common.js")
    try:
        page, css, js = [(folder / n).read_text("utf-8") for n in names]
    except FileNotFoundError as error:
        print(f"[note] {shown(error.filename)} is missing, so no {name} is written")
        return None
    page = page.replace("/*common.css*/", css).replace("/*common.js*/", js)
    # "<" is written as its code, so that no text can end the page's script element.
    return page.replace("/*DATA*/null", json.dumps(data).replace("<", "\\u003c"))

def take_lock(script):
    """Keep a second run of the script out for as long as the returned file is open."""
    path = HERE / "artifacts" / f"{Path(script).stem}.lock"
    path.parent.mkdir(exist_ok=True)
    file = open(path, "a")
    try:
        import fcntl  # not on Windows
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        why = "Two runs would overwrite each other's files."
        how = f"Wait for it, or stop it with Ctrl-C; then: python {script}"
        raise stop(f"Another {script} is running in this folder.", why, how) from None
    except (ImportError, OSError):
        pass  # this system, or this disk, has no locks
    return file

def run_stage(main, script, lock=True, memory_hint=None):
    """Run main(); answer Ctrl-C, a full disk and the like in three lines."""
    for stream in (sys.stdout, sys.stderr):  # a terminal may lack some characters
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        # Of several processes (torchrun, stage 4) the first holds the lock for all.
        held = take_lock(script) if lock and os.environ.get("RANK", "0") == "0" else ()
        main()
        sys.stdout.flush()  # now, while we can still answer
    except KeyboardInterrupt:
        raise stop("\nStopped by Ctrl-C.", "No half-written file is left.",
                   f"Run again: python {script}") from None
    except BrokenPipeError:  # the reader left: python 06_sample.py | head
        os._exit(1)  # a normal exit would flush stdout, and fail once more
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        what = f"\n{'The disk is full' if full else 'System error'} ({error})."
        how = f"{'Free space' if full else 'Fix the cause'}, then: python {script}"
        raise stop(what, "Files from earlier runs are unchanged.", how) from None
    except (MemoryError, RuntimeError) as error:  # "abruptly": of a worker process
        words = "out of memory|can't allocate memory|not enough memory|abruptly"
        if isinstance(error, RuntimeError) and not re.search(words, str(error)):
            raise
        how = memory_hint or f"Close other programs, then: python {script}"
        raise stop("\nOut of memory.", f"{error}"[:200].split("\n")[0], how) from None

# =========================================================================== 12. Checks
def check_constants():
    """Raise SystemExit, naming the constant and its range, unless all can be used."""
    in_range("01_bpe.py", "VOCAB_SIZE", VOCAB_SIZE, int, 260, 65_536)  # ids are uint16
    in_range("01_bpe.py", "MIN_FREQUENCY", MIN_FREQUENCY, int, 1, 10**9)
    if WORKERS != "auto":
        in_range("01_bpe.py", "WORKERS", WORKERS, int, 1, 256)

def check_agreement(tokenizer, pre_token_counts, story):
    """Encode and decode must be inverse, and both trainers must learn the same."""
    sample = {p[:20]: n for p, n in list(pre_token_counts.items())[:200]}
    fast, _ = train(sample, 300, 1)
    ids = {tuple(fast.byte_id[b] for b in p.encode()): n for p, n in sample.items()}
    same = train_naive(ids, len(fast.merges), 260) == fast.merges
    inverse = tokenizer.decode(tokenizer.encode(story)) == story
    words = re.split(r"(?= \S)", story)  # as count_range() does
    exact = [p for w in words for p in find_pre_tokens(w)] == find_pre_tokens(story)
    print(f"[check] decoding gives the first story back exactly: {inverse}")
    print(f"[check] naive and fast training learn the same from a sample: {same}")
    print(f"[check] splitting at spaces first changes no pre-token: {exact}")
    if not (inverse and same and exact):
        raise stop("A check failed.", "An edit of 01_bpe.py has broken it.",
                   "Undo the edit, then: python 01_bpe.py")

# ============================================================================= 13. Main
def main():
    started = time.perf_counter()
    check_constants()
    paths = find_text(TEXT, "01_bpe.py")
    tasks = split_file(paths["train"])
    stories = [story[:2000] for story in first_stories(tasks, 8)]
    print(f"[read] {shown(paths['train'])}: {paths['train'].stat().st_size:,} bytes")
    print(f"[plan] {VOCAB_SIZE:,} tokens = 4 special + 256 bytes +"
          f" {VOCAB_SIZE - 260:,} merges")
    pre_token_counts = count_text(tasks, count_processes(WORKERS, tasks))
    total, different = sum(pre_token_counts.values()), len(pre_token_counts)
    print(f"[start] {total:,} pre-tokens, {different:,} different; the top five:")
    for pre_token, count in pre_token_counts.most_common(5):
        print(f"  {show(pre_token.encode())[:40]:6} {count:11,}")
    tokenizer, merge_counts = train(pre_token_counts, VOCAB_SIZE, MIN_FREQUENCY)
    if len(tokenizer) < VOCAB_SIZE:
        print(f"[note] the text gives only {len(tokenizer):,} tokens: no other pair"
              f" occurs {MIN_FREQUENCY:,} times. A larger text gives more.")
    vocab = list(vocab_lines(tokenizer, merge_counts))
    print("\nThe first merges, and the ids they make:", *vocab[260:268], sep="\n")
    print("\nThe first story, cut into its tokens:")
    ids, size = tokenizer.encode(stories[0]), len(stories[0].encode())
    cut = "|".join(show(tokenizer.token_bytes[i]) for i in ids)
    print(*[f"  {cut[i : i + 86]}" for i in range(0, len(cut), 86)], sep="\n")
    print(f"  {size:,} bytes became {len(ids):,} tokens: {size / len(ids):.2f} each\n")
    check_agreement(tokenizer, pre_token_counts, stories[0])
    text = tokenizer.to_json()
    constants = {"TEXT": TEXT, "VOCAB_SIZE": VOCAB_SIZE, "MIN_FREQUENCY": MIN_FREQUENCY}
    texts = {part: {"path": shown(path, HERE), "sha256": sha256_of(path)}
             for part, path in paths.items()}
    meta = {"format": FORMAT, "constants": constants,
            "tokenizer": hashlib.sha256(text.encode()).hexdigest(), "text": texts}
    data = page_data(tokenizer, merge_counts, pre_token_counts, stories)
    files = {"tokenizer.json": text, "meta.json": json.dumps(meta, indent=1),
             "vocab.txt": "\n".join(vocab) + "\n",
             "tokens.html": fill_page("tokens.html", data)}
    write_all({OUT / name: content for name, content in files.items()})
    names, seconds = [n for n in files if files[n]], time.perf_counter() - started
    print(f"[wrote] {shown(OUT)}: {' '.join(names)} in {seconds:.1f} s")
    print("Next: python 02_prepare.py")

# Worker processes import this file; without this line each would start the run again.
if __name__ == "__main__":
    run_stage(main, "01_bpe.py")
