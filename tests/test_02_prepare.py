"""Stage 2: clean, split, and encoded stories; and its answers to mistakes."""
import doctest
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from conftest import Workshop

OUT = "artifacts/02_prepare"
FILES = ["meta.json", "train.bin", "valid.bin"]


@pytest.fixture(scope="session")
def prepare():
    return importlib.import_module("02_prepare")


@pytest.fixture(scope="module")
def stories(small_text):
    return [story.strip() for story in small_text.split("<|endoftext|>")[:-1]]


@pytest.fixture(scope="module")
def tokenizer(bpe, prepared):
    return bpe.Tokenizer.load(prepared / "artifacts/01_bpe/tokenizer.json")


@pytest.fixture
def copied(prepared, tmp_path):
    """A copy of `prepared` that a test may spoil."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    return Workshop(tmp_path, copy=False)


def write_text(path, stories, separator="\n<|endoftext|>\n"):
    path.write_bytes(separator.join(stories).encode())


def contents(folder):
    """Every file below the folder and its bytes: to see that nothing was touched."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def test_the_examples_in_the_docstrings_are_true(prepare):
    outcome = doctest.testmod(prepare)
    assert outcome.attempted >= 8 and outcome.failed == 0


# --------------------------------------------------------------------------- the files


def read_back(tokenizer, folder, name):
    """Stories of train.bin or valid.bin, decoded; checks the frame <BOS> ... <EOS>."""
    ids = np.fromfile(folder / OUT / f"{name}.bin", dtype="<u2")
    starts, ends = np.flatnonzero(ids == 2), np.flatnonzero(ids == 3)
    assert len(starts) == len(ends) and starts[0] == 0 and ends[-1] == len(ids) - 1
    assert (starts[1:] == ends[:-1] + 1).all()  # nothing stands between two stories
    assert ids.max() < len(tokenizer)
    stories = [ids[a + 1 : b].tolist() for a, b in zip(starts, ends)]
    return [tokenizer.decode(story) for story in stories], ids


def test_the_files_hold_every_story_once_in_its_order(tokenizer, prepared, stories):
    train, _ = read_back(tokenizer, prepared, "train")
    valid, _ = read_back(tokenizer, prepared, "valid")
    assert len(train) == 540 and len(valid) == 60  # VALID_SHARE = 0.1 of 600
    held_out = set(valid)
    assert train == [story for story in stories if story not in held_out]
    assert valid == [story for story in stories if story in held_out]


def test_meta_json_tells_the_truth(tokenizer, prepared):
    folder = prepared / "artifacts"
    meta = json.loads((folder / "02_prepare/meta.json").read_text())
    tokenizer_json = (folder / "01_bpe/tokenizer.json").read_bytes()
    assert meta["vocab_size"] == len(tokenizer)
    assert meta["constants"] == {"TEXT": "text.txt", "VALID_SHARE": 0.1}
    assert meta["tokenizer"] == hashlib.sha256(tokenizer_json).hexdigest()
    for name in ("train", "valid"):
        decoded, ids = read_back(tokenizer, prepared, name)
        raw = (folder / f"02_prepare/{name}.bin").read_bytes()
        assert meta[name] == {
            "stories": len(decoded),
            "tokens": len(ids),
            "bytes": sum(len(story.encode()) for story in decoded),
            "words": sum(len(story.split()) for story in decoded),
            "sha256": hashlib.sha256(raw).hexdigest(),
        }


def test_the_files_are_the_same_for_every_number_of_workers_and_ranges(copied):
    before = contents(copied.folder / OUT)
    first = copied.folder / "01_bpe.py"
    code = first.read_text("utf-8")
    assert code.count(" 8 * 2**20") == 1  # bytes of a task
    first.write_text(code.replace(" 8 * 2**20", " 60_000"), "utf-8")
    copied.edit("02_prepare.py", WORKERS=2)  # `before` is of one worker and one range
    done = copied.run("02_prepare.py")
    assert done.returncode == 0, done.stderr
    assert contents(copied.folder / OUT) == before
    assert "[plan] 8 part(s) of the text, 2 process(es)" in done.stdout
    meta = json.loads(before["meta.json"])
    beats = ["[read]", "[plan]", "[check]", f"{meta['train']['tokens']:,}", "[wrote]",
             "Next: python 03_model.py"]  # fmt: skip
    positions = [done.stdout.index(beat) for beat in beats]
    assert positions == sorted(positions)


