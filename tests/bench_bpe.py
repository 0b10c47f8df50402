"""How fast are stages 1 and 2? Beside the libraries that people use, on the same bytes.

    python tests/bench_bpe.py                          practice stories, grown to 50 MB
    python tests/bench_bpe.py my.txt --megabytes 200   your text, grown to 200 MB
    python tests/bench_bpe.py my.txt --megabytes 2200 --kinds stages
                                                       01 and 02 as a learner runs them

Run by hand, never by pytest. The peers are in tests/requirements-peers.txt; one that is
not installed is left out. Every run is a process of its own; the runs of all libraries
take turns, and the medians are compared. Memory is the largest sum, over the processes
of a run, of what each holds (shared pages divided among those that share them).

A text is grown by telling the first half of one story and the second of another, so
that no story comes twice, and by as many misspelt words as TinyStories itself brings.
"""

import argparse
import collections
import contextlib
import importlib
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "lessons")]
import texts  # noqa: E402

bpe = importlib.import_module("01_bpe")

# TinyStories' train file: bytes and distinct pieces. Between a smaller text and this
# one the number of pieces is taken to grow as a power of the bytes (Heaps' law).
WHOLE_BYTES, WHOLE_PIECES = 2_227_753_162, 59_933


# ---------------------------------------------------------------------------- the text


def stories_of(path):
    """Yield the stories of a file, as every library here gets them."""
    for task in texts.tasks(path):
        yield from texts.read_stories(*task)


