"""Where the text comes from: make it, download it or open it, and read it in stories.

    sources("practice")   -> {"train": path, "valid": path}; "valid" not for every text
    tasks(path)           -> byte ranges of the file that end where a story ends
    read_stories(*task)   -> the stories of one range, one after the other
    in_workers(f, tasks)  -> f(task) for each, computed by several processes

Stages 1 and 2 use this file. A first reader may skip it: nothing here is about language
models, all of it is about files that may be larger than memory.
"""
import concurrent.futures
import errno
import itertools
import multiprocessing
import os
import signal
import time

from tqdm import tqdm

from plumbing import ROOT, sha256_of, stop

DATA = ROOT / "data"
BLOCK = 2**20  # bytes read at a time
BATCH = 2 * 2**20  # characters worked on at a time
RANGE = 8 * 2**20  # bytes of a task for one worker
LONGEST_STORY = 16 * 2**20  # bytes; a longer one must be a missing separator
SMALLEST_TEXT = 10_000  # bytes; from less there is nothing to learn
EDIT = "Edit TEXT at the top of 01_bpe.py, then: python 01_bpe.py"

# The TinyStories files written by GPT-4 (Eldan & Li 2023, arXiv 2305.07759). Licence of
# the data: CDLA-Sharing-1.0. {name: (bytes, sha256)}
ADDRESS = "https://huggingface.co/datasets/roneneldan/TinyStories/resolve/main/"
TRAIN, VALID = "TinyStoriesV2-GPT4-train.txt", "TinyStoriesV2-GPT4-valid.txt"
FILES = {
    TRAIN: (
        2_227_753_162,
        "6418d412de72888f52b5142c761ac21a582f7d1166f0bfbdb5f03ccfdec90443",
    ),
    VALID: (
        22_502_601,
        "6874bae9a4c1a4e7edcf0e53b86c17817e9cf881fc75ff2368da457b80c0585d",
    ),
}
TRIES = 3
WAIT = 2.0  # seconds before the second try, twice as long before the third


# ------------------------------------------------------------------------- the sources


def sources(text, script="01_bpe.py"):
    """A value of TEXT in a script -> {"train": path} or {"train": path, "valid": path}.

    Makes or downloads what is missing. Raises SystemExit if there is no such text.
    """
    edit = EDIT.replace("01_bpe.py", script)
    names = '"practice", "tinystories-mini", "tinystories" or the path of a file'
    if not isinstance(text, str) or not text:
        raise stop(f"TEXT = {text!r} cannot be used.", f"It must be {names}.", edit)
    if text == "practice":
        train, valid = DATA / "practice-train.txt", DATA / "practice-valid.txt"
        import practice_stories  # beside this file

        print("[read] writing the practice stories (no download) ...", flush=True)
        practice_stories.write_corpus(train, valid)
        return {"train": train, "valid": valid}
    if text == "tinystories-mini":
        return {"train": download(VALID)}
    if text == "tinystories":
        return {"train": download(TRAIN), "valid": download(VALID)}
    path = ROOT / os.path.expanduser(text)  # an absolute path stays as it is
    if path.is_dir():
        raise stop(f"TEXT = {text!r} is a folder.", "It must be one text file.", edit)
    if not path.exists():
        raise stop(f"TEXT = {text!r}: no such file.", f"TEXT must be {names}.", edit)
    size = path.stat().st_size
    if size < SMALLEST_TEXT:
        raise stop(
            f"{path} is {'empty' if size == 0 else f'too small ({size:,} bytes)'}.",
            f"A language model needs something to learn: at least {SMALLEST_TEXT:,}"
            " bytes, and some megabytes to learn well.",
            edit,
        )
    return {"train": path}


def download(name):
    """Fetch a TinyStories file into data/, if it is not there; returns its path.

    What has arrived waits in NAME.part, and the next try asks for the rest only. The
    file gets its name when length and sha256 are right. Raises SystemExit otherwise.
    """
    import http.client  # here, for workers need no network and start sooner without

    path, (size, sha256) = DATA / name, FILES[name]
    if path.exists() and path.stat().st_size == size:
        return path
    part = DATA / (name + ".part")
    DATA.mkdir(exist_ok=True)
    trouble = None
    for attempt in range(TRIES):
        if attempt:
            time.sleep(WAIT * 2 ** (attempt - 1))
        try:
            fetch(ADDRESS + name, part, size)
        except (OSError, EOFError, http.client.HTTPException) as error:
            # Time-outs, refusals and "no network" are OSErrors; so is a full disk.
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise
            trouble = error
            print(f"[read] {name}: {error}; try {attempt + 1} of {TRIES}", flush=True)
            continue
        if sha256_of(part) == sha256:
            os.replace(part, path)
            return path
        trouble = "what arrived has another sha256 than the file should have"
        print(f"[read] {name}: {trouble}; try {attempt + 1} of {TRIES}", flush=True)
        part.unlink()
    raise stop(
        f"{name} could not be downloaded: {trouble}.",
        f"It comes from {ADDRESS}; what has arrived is kept, and the next run goes on.",
        "Check the network, then: python 01_bpe.py   (TEXT = 'practice' needs none)",
    )


def fetch(address, part, size):
    """Append the missing bytes of `address` to the file `part`, with a bar."""
    import urllib.request

    have = part.stat().st_size if part.exists() else 0
    if have > size:  # more than there can be: not ours
        part.unlink()
        have = 0
    if have == size:
        return
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        if answer.status != 206:  # a server that ignores Range sends all of it
            have = 0
        bar = tqdm(total=size, initial=have, unit="B", unit_scale=True, desc=part.stem)
        with bar, open(part, "ab" if have else "wb") as file:
            while block := answer.read(BLOCK):
                file.write(block)
                bar.update(len(block))
                have += len(block)
                if have > size:
                    break
    if have > size:
        part.unlink()
        raise EOFError(f"more than {size:,} bytes came")
    if have < size:
        raise EOFError(f"the connection ended after {have:,} of {size:,} bytes")