def test_a_validation_part_of_the_text_is_used_and_nothing_else(
    in_process, copied, tokenizer, stories
):
    extra = [f"{story} That was number {i}." for i, story in enumerate(stories[:30])]
    # Two stories of the validation file are also training stories: they must go.
    write_text(copied.folder / "valid.txt", [*extra, stories[3], stories[5]])
    path = copied.folder / "artifacts/01_bpe/meta.json"
    meta = json.loads(path.read_text())
    sha256 = hashlib.sha256((copied.folder / "valid.txt").read_bytes()).hexdigest()
    meta["text"]["valid"] = {"path": "valid.txt", "sha256": sha256}
    path.write_text(json.dumps(meta))
    out = in_process("02_prepare.py")
    assert read_back(tokenizer, copied.folder, "train")[0] == stories
    assert read_back(tokenizer, copied.folder, "valid")[0] == extra
    assert "[check] duplicates, dropped: 2 stories\n" in out


# ---------------------------------------------------------------------------- encoding

WHITESPACE = [" ", " ", "\n", "  ", " \n", "\n\n ", "\t", "\xa0", " \u3000", "\x1c"]
WORDS = ["the", "dog's", "don't", "a1b22", "Ünï", "漢字、かな", "👩‍👧", "...", '"Oh!"', "\0"]


def test_the_encoder_writes_what_frame_gives(prepare, tokenizer):
    encoder, rng = prepare.Encoder(tokenizer), random.Random(9)
    for _ in range(1000):
        parts = [rng.choice(rng.choice([WORDS, WHITESPACE])) for _ in range(12)]
        story = "".join(parts)
        wanted = prepare.to_bytes(prepare.frame([story], tokenizer.encode))
        assert encoder.encode(story) == wanted, repr(story)


def test_clearing_the_cache_changes_nothing(prepare, tokenizer, stories, monkeypatch):
    wanted = prepare.to_bytes(prepare.frame(stories, tokenizer.encode))
    monkeypatch.setattr(prepare, "MAX_CACHED", 50)
    encoder = prepare.Encoder(tokenizer)
    assert b"".join(map(encoder.encode, stories)) == wanted
    assert len(encoder) <= 50


def test_a_long_word_is_encoded_but_not_remembered(prepare, tokenizer):
    encoder = prepare.Encoder(tokenizer)
    dna = "".join(random.Random(0).choices("ACGT", k=50_000))
    ids = np.frombuffer(encoder.encode(f"So: {dna} end."), dtype="<u2").tolist()
    assert tokenizer.decode(ids[1:-1]) == f"So: {dna} end."
    assert max(map(len, encoder)) < 10


def test_an_edit_that_breaks_the_fast_way_is_noticed(prepare, tokenizer, monkeypatch):
    prepare.check_encoder(tokenizer, ["Once upon a time.", "The end."])
    wrong = lambda self, word: prepare.to_bytes(self.tokenizer.encode(word))  # no space
    monkeypatch.setattr(prepare.Encoder, "__missing__", wrong)
    with pytest.raises(SystemExit, match="does not write what frame"):
        prepare.check_encoder(tokenizer, ["Once upon a time."])


# ---------------------------------------------------------------------------- cleaning

