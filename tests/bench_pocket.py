"""Is the page the model, and how fast? All comparisons of test_pocket.py in full size.

    python tests/bench_pocket.py             the model in artifacts/, after 06_sample.py
    python tests/bench_pocket.py FOLDER      the model in FOLDER/artifacts/

Run by hand, never by pytest. Compares logits at every position of 50 stories, 20 greedy
and 20 sampled stories, and the ids of 20,000 random strings. Then it measures the page
in headless Chromium: this model, and a random one of SIZE "tiny" with 8,192 tokens.
"""

import importlib
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
import unicodedata
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / name) for name in ("tests", "lessons", "lessons/quests")]
import test_pocket as checks  # noqa: E402
from test_01_bpe import random_string  # noqa: E402

bpe = importlib.import_module("01_bpe")
gpt = importlib.import_module("03_model")
pocket = importlib.import_module("pocket")

# The first story warms the browser up; the others are measured.
STORIES = 4
SPEED = """
<script>addEventListener("load", async () => {
  const quiet = () => new Promise((done) => {
    const check = () => $("stop").disabled ? done() : setTimeout(check, 5);
    check();
  });
  const first = [];
  $("length").value = 200;
  let tokens = 0, seconds = 0;
  for (let i = 0; i < COUNT; i++) {
    $("seed").value = i;
    const started = performance.now();
    const seen = new Promise((done) => new MutationObserver((_, self) => {
      if (!document.querySelector(".token:not(.given)")) return;
      self.disconnect();
      requestAnimationFrame(() => done(performance.now() - started));
    }).observe($("story"), { childList: true }));
    $("go").click();
    first.push(Math.round(await seen));
    await quiet();
    if (i) {
      seconds += (performance.now() - started) / 1000;
      tokens += ids.length - given;
    }
  }
  const answer = { first, speed: Math.round(tokens / seconds) };
  console.log("ANSWER" + JSON.stringify(answer) + "END");
});</script></body>"""


def speed(page, folder):
    """Milliseconds to the first token of each story, and tokens per second."""
    head, tail = page.read_text("utf-8").rsplit("</body>", 1)
    changed = folder / "speed.html"
    changed.write_text(head + SPEED.replace("COUNT", str(STORIES)) + tail, "utf-8")
    flags = [f for f in checks.FLAGS if "virtual" not in f and f != "--dump-dom"]
    flags += ["--remote-debugging-port=0", f"--user-data-dir={folder / 'profile'}"]
    with subprocess.Popen(
        [checks.CHROMIUM, *flags, changed.as_uri()], stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr:
            if "ANSWER" in line:
                process.kill()
                return json.loads(line.split("ANSWER")[1].split("END")[0])


def random_tiny():
    """A page's worth of SIZE "tiny": 10 million weights, and 8,192 tokens."""
    pairs = itertools.islice(itertools.product(range(4, 260), repeat=2), 8192 - 260)
    n_layer, n_head, n_embd, block_size = gpt.SIZES["tiny"]
    sizes = {"n_layer": n_layer, "n_head": n_head, "n_embd": n_embd}
    sizes |= {"block_size": block_size, "vocab_size": 8192}
    return checks.lively(gpt, **sizes), bpe.Tokenizer(list(pairs))


def main():
    source = Path(sys.argv[1] if sys.argv[1:] else ROOT).resolve() / "artifacts"
    tokenizer = bpe.Tokenizer.load(source / "01_bpe/tokenizer.json")
    model = gpt.GPT.load(source / "04_train/best.pt", "04_train.py")[0].eval()
    valid = np.fromfile(source / "02_prepare/valid.bin", "<u2").tolist()
    starts = [i for i, token in enumerate(valid) if token == bpe.BOS]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        page, small = checks.write_page(bpe, pocket, model, tokenizer, folder)
        print(f"the page: {page.stat().st_size:,} bytes")
        prompts = [valid[i : i + model.config.block_size] for i in starts[:50]]
        largest, same = checks.compare_logits(page, small, prompts, folder)
        count = sum(map(len, prompts))
        print(f"logits, 50 stories, {count:,} positions: they differ by", end=" ")
        print(f"{largest:.2g} at most; the same likeliest token everywhere: {bool(same)}")
        for settings in (checks.PLAIN | {"temperature": 0.0}, checks.SETTINGS[-1]):
            wanted = [[valid[i : i + 5], 400, settings, i] for i in starts[:20]]
            pairs = checks.compare_stories(page, small, wanted, folder)
            equal = sum(theirs == ours for theirs, ours in pairs)
            tokens = sum(len(ours) for _, ours in pairs)
            print(f"stories, {settings}: {equal} of 20 equal ({tokens:,} tokens)")
        characters = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000]
        known = [c for c in characters if unicodedata.category(c) not in ("Cn", "Co")]
        rng = random.Random(4)  # the strings of test_01_bpe.py
        strings = [random_string(rng, known) for _ in range(20_000)]
        script = "return given.map((text) => tokenizer.encode(text));"
        theirs = checks.in_node(page, script, strings, folder)
        equal = sum(map(list.__eq__, theirs, map(tokenizer.encode, strings)))
        print(f"ids of random strings: {equal:,} of {len(strings):,} equal")
        print("in Chromium: milliseconds to the first token shown, tokens per second")
        print(f"  this model: {speed(page, folder)}")
        time.sleep(1)
        page, _ = checks.write_page(bpe, pocket, *random_tiny(), folder)
        print(f"  tiny, {page.stat().st_size:,} bytes: {speed(page, folder)}")


if __name__ == "__main__":
    main()