# ------------------------------------------------------------------------- the reading


def find_separator(path):
    """What separates the stories of a file: <|endoftext|>, or else an empty line."""
    with open(path, "rb") as file:
        head = file.read(LONGEST_STORY)
    if b"\0" in head:
        why = f"It holds a zero byte at offset {head.index(0):,}: no UTF-8 text does."
        raise stop(f"{path} is a binary file, or UTF-16.", why, EDIT)
    if b"<|endoftext|>" in head:
        return b"<|endoftext|>"
    separator = max((b"\n\n", b"\r\n\r\n", b"\r\r"), key=head.count)
    if separator not in head:
        raise stop(
            f"{path} is one single story: nothing separates it into several.",
            "A model learns from many where a story begins and where it ends.",
            "Put a line <|endoftext|>, or an empty line, between stories; then:"
            " python 01_bpe.py",
        )
    return separator


def too_long(path, offset):
    """The message for a story that does not end."""
    return stop(
        f"{path}: the story at byte {offset:,} is longer than {LONGEST_STORY:,} bytes.",
        "Stories are read one by one and must fit in memory.",
        "Put a line <|endoftext|> (or an empty line, if it has none) between stories;"
        " then: python 01_bpe.py",
    )


def tasks(path):
    """Cut a file into [(path, separator, begin, end)]; each range ends with a story."""
    separator, ranges, begin = find_separator(path), [], 0
    total = os.path.getsize(path)
    with open(path, "rb") as file:
        while begin < total:
            file.seek(begin + RANGE)
            window, found = b"", -1
            while found < 0 and (block := file.read(BLOCK)):
                if len(window) > LONGEST_STORY:
                    raise too_long(path, begin + RANGE)
                window += block
                found = window.find(separator)
            end = total if found < 0 else begin + RANGE + found + len(separator)
            ranges.append((path, separator, begin, end))
            begin = end
    return ranges


def read_stories(path, separator, begin, end):
    """Yield the stories in bytes begin..end, stripped, with "\\n" as line end.

    Raises SystemExit, naming the offset, at the first byte that is not UTF-8.
    """
    between = separator.decode().replace("\r\n", "\n").replace("\r", "\n")
    with open(path, "rb") as file:
        file.seek(begin)
        rest, left = b"", end - begin
        while left > 0:
            block = rest + file.read(min(BLOCK, left))
            left = end - file.tell()
            start = file.tell() - len(block)
            # Only whole stories are decoded: a block may end inside a character.
            whole, _, rest = block.rpartition(separator) if left else (block, b"", b"")
            if len(rest) > LONGEST_STORY:
                raise too_long(path, start + len(whole))
            try:
                text = whole.decode("utf-8")
            except UnicodeDecodeError as error:
                raise stop(
                    f"{path} is not UTF-8: byte 0x{whole[error.start]:02x} at offset"
                    f" {start + error.start:,} does not belong there.",
                    "Perhaps it was saved in another encoding. Nothing was written.",
                    f"iconv -f WINDOWS-1252 -t UTF-8 {path} > utf8.txt   # use that",
                ) from None
            if start == 0:
                text = text.removeprefix("\ufeff")  # a byte-order mark is not text
            if "\r" in text:
                text = text.replace("\r\n", "\n").replace("\r", "\n")
            for story in text.split(between):
                story = story.strip()
                if story:
                    yield story


def batches(path, separator, begin, end):
    """Yield the stories in bytes begin..end as lists of about BATCH characters each."""
    batch, size = [], 0
    for story in read_stories(path, separator, begin, end):
        batch.append(story)
        size += len(story)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    yield batch


def first_stories(tasks, count):
    """The first stories of a text, at most `count`. SystemExit if there is none."""
    stories = itertools.chain.from_iterable(read_stories(*task) for task in tasks)
    first = list(itertools.islice(stories, count))
    if not first:
        path = tasks[0][0]
        raise stop(f"{path} holds nothing but blanks.", "No story, no model.", EDIT)
    return first


# ------------------------------------------------------------------------- the workers


def processes(workers, tasks):
    """WORKERS -> how many processes, and says so."""
    count, why = min(workers, len(tasks)) if workers != "auto" else 0, "as you wish"
    if workers == "auto":
        affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        # Starting a process costs as long as reading some megabytes.
        count, why = max(1, min(cores, len(tasks) // 2)), f"auto: {cores} CPU core(s)"
    size = f"{len(tasks)} part(s) of about {RANGE / 2**20:.3g} MB"
    print(f"[plan] {size}, {count} process(es) at work ({why})")
    return count


def in_workers(function, tasks, workers, desc):
    """Yield function(task) for each task in order, computed by `workers` processes.

    The processes are spawned, as macOS does it: each imports the script afresh, so a
    script must do nothing on import. An exception in one of them is raised here.
    """
    bar = {"total": len(tasks), "desc": desc, "unit": " parts", "leave": False}
    if workers == 1:
        yield from tqdm(map(function, tasks), **bar)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
        # Ctrl-C reaches every process; only this one is to answer, so the others, which
        # start here and inherit it, ignore it.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        results = pool.map(function, tasks)
        signal.signal(signal.SIGINT, handler)
        try:
            yield from tqdm(results, **bar)
        except concurrent.futures.process.BrokenProcessPool:
            why = "The system ended it, perhaps because memory was short."
            how = "Set WORKERS = 1 at the top of the script, and run it again."
            raise stop("A worker process died.", why, how) from None
        finally:
            results.close()  # on the way out, drop what has not begun