DIRT = {  # what is wrong -> (before, after, {note: how often})
    "nothing": ("All is well.", "All is well.", {}),
    "blank lines around it": (" \n\nAll is well.\t\n\n", "All is well.", {}),
    "indentation": ("\n    if x:\n        f()\n", "    if x:\n        f()", {}),
    "apostrophe": ("Itâ€™s late.", "It’s late.", {"mojibake fixed": 1}),
    "quotes": ("â€œNo,â€\x9d she said.", "“No,” she said.", {"mojibake fixed": 1}),
    "dash": ("A dog â€“ a big one.", "A dog – a big one.", {"mojibake fixed": 1}),
    "letter": ("A cafÃ©.", "A café.", {"mojibake fixed": 1}),
    "no-break space": ("OneÂ\xa0day.", "One\xa0day.", {"mojibake fixed": 1}),
    "emoji": ("Yes ðŸ˜€!", "Yes 😀!", {"mojibake fixed": 1}),
    "bell": ("Ding\x07 dong.", "Ding dong.", {"stray control characters removed": 1}),
    "zero-width": ("\u200bHi.\ufeff", "Hi.", {"stray control characters removed": 1}),
    "only whitespace": ("\x00 \n", None, {
        "stray control characters removed": 1, "empty, dropped": 1}),
    "no end": ("And then the", None, {"broken off, dropped": 1}),
    "line separator": ("One.\u2028Two.", "One.\nTwo.", {"line separators replaced": 1}),
    # These look like dirt but are not:
    "German": ("„Das macht Spaß“.", "„Das macht Spaß“.", {}),
    "French": ("LIBERTÉ\xa0! À l’été.", "LIBERTÉ\xa0! À l’été.", {}),
    "Portuguese": ("Ã é til.", "Ã é til.", {}),
    "family": ("Hi 👩‍👧.", "Hi 👩‍👧.", {}),
    "Persian": ("می\u200cخواهم.", "می\u200cخواهم.", {}),
    "tab and line end": ("A\tb\nc.", "A\tb\nc.", {}),
}  # fmt: skip


@pytest.mark.parametrize("what", DIRT)
def test_each_kind_of_dirt_is_fixed_or_dropped_and_counted(prepare, what):
    before, after, wanted = DIRT[what]
    notes = {}
    assert prepare.clean(before, notes, drop_broken=True) == after
    assert {what: count for what, (count, _) in notes.items()} == wanted
    if after is not None:  # clean stories stay as they are
        again = {}
        assert prepare.clean(after, again, drop_broken=True) == after and again == {}


WHOLE = [
    "They slept.", "Did they?", "Yes!", "And so…", 'He said, "Yes."', "‘Yes.’", "So *:",
    "Sie sagte: „Gute Nacht.“", "Er rief: »Halt!«", "Er schlief (endlich)",  # German
    "Elle dit : « Bonne nuit. »", "[Rideau]", "—¡Buenas noches!",  # French, Spanish
    "从此他们过着幸福的生活。", "她说：“晚安。”", "他说：「晚安」", "「おやすみ」",  # Chinese, Japanese
    "هل انتهت القصة؟", "وناموا۔", "और वे सो गए।", "और वे सो गए॥",  # Arabic, Urdu, Hindi
    "და დაიძინეს.", "Եվ նրանք քնեցին։", "အိပ်ပျော်သွားသည်။",  # Georgian ...
    "แล้วพวกเขาก็หลับไป", "แล้วเขาก็หลับไปนานๆ", "ແລ້ວກໍ່ນອນຫລັບ",  # Thai, Lao: no mark
    "Good night 😀", "Love ❤️", "Family 👩‍👩‍👧", "Wave 👋🏽", "Flag 🇩🇪", "Scotland 🏴󠁧󠁢󠁳󠁣󠁴󠁿",
    "Press 3️⃣", "New emoji \U0001fae9", "Bye :)", "_The end_", "return {}", "x = f(y)",
    "And they slept.\n\nThe End", "Sie schliefen.\nENDE", "他们睡了。\n完",
    "Zasnęli.\nKoniec", "They slept.\n   — The End —", "Κοιμήθηκαν.\nΤΈΛΟΣ",
    "They slept.¹", "They slept.²³", "They slept.①",  # a note of the publisher's
]  # fmt: skip
BROKEN = [
    "And then the", "He was 5", "And then,", "Then -", "Then —", "She said (", "Und „",
    "他说，", "他说、", "他说", "ثم قال،", "और फिर", "Und dann fand er die schöne Müll",
    "She was happy.\nThe", "They met the end", "Café", "e\u0301", "He paid 3½",
]  # fmt: skip


@pytest.mark.parametrize("story", WHOLE)
def test_a_story_is_kept_whose_end_is_an_end_in_its_language(prepare, story):
    assert prepare.is_whole(story)


