"""TinyStories: download the real stories, 22.5 MB or all 2.2 GB of them.

    [tinystories] -> 01_bpe -> 02_prepare -> 03_model -> 04_train -> 05 -> 06
     you are here

TinyStories (Eldan & Li 2023, arXiv 2305.07759) are children's stories that GPT-4 wrote
with the words of a three-year-old, so that a small model can learn from them. The files
are on Hugging Face, under the license CDLA-Sharing-1.0.

READS   https://huggingface.co/datasets/roneneldan/TinyStories
WRITES  data/TinyStoriesV2-GPT4-valid.txt   22.5 MB, 27,630 stories
        data/TinyStoriesV2-GPT4-train.txt   2.2 GB, 2,717,699 stories (full only)
RUN     python lessons/tinystories.py mini
        python lessons/tinystories.py full
        or nothing: 01_bpe.py downloads what its TEXT asks for

A file that is there, with the right size, is not downloaded again. What a broken
connection left behind stays in data/NAME.part, and the next run asks for the rest only.
"""
import errno
import http.client
import importlib
import os
import sys
import time
import urllib.request
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))
# `import 01_bpe` is a syntax error (a name cannot start with a digit), hence:
bpe = importlib.import_module("01_bpe")

ADDRESS = "https://huggingface.co/datasets/roneneldan/TinyStories/resolve/main/"
TRAIN, VALID = "TinyStoriesV2-GPT4-train.txt", "TinyStoriesV2-GPT4-valid.txt"
FILES = {  # name: (bytes, sha256)
    TRAIN: (
        2_227_753_162,
        "6418d412de72888f52b5142c761ac21a582f7d1166f0bfbdb5f03ccfdec90443",
    ),
    VALID: (
        22_502_601,
        "6874bae9a4c1a4e7edcf0e53b86c17817e9cf881fc75ff2368da457b80c0585d",
    ),
}
DATA = ROOT / "data"
BLOCK = 2**20  # bytes read at a time
TRIES = 3
WAIT = 2.0  # seconds before the second try, twice as long before the third


def get(text):
    """A value of TEXT in 01 -> {"train": path} or {"train": path, "valid": path}.

    "tinystories-mini" is the validation file alone: 01 and 02 split it themselves.
    """
    if text == "tinystories-mini":
        return {"train": download(VALID)}
    return {"train": download(TRAIN), "valid": download(VALID)}


def download(name):
    """Fetch a file into data/, if it is not there; returns its path.

    It gets its name when size and sha256 are right. Raises SystemExit otherwise.
    """
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
            # Timeouts, refusals and "no network" are OSErrors; so is a full disk.
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise
            trouble = error
        else:
            if bpe.sha256_of(part) == sha256:
                os.replace(part, path)
                return path
            trouble = "what arrived has another sha256 than the file should have"
            part.unlink()
        print(f"[read] {name}: {trouble}; try {attempt + 1} of {TRIES}", flush=True)
    raise bpe.stop(
        f"{name} could not be downloaded: {trouble}.",
        f"It comes from {ADDRESS}. The next run resumes, or begins again if it must.",
        "Check the network, then: python 01_bpe.py   (TEXT = 'practice' needs none)",
    )


def fetch(address, part, size):
    """Append the missing bytes of `address` to the file `part`, with a bar."""
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


def main():
    sizes = {"mini": "tinystories-mini", "full": "tinystories"}
    if len(sys.argv) != 2 or sys.argv[1] not in sizes:
        what = "Which size? " + " ".join(sys.argv[1:])
        why = "mini is a download of 22.5 MB, full of 2.2 GB."
        raise bpe.stop(what.strip(), why, "python lessons/tinystories.py mini")
    text = sizes[sys.argv[1]]
    for part, path in get(text).items():
        print(f"[read] {part}: {bpe.shown(path)}, {path.stat().st_size:,} bytes")
    print(f'Next: set TEXT = "{text}" at the top of 01_bpe.py, then: python 01_bpe.py')


if __name__ == "__main__":
    bpe.run_stage(main, "lessons/tinystories.py", lock=False)