def grow(source, target, megabytes):
    """Write a text of so many megabytes out of the stories of `source`."""
    stories = list(stories_of(source))
    size = sum(len(story.encode()) for story in stories)
    known = set(bpe.count_text(texts.tasks(source), 1))
    first = len(known)
    power = math.log(WHOLE_PIECES / first) / math.log(WHOLE_BYTES / size)
    rng, written, turn = random.Random(1), 0, 0
    with open(target, "wb") as file:
        while written < megabytes * 1e6:
            for i, story in enumerate(stories):
                if turn:
                    other = stories[(i + 7919 * turn) % len(stories)]
                    head = story[: story.find(" ", len(story) // 2)]
                    story = head + other[other.find(" ", len(other) // 2) :]
                    if len(known) < first * (written / size) ** power:
                        story = misspell(story, known, rng)
                written += file.write(story.encode() + b"\n<|endoftext|>\n")
            turn += 1
        file.truncate(max(0, round(megabytes * 1e6)))
    # The cut may have fallen into a character: the last story loses a few bytes.
    return len(known)


def misspell(story, known, rng):
    """One word of the story gets letters too many, until it is a new one."""
    words = story.split(" ")
    i = rng.choice([i for i, word in enumerate(words) if i and word.isalpha()] or [1])
    while " " + words[i] in known:
        place = rng.randint(0, len(words[i]))
        words[i] = (
            words[i][:place] + rng.choice("abcdefghilmnoprstu") + words[i][place:]
        )
    known.add(" " + words[i])
    return " ".join(words)


# ------------------------------------------------------------------- what is compared
# Each is a function (path, vocabulary, threads) that does the whole work on the file,
# and returns how long that took; what it must prepare first does not count.


def timed(function, *arguments, **named):
    """-> (seconds on the clock, seconds of all processors together) for one call."""
    started, before = time.perf_counter(), os.times()[:4]
    function(*arguments, **named)
    return time.perf_counter() - started, sum(os.times()[:4]) - sum(before)


def train_ours(path, vocabulary, threads):
    def work():
        return bpe.train(bpe.count_text(texts.tasks(path), threads), vocabulary, 2)

    return timed(work)


def train_tokenizers(path, vocabulary, threads):
    import tokenizers

    peer = tokenizers.ByteLevelBPETokenizer()
    options = {"vocab_size": vocabulary, "min_frequency": 2, "show_progress": False}
    options["special_tokens"] = bpe.SPECIAL_TOKENS
    return timed(lambda: peer.train_from_iterator(stories_of(path), **options))


def train_rustbpe(path, vocabulary, threads):
    import rustbpe

    peer, size = rustbpe.Tokenizer(), vocabulary - 4  # it has no special tokens
    pattern = bpe.GPT2_PATTERN
    return timed(
        lambda: peer.train_from_iterator(stories_of(path), size, pattern=pattern)
    )


def train_bpeasy(path, vocabulary, threads):
    import bpeasy

    size = vocabulary - 4
    return timed(bpeasy.train_bpe, stories_of(path), bpe.GPT2_PATTERN, 128, size)


def trained(path, vocabulary):
    """Our tokenizer of the first 16 MB, for all who encode (with these very merges)."""
    pieces = bpe.count_text(texts.tasks(path)[:2], 1)
    return bpe.train(pieces, vocabulary, 2)[0]


def encode_file(path, encode_batch):
    """Read the stories in batches, encode them, write the ids as uint16."""
    import numpy as np

    with tempfile.TemporaryFile(dir=path.parent) as file:
        for task in texts.tasks(path):
            for ids in encode_batch(list(texts.read_stories(*task))):
                file.write(np.array(ids, dtype="<u2"))


def encode_ours(path, vocabulary, threads, function="encode_alone"):
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        tokenizer = Path(folder) / "tokenizer.json"
        tokenizer.write_text(trained(path, vocabulary).to_json(), "utf-8")
        tasks = [
            (task, tokenizer, True, Path(folder) / f"{i}.part")
            for i, task in enumerate(texts.tasks(path))
        ]
        if function == "encode_alone":
            function = encode_alone
        else:
            function = importlib.import_module("02_prepare").encode_range
        work = texts.in_workers(function, tasks, threads, "encoding")
        return timed(collections.deque, work, 0)


def encode_alone(task):
    """What stage 2 does without cleaning, counting and fingerprints: as the peers."""
    prepare = importlib.import_module("02_prepare")
    text_range, tokenizer, _, part = task
    if prepare.encoder is None:
        prepare.encoder = prepare.Encoder(bpe.Tokenizer.load(tokenizer))
    with open(part, "wb") as file:
        for story in texts.read_stories(*text_range):
            file.write(prepare.encoder.encode(story))


def encode_stage_2(path, vocabulary, threads):
    return encode_ours(path, vocabulary, threads, "encode_range")


def encode_tiktoken(path, vocabulary, threads):
    import tiktoken

    tokens = trained(path, vocabulary).token_bytes[4:]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    peer = tiktoken.Encoding(
        "ours", pat_str=bpe.GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={}
    )

    def batch(stories):
        if threads == 1:
            return map(peer.encode_ordinary, stories)
        return peer.encode_ordinary_batch(stories, num_threads=threads)

    return timed(encode_file, path, batch)


def encode_tokenizers(path, vocabulary, threads):
    import tokenizers

    peer = tokenizers.Tokenizer.from_str(trained(path, vocabulary).to_json())

    def batch(stories):
        return (found.ids for found in peer.encode_batch_fast(stories))

    return timed(encode_file, path, batch)


def encode_rustbpe(path, vocabulary, threads):
    import rustbpe

    peer, tasks = rustbpe.Tokenizer(), texts.tasks(path)[:2]
    stories = (story for task in tasks for story in texts.read_stories(*task))
    peer.train_from_iterator(stories, vocabulary - 4, pattern=bpe.GPT2_PATTERN)
    return timed(encode_file, path, peer.batch_encode)


def train_naive(path, vocabulary, threads):
    """As minbpe's RegexTokenizer does it: every piece of the text, again and again."""

    def work():
        regex = importlib.import_module("regex")
        text = "\n".join(stories_of(path))
        words = [list(p.encode()) for p in regex.findall(bpe.GPT2_PATTERN, text)]
        for new_id in range(256, vocabulary - 4):
            counts = collections.Counter()
            for ids in words:
                counts.update(zip(ids, ids[1:]))
            pair = max(counts, key=counts.get)
            words = [bpe.merge(ids, pair, new_id) for ids in words]

    return timed(work)


def stage(script):
    def run(path, vocabulary, threads):
        constants = {"TEXT": str(path), "VOCAB_SIZE": vocabulary, "WORKERS": threads}
        module = importlib.import_module(script)
        for name in ("IN", "OUT"):
            if hasattr(module, name):
                here = path.parent / "artifacts" / getattr(module, name).name
                setattr(module, name, here)
        for name, value in constants.items():
            if hasattr(module, name):
                setattr(module, name, value)
        return timed(module.main)

    return run


RUNS = {
    "train": {
        "ours": train_ours,
        "tokenizers": train_tokenizers,
        "rustbpe": train_rustbpe,
        "bpeasy": train_bpeasy,
    },
    "encode": {
        "ours": encode_ours,
        "ours, all of stage 2": encode_stage_2,
        "tiktoken": encode_tiktoken,
        "tokenizers": encode_tokenizers,
        "rustbpe": encode_rustbpe,
    },
    "naive": {"ours": train_ours, "minbpe's way": train_naive},
    "stages": {"01_bpe.py": stage("01_bpe"), "02_prepare.py": stage("02_prepare")},
}


# --------------------------------------------------------------------------- measuring


def memory_of(group):
    """Megabytes that all processes of a process group hold together (Linux only)."""
    total = 0
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getpgid(int(entry.name)) == group:
                for line in (entry / "smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
        except OSError:  # the process has just ended
            continue
    return total / 1024


def measure(kind, name, path, vocabulary, threads):
    """One run in a process of its own -> (seconds, CPU seconds, peak MB), or None."""
    arguments = [kind, name, str(path), str(vocabulary), str(threads)]
    process = subprocess.Popen(
        [sys.executable, __file__, "--run", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"RAYON_NUM_THREADS": str(threads)},
        start_new_session=True,
    )
    peak = 0
    try:
        while process.poll() is None:
            peak = max(peak, memory_of(process.pid))
            time.sleep(0.1)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    output, errors = process.communicate()
    if process.returncode:
        lines = errors.decode().strip().splitlines() or ["no message"]
        print(f"  {name}: left out ({lines[-1][:70]})", flush=True)
        return None
    return *json.loads(output.decode().splitlines()[-1]), peak


def compare(kind, names, path, vocabulary, threads, repeat):
    """Let all of them take turns; print medians, ratios and peak memory."""
    size = path.stat().st_size / 1e6
    print(f"\n{kind}: {size:,.1f} MB, vocabulary {vocabulary:,}, {threads} thread(s)")
    found = {name: [] for name in names}
    for _ in range(repeat):
        for name in list(found):
            result = measure(kind, name, path, vocabulary, threads)
            if result is None:
                del found[name]
            else:
                found[name].append(result)
                print(f"  . {name} {result[0]:.2f} s", file=sys.stderr, flush=True)
    table = {
        name: [statistics.median(column) for column in zip(*results)]
        for name, results in found.items()
    }
    ours = table.get("ours")  # there is none where our stages run alone
    head = f"  {'median of':22}{'seconds':>9}{'CPU s':>8}{'MB/s':>8}{'peak MB':>9}"
    print(head + (f"{'time':>9}{'CPU':>7}   (ours / this)" if ours else ""))
    for name, (seconds, cpu, peak) in table.items():
        line = f"  {name:22}{seconds:9.2f}{cpu:8.2f}{size / seconds:8.1f}{peak:9.0f}"
        if ours:
            line += f"{ours[0] / seconds:9.2f}{ours[1] / cpu:7.2f}"
        print(line, flush=True)


def main():
    if sys.argv[1:2] == ["--run"]:
        kind, name, path, vocabulary, threads = sys.argv[2:]
        print(json.dumps(RUNS[kind][name](Path(path), int(vocabulary), int(threads))))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", nargs="?", help="a file (otherwise practice stories)")
    parser.add_argument("--megabytes", type=float, default=50, help="0: as it is")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", default=["train", "encode", "naive"])
    parser.add_argument(
        "--only", nargs="+", help="names, for instance: ours tokenizers"
    )
    parser.add_argument("--folder", help="where the grown text may lie, for a while")
    choice = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=choice.folder) as folder:
        source, grown = choice.text, Path(folder) / "grown.txt"
        if source is None:
            import practice_stories

            source = Path(folder) / "practice.txt"
            practice_stories.write_corpus(source, Path(folder) / "valid.txt")
        if choice.megabytes:
            pieces = grow(Path(source), grown, choice.megabytes)
            print(f"{source} grown to {choice.megabytes:,.1f} MB, {pieces:,} pieces")
        else:
            grown.symlink_to(Path(source).resolve())
        for kind in choice.kinds:
            path, vocabulary = grown, choice.vocabulary
            if kind == "naive":  # it would take hours on what the others do in seconds
                path, vocabulary = Path(folder) / "small.txt", 300
                grow(Path(source), path, 0.5)
            names = [n for n in RUNS[kind] if not choice.only or n in choice.only]
            for threads in [1] if kind == "naive" else choice.threads:
                compare(kind, names, path, vocabulary, threads, choice.repeat)


if __name__ == "__main__":
    main()