@pytest.mark.parametrize("story", BROKEN)
def test_a_story_that_ends_in_the_middle_of_a_sentence_is_broken_off(prepare, story):
    assert not prepare.is_whole(story)


def test_what_was_cleaned_is_printed_with_an_example(
    in_process, copied, tokenizer, stories
):
    dirty = [*stories, stories[0], "And so the", "\x01 \x02"]
    dirty += ["“Gute Nacht.“ 😀", "iPhone slept.", "so she slept."]
    dirty[7] = dirty[7].replace(" the ", " the\x07 ", 1)
    dirty[8] = dirty[8] + " Itâ€™s over."
    write_text(copied.folder / "other.txt", dirty)
    out = in_process("02_prepare.py", TEXT="other.txt")
    for line in (
        "broken off, dropped: 1 story\n        for example 'And so the'",
        "empty, dropped: 1 story\n        for example '\\x01 \\x02'",
        "mojibake fixed: 1 story",
        "stray control characters removed: 2 stories",
        "duplicates, dropped: 1 story\n",
    ):
        assert f"[check] {line}" in out, out
    kept = [read_back(tokenizer, copied.folder, name)[0] for name in ("train", "valid")]
    assert set(dirty[-3:]) < set(sum(kept, []))


@pytest.mark.parametrize(
    "stories, drop",
    [
        (["A dog.", "Yes!", '"No."'] * 5, True),
        (["roses are red", "A dog."] * 5, False),  # poems
        (["eggs", "milk", "bread"] * 5, False),  # lists
        (["def f(x):\n    return x", "import re"] * 5, False),  # code
        (["แล้วพวกเขาก็หลับไป"] * 10, True),  # Thai
    ],
)
def test_poems_and_lists_are_not_dropped_for_lack_of_periods(
    prepare, bpe, tmp_path, capsys, stories, drop
):
    write_text(tmp_path / "text.txt", stories)
    [task] = prepare.plan_tasks({"train": tmp_path / "text.txt"})
    assert task[2] == drop
    assert ("we keep them all" in capsys.readouterr().out) == (not drop)
    assert prepare.clean("roses are red", {}, drop_broken=False) == "roses are red"


# --------------------------------------------------------------------------- splitting


def test_of_equal_stories_one_stays_and_none_is_on_both_sides(prepare):
    rng = np.random.default_rng(0)
    prints = rng.integers(0, 500, 2000).astype("<u8")  # every story about four times
    train, valid = prepare.choose(prints, np.zeros(2000, dtype=bool), 0.1)
    assert not (train & valid).any()
    assert sorted(prints[train | valid]) == sorted(set(prints))
    assert valid.sum() == round(0.1 * len(set(prints)))


def test_a_new_story_moves_at_most_one_other_to_the_other_side(prepare):
    # Held out are the 50 smallest fingerprints: a new one among them displaces one.
    rng = np.random.default_rng(1)
    prints = rng.integers(0, 2**63, 1001).astype("<u8")
    none = np.zeros(1001, dtype=bool)
    _, before = prepare.choose(prints[:1000], none[:1000], 0.05)
    for new, moved in (2**63, 0), (0, 1):  # larger than all, smaller than all
        prints[-1] = new
        _, after = prepare.choose(prints, none, 0.05)
        assert (before != after[:1000]).sum() == moved


def test_the_share_is_met_and_at_least_one_story_is_held_out(prepare):
    prints = np.arange(100, dtype="<u8")
    none = np.zeros(100, dtype=bool)
    for share, wanted in [(0.001, 1), (0.05, 5), (0.5, 50)]:
        assert prepare.choose(prints, none, share)[1].sum() == wanted


# ----------------------------------------------------------------------------- showing


@pytest.mark.parametrize(
    "lengths",
    [[5, 15, 15, 95, 1000], [3] * 40, [3], [200] * 30 + [3_000_000], [2_000_000] * 3],
)
def test_the_histogram_counts_every_story(prepare, lengths):
    lines = list(prepare.histogram(np.array(lengths, dtype=np.int32)))
    counts = [int(line.split()[2].replace(",", "")) for line in lines]
    assert sum(counts) == len(lengths) and len(lines) <= 11
    assert len({line.index(" tokens ") for line in lines}) == 1  # in straight columns
    assert max(line.count("#") for line in lines) == 50


