"""How fast are stages 1 and 2, next to the libraries that people use, on the same text?

    python tests/bench_bpe.py                          practice stories, grown to 50 MB
    python tests/bench_bpe.py my.txt --megabytes 200   your text, grown to 200 MB
    python tests/bench_bpe.py my.txt --megabytes 2200 --kinds stages
                                                       01 and 02 as a learner runs them

Run by hand, never by pytest. The libraries are in tests/requirements-peers.txt; one
that is not installed is left out. Each run is a process of its own, the contenders take
turns, and their medians are compared. Peak memory is the sum over all processes of it
(shared pages divided among those that share them), and is measured on Linux only.

A text grows by joining the first half of one story and the second half of another, so
no story comes twice, and by as many misspelled words as the real TinyStories brings.
"""

import argparse
import collections
import functools
import importlib
import itertools
import math
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "lessons")]
bpe = importlib.import_module("01_bpe")
prepare = importlib.import_module("02_prepare")

# Size of TinyStories' training file and its number of distinct pre-tokens. In between
# the number of pre-tokens is assumed to grow as a power of the size (Heaps' law).
FULL_BYTES, FULL_PRE_TOKENS = 2_227_753_162, 59_933


# ---------------------------------------------------------------------------- the text


def stories_of(tasks):
    """The stories of a text, as every contender gets them."""
    return itertools.chain.from_iterable(bpe.read_stories(*task) for task in tasks)