def test_stories_of_one_token_and_huge_ones_are_in_the_files(
    in_process, copied, tokenizer
):
    letters = [chr(ord("!") + i) for i in range(90)]
    write_text(copied.folder / "other.txt", [*letters, "A very long story. " * 20_000])
    in_process("02_prepare.py", TEXT="other.txt")
    kept = [read_back(tokenizer, copied.folder, name)[0] for name in ("train", "valid")]
    assert Counter(len(story) == 1 for story in sum(kept, [])) == {True: 90, False: 1}


# ------------------------------------------------------------------- mistakes of people


@pytest.mark.parametrize(
    "name, value",
    [("VALID_SHARE", 0), ("VALID_SHARE", 0.6), ("VALID_SHARE", "5%"),
     ("VALID_SHARE", float("nan")), ("WORKERS", 1.5), ("WORKERS", None)],
)  # fmt: skip
def test_a_constant_that_cannot_be_used_is_named(prepare, monkeypatch, name, value):
    monkeypatch.setattr(prepare, name, value)
    with pytest.raises(SystemExit, match=f"{name} = "):
        prepare.check_inputs()


MARK, BLANK = r"<\|endoftext\|>", "\n\n"  # what separates the stories


def split_of(train, valid, duplicates, tokens):
    """Arguments of check_split: so many stories, each of so many tokens."""
    order = np.repeat([0, 1, 2], [train, valid, duplicates])
    return order == 0, order == 1, [np.full((len(order), 3), tokens)]


@pytest.mark.parametrize(
    "separator, text, train, valid, duplicates, tokens, cure",
    [
        (MARK, "One. " * 99, 9, 1, 0, 200, "Put a line <|endoftext|>"),
        (MARK, "One. " * 99, 1, 0, 0, 9_000, "Put a line <|endoftext|>"),
        (BLANK, "A long line. " * 99, 9, 1, 0, 9_000, "Put a line <|endoftext|>"),
        (BLANK, "anna\nben\n" * 99, 1, 1, 0, 9_000, "sed G "),  # one name per line
        (MARK, "One. " * 99, 5, 1, 300, 200, "Add stories that differ"),
        (MARK, "One. " * 99, 500, 0, 10, 200, "Add stories that differ"),
        (MARK, "One. " * 99, 0, 0, 0, 200, "Put a line <|endoftext|>"),
    ],
)
def test_too_few_stories_are_refused_with_the_cure_that_fits(
    prepare, tmp_path, separator, text, train, valid, duplicates, tokens, cure
):
    path = tmp_path / "my text.txt"
    path.write_text(text)
    split = split_of(train, valid, duplicates, tokens)
    with pytest.raises(SystemExit) as stopped:
        prepare.check_split(*split, (path, separator, 0, 9))
    lines = str(stopped.value).splitlines()
    assert len(lines) == 3 and cure in lines[2] and "then: python 01_bpe.py" in lines[2]
    # Only sed needs the path, and its spaces must not end an argument of the shell.
    assert (f" '{path}' " in lines[2]) == (cure == "sed G ")


def test_twenty_stories_or_a_few_long_documents_are_enough(prepare, tmp_path):
    prepare.check_split(*split_of(19, 1, 0, 9), (tmp_path, BLANK, 0, 9))
    prepare.check_split(*split_of(5, 1, 0, 9_000), (tmp_path, MARK, 0, 9))


def test_a_refused_text_leaves_the_files_of_the_last_run(in_process, copied, stories):
    before = contents(copied.folder / "artifacts")
    few = [" ".join(stories[:10]), *stories[10:20]]
    write_text(copied.folder / "other.txt", few)
    with pytest.raises(SystemExit, match="Only 10 stories to train on and 1 for valid"):
        in_process("02_prepare.py", TEXT="other.txt")
    assert contents(copied.folder / "artifacts") == before


def test_artifacts_that_do_not_belong_together_are_refused(
    prepare, prepared, tmp_path, monkeypatch
):
    for name in ("tokenizer.json", "meta.json"):
        shutil.copy(prepared / "artifacts/01_bpe" / name, tmp_path)
    shutil.copy(prepared / "text.txt", tmp_path)
    monkeypatch.setattr(prepare.bpe, "HERE", tmp_path)
    monkeypatch.setattr(prepare.bpe, "OUT", tmp_path)
    prepare.check_inputs()
    tokenizer, meta, text = (
        tmp_path / name for name in ("tokenizer.json", "meta.json", "text.txt")
    )
    whole = {path: path.read_bytes() for path in (tokenizer, meta, text)}
    content = json.loads(whole[meta])
    other_format = json.dumps(content | {"format": "01_bpe/0"}).encode()
    no_text = json.dumps(content | {"text": ["text.txt"]}).encode()
    for path, data, words in [
        (tokenizer, whole[tokenizer] + b"\n", "was made with another tokenizer"),
        (tokenizer, whole[tokenizer][:3000], "is damaged"),
        (meta, whole[meta][:50], "cannot be used"),
        (meta, b"[1, 2]", "cannot be used"),
        (meta, other_format, "Its format is '01_bpe/0'"),
        (meta, b'{"format": "01_bpe/1"}', "was made with another tokenizer"),
        (meta, no_text, "does not say which text"),
        (text, whole[text] + b" One more.", "text.txt has changed since stage 1 ran"),
        (text, None, "text.txt is missing"),
        (meta, None, "meta.json is missing"),
    ]:
        path.unlink() if data is None else path.write_bytes(data)
        with pytest.raises(SystemExit, match=words) as stopped:
            prepare.check_inputs()
        lines = str(stopped.value).splitlines()
        assert len(lines) == 3 and lines[-1] == "python 01_bpe.py"
        path.write_bytes(whole[path])


# ------------------------------------------------- a full disk, Ctrl-C, other accidents


@pytest.mark.parametrize("script", ["01_bpe.py", "02_prepare.py"])
def test_a_full_disk_leaves_the_old_files(in_process, copied, bpe, monkeypatch, script):
    """The system refuses every file above 4 kB, as a full disk would."""
    resource = pytest.importorskip("resource")
    before = contents(copied.folder / "artifacts")
    monkeypatch.setattr(bpe, "TEXT", "text.txt")
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(SystemExit, match="The disk is full"):
            in_process(script)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert contents(copied.folder / "artifacts") == before


@pytest.fixture
def waiting(copied):
    """A run of stage 2 that waits, in the middle of encoding, for a line of input."""
    path = copied.folder / "02_prepare.py"
    code = path.read_text("utf-8")
    line = "            ids = encoder.encode(story)\n"
    wait = """            if len(sizes) == 300:
                print("waiting", flush=True)
                __import__('sys').stdin.readline()
"""
    assert code.count(line) == 1
    path.write_text(code.replace(line, wait + line), "utf-8")
    process = subprocess.Popen(
        [sys.executable, "02_prepare.py"], cwd=copied.folder, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert any(line == "waiting\n" for line in process.stdout)
    yield process
    process.kill()
    process.communicate()


def test_ctrl_c_leaves_the_old_files_and_says_how_to_continue(copied, waiting):
    before = contents(copied.folder / "artifacts")
    before = {path: data for path, data in before.items() if ".part" not in path}
    waiting.send_signal(signal.SIGINT)
    errors = waiting.communicate()[1]
    assert waiting.returncode == 1 and "Traceback" not in errors, errors
    assert "Stopped by Ctrl-C." in errors
    assert errors.endswith("Run again: python 02_prepare.py\n")
    assert contents(copied.folder / "artifacts") == before


def test_a_second_run_is_refused_and_a_killed_one_blocks_nothing(
    in_process, copied, waiting
):
    copied.refuses("02_prepare.py", "Another 02_prepare.py is running in this folder")
    # And what a killed run has left behind is swept away by the next one.
    waiting.kill()
    waiting.wait()
    assert list((copied.folder / OUT).glob("*.part"))
    in_process("02_prepare.py")
    assert sorted(os.listdir(copied.folder / OUT)) == FILES