def grow(source, target, megabytes):
    """Write a text of so many megabytes made of the stories of `source`."""
    tasks = bpe.split_file(source)
    stories, known = list(stories_of(tasks)), set(bpe.count_text(tasks, 1))
    size, first = sum(len(story.encode()) for story in stories), len(known)
    power = math.log(FULL_PRE_TOKENS / first) / math.log(FULL_BYTES / size)
    rng, written = random.Random(1), 0
    with open(target, "wb") as file:
        for turn in itertools.count():
            for i, story in enumerate(stories):
                if turn:
                    other = stories[(i + 7919 * turn) % len(stories)]
                    head = story[: story.find(" ", len(story) // 2)]
                    story = head + other[other.find(" ", len(other) // 2) :]
                    if len(known) < first * (written / size) ** power:
                        story = misspell(story, known, rng)
                written += file.write(story.encode() + b"\n<|endoftext|>\n")
                if written >= megabytes * 1e6:
                    return len(known)


def misspell(story, known, rng):
    """Add letters to one word of the story until it is a new word."""
    words = story.split(" ")
    i = rng.choice([i for i, word in enumerate(words) if i and word.isalpha()] or [1])
    while " " + words[i] in known:
        position = rng.randint(0, len(words[i]))
        letter = rng.choice("abcdefghilmnoprstu")
        words[i] = words[i][:position] + letter + words[i][position:]
    known.add(" " + words[i])
    return " ".join(words)


# ------------------------------------------------------------------- what is compared
# Each contender gets (tasks of bpe.split_file, vocabulary, workers) and returns a
# function without arguments that does the work; only that function is timed.


def train_ours(tasks, vocabulary, workers):
    return lambda: bpe.train(bpe.count_text(tasks, workers), vocabulary, 2)


def train_tokenizers(tasks, vocabulary, workers):
    import tokenizers

    peer = tokenizers.ByteLevelBPETokenizer()
    options = {"vocab_size": vocabulary, "min_frequency": 2, "show_progress": False}
    options["special_tokens"] = bpe.SPECIAL_TOKENS
    return lambda: peer.train_from_iterator(stories_of(tasks), **options)


def train_rustbpe(tasks, vocabulary, workers):
    import rustbpe

    peer, size = rustbpe.Tokenizer(), vocabulary - 4  # it has no special tokens
    train = functools.partial(peer.train_from_iterator, pattern=bpe.GPT2_PATTERN)
    return lambda: train(stories_of(tasks), size)


def train_bpeasy(tasks, vocabulary, workers):
    import bpeasy

    size, pattern = vocabulary - 4, bpe.GPT2_PATTERN
    return lambda: bpeasy.train_bpe(stories_of(tasks), pattern, 128, size)


def trained(tasks, vocabulary):
    """Our tokenizer of the first 16 MB: everybody encodes with these merges."""
    return bpe.train(bpe.count_text(tasks[:2], 1), vocabulary, 2)[0]


@functools.lru_cache(maxsize=1)
def load_encoder(path):
    return prepare.Encoder(bpe.Tokenizer.load(path))


def encode_range(task):
    """As stage 2, but without cleaning, counting, and fingerprints: like the peers."""
    text_range, tokenizer_path, part = task
    encode = load_encoder(tokenizer_path).encode
    with open(part, "wb") as file:
        for story in bpe.read_stories(*text_range):
            file.write(encode(story))


def encode_ours(tasks, vocabulary, workers):
    path = tasks[0][0].parent / "tokenizer.json"
    path.write_text(trained(tasks, vocabulary).to_json(), "utf-8")
    tasks = [(task, path, path.with_name(f"{i}.ids")) for i, task in enumerate(tasks)]
    work = bpe.map_tasks(encode_range, tasks, workers, "encoding")
    return lambda: collections.deque(work, maxlen=0)


def encode_tiktoken(tasks, vocabulary, workers):
    import tiktoken

    tokens = trained(tasks, vocabulary).token_bytes[4:]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    peer = tiktoken.Encoding(
        "ours", pat_str=bpe.GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={}
    )
    batch = functools.partial(peer.encode_ordinary_batch, num_threads=workers)
    if workers == 1:
        batch = functools.partial(map, peer.encode_ordinary)

    def work():
        with open(tasks[0][0].with_name("tiktoken.ids"), "wb") as file:
            for task in tasks:
                for ids in batch(list(bpe.read_stories(*task))):
                    file.write(np.array(ids, dtype="<u2"))

    return work


CONTENDERS = {
    "train": {
        "ours": train_ours,
        "tokenizers": train_tokenizers,
        "rustbpe": train_rustbpe,
        "bpeasy": train_bpeasy,
    },
    "encode": {"ours": encode_ours, "tiktoken": encode_tiktoken},
}


# --------------------------------------------------------------------------- measuring


def memory_of(group):
    """Megabytes that all processes of a process group hold together (Linux only)."""
    kilobytes = 0
    for file in Path("/proc").glob("[0-9]*/smaps_rollup"):
        try:
            if os.getpgid(int(file.parent.name)) == group:
                kilobytes += int(re.search(r"Pss: +(\d+)", file.read_text()).group(1))
        except (OSError, AttributeError):  # the process has just ended
            continue
    return kilobytes / 1024


def measure(command, folder, workers):
    """Run a command -> (seconds, its last line, peak MB), or None if it failed."""
    started, peak = time.perf_counter(), 0
    with open(folder / "output.txt", "w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder, stdout=output, stderr=output, start_new_session=True,
            env=os.environ | {"RAYON_NUM_THREADS": str(workers)},
        )  # fmt: skip
        try:
            while process.poll() is None:
                peak = max(peak, memory_of(process.pid))
                time.sleep(0.1)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        seconds = time.perf_counter() - started
        output.seek(0)
        last_line = (output.read().strip().splitlines() or ["no message"])[-1]
    if process.returncode:
        print(f"  {command[-1]}: left out ({last_line[:70]})", flush=True)
        return None
    return seconds, last_line, peak


def compare(kind, path, vocabulary, workers, repeat):
    """Let the contenders take turns; print medians, ratios, and peak memory."""
    size, results = path.stat().st_size / 1e6, {name: [] for name in CONTENDERS[kind]}
    print(f"\n{kind}: {size:,.1f} MB, vocabulary {vocabulary:,}, {workers} worker(s)")
    for _ in range(repeat):
        for name in list(results):
            arguments = [str(path), str(vocabulary), str(workers), kind, name]
            result = measure([__file__, "--run", *arguments], path.parent, workers)
            if result is None:
                del results[name]
            else:
                results[name].append((*map(float, result[1].split()), result[2]))
    print(f"  {'median of':12}{'seconds':>9}{'CPU s':>8}{'MB/s':>8}", end="")
    print(f"{'peak MB':>9}{'time':>9}{'CPU':>7}   (ours / this)")
    ours = [statistics.median(column) for column in zip(*results["ours"])]
    for name, runs in results.items():
        seconds, cpu, peak = (statistics.median(column) for column in zip(*runs))
        print(f"  {name:12}{seconds:9.2f}{cpu:8.2f}{size / seconds:8.1f}", end="")
        ratios = f"{ours[0] / seconds:9.2f}{ours[1] / cpu:7.2f}"
        print(f"{peak:9.0f}{ratios}", flush=True)


def run_stages(path, vocabulary, workers):
    """Run copies of 01 and 02 on the text, as a learner does."""
    size = path.stat().st_size / 1e6
    print(f"\nstages: {size:,.1f} MB, vocabulary {vocabulary:,}, {workers} worker(s)")
    constants = {"TEXT": str(path), "VOCAB_SIZE": vocabulary, "WORKERS": workers}
    for script in ("01_bpe.py", "02_prepare.py"):
        code = (ROOT / script).read_text("utf-8")
        for name, value in constants.items():
            if (name, script) != ("TEXT", "02_prepare.py"):
                line = f"{name} = {value!r}".replace("\\", r"\\")
                code = re.sub(f"^{name} = .*", line, code, flags=re.MULTILINE)
        (path.parent / script).write_text(code, "utf-8")
        result = measure([script], path.parent, workers)
        if result is not None:
            print(f"  {script:15}{result[0]:9.1f} s{result[2]:9.0f} MB", flush=True)


def main():
    if sys.argv[1:2] == ["--run"]:
        path, vocabulary, workers, kind, name = sys.argv[2:]
        tasks = bpe.split_file(Path(path))
        work = CONTENDERS[kind][name](tasks, int(vocabulary), int(workers))
        started, cpu = time.perf_counter(), sum(os.times()[:4])
        work()
        print("\n", time.perf_counter() - started, sum(os.times()[:4]) - cpu)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", nargs="?", help="a file (otherwise practice stories)")
    parser.add_argument("--megabytes", type=float, default=50, help="0: as it is")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", default=["train", "encode"],
                        choices=["train", "encode", "stages"])  # fmt: skip
    parser.add_argument("--folder", help="where the grown text may be, for a while")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        source, grown = options.text, Path(folder) / "grown.txt"
        if source is None:
            import practice_stories

            source = Path(folder) / "practice.txt"
            practice_stories.write_corpus(source, Path(folder) / "valid.txt")
        if options.megabytes:
            count = grow(Path(source), grown, options.megabytes)
            print(f"{source}, grown to {options.megabytes:,} MB: {count:,} pre-tokens")
        else:
            shutil.copy(source, grown)
        for kind, workers in itertools.product(options.kinds, options.workers):
            if kind == "stages":
                run_stages(grown, options.vocabulary, workers)
            else:
                compare(kind, grown, options.vocabulary, workers, options.repeat)


if __name__ == "__main__":
    main()
