"""Stage 2: clean, split and encoded stories; and what both stages say to mistakes."""

import errno
import hashlib
import importlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import practice_stories
import pytest
import regex
import texts
from conftest import Workshop
from test_01_bpe import BLANKS, random_string

PREPARED = ["train.bin", "valid.bin", "meta.json"]


@pytest.fixture(scope="session")
def prepare():
    return importlib.import_module("02_prepare")


@pytest.fixture(scope="module")
def stories():
    return list(practice_stories.stories(400, seed=11))


def write_text(path, stories, separator="\n<|endoftext|>\n"):
    path.write_bytes(separator.join(stories).encode())
    return str(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, stories):
    """A workshop in which stages 1 and 2 have run on 400 stories; do not change it."""
    shop = Workshop(tmp_path_factory.mktemp("finished"))
    write_text(shop.folder / "mine.txt", stories)
    shop.edit("01_bpe.py", TEXT="mine.txt", VOCAB_SIZE=600)
    for script in ("01_bpe.py", "02_prepare.py"):
        done = shop.run(script)
        assert done.returncode == 0, done.stderr
        shop.printed = getattr(shop, "printed", "") + done.stdout
    return shop


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of `finished` that a test may spoil."""
    subprocess.run(["cp", "-r", f"{finished.folder}/.", str(tmp_path)], check=True)
    shop = Workshop.__new__(Workshop)
    shop.folder = tmp_path
    return shop


def contents(folder):
    """Every file below the folder and its bytes: to see that nothing was touched."""
    return {
        path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


# --------------------------------------------------------------------------- the files


def read_back(bpe, shop, name):
    """Stories of train.bin or valid.bin, decoded; checks the frame <BOS> ... <EOS>."""
    tokenizer = bpe.Tokenizer.load(shop.folder / "artifacts/01_bpe/tokenizer.json")
    ids = np.fromfile(shop.folder / "artifacts/02_prepare" / name, dtype="<u2")
    starts, ends = np.flatnonzero(ids == 2), np.flatnonzero(ids == 3)
    assert len(starts) == len(ends) and starts[0] == 0 and ends[-1] == len(ids) - 1
    assert (starts[1:] == ends[:-1] + 1).all()  # nothing stands between two stories
    assert ids.max() < len(tokenizer)
    return [
        tokenizer.decode(ids[a + 1 : b].tolist()) for a, b in zip(starts, ends)
    ], ids


def test_the_files_hold_every_story_once_in_its_order(bpe, finished, stories):
    train, _ = read_back(bpe, finished, "train.bin")
    valid, _ = read_back(bpe, finished, "valid.bin")
    assert len(train) == 380 and len(valid) == 20  # VALID_SHARE = 0.05
    chosen = set(valid)
    assert [story for story in stories if story not in chosen] == train
    assert [story for story in stories if story in chosen] == valid


def test_meta_json_tells_the_truth(bpe, finished):
    folder = finished.folder / "artifacts"
    meta = json.loads((folder / "02_prepare/meta.json").read_text())
    first = json.loads((folder / "01_bpe/meta.json").read_text())
    tokenizer_json = (folder / "01_bpe/tokenizer.json").read_bytes()
    assert meta["vocab_size"] == 600
    assert meta["constants"]["TEXT"] == first["constants"]["TEXT"]
    assert meta["tokenizer"] == hashlib.sha256(tokenizer_json).hexdigest()
    for name in ("train", "valid"):
        decoded, ids = read_back(bpe, finished, f"{name}.bin")
        told, raw = meta[name], (folder / f"02_prepare/{name}.bin").read_bytes()
        assert told["stories"] == len(decoded) and told["tokens"] == len(ids)
        assert told["bytes"] == sum(len(story.encode()) for story in decoded)
        assert told["words"] == sum(len(story.split()) for story in decoded)
        assert told["sha256"] == hashlib.sha256(raw).hexdigest()


def test_what_is_printed_can_be_checked(finished):
    meta = json.loads((finished.folder / "artifacts/02_prepare/meta.json").read_text())
    assert f"{meta['train']['tokens']:,}" in finished.printed
    assert (
        "[check] decoding gives the story back, letter by letter: True"
        in finished.printed
    )
    assert "Next: python 03_model.py" in finished.printed
    beats = ["[read]", "[plan]", "[start]", "[check]", "[wrote]", "Next:"]
    places = [finished.printed.index(beat) for beat in beats]
    assert places == sorted(places)


def test_the_files_are_the_same_for_every_number_of_workers(
    prepare, stories, tmp_path, monkeypatch, bpe, capsys
):
    tokenizer, _ = bpe.train(bpe.count_text(tasks_of(stories, tmp_path), 1), 500, 2)
    made = []
    for workers in (1, 2, 3):
        run_here(prepare, bpe, tokenizer, tmp_path, monkeypatch, workers)
        made.append(list(contents(tmp_path / "out").values()))
        assert sorted(os.listdir(tmp_path / "out")) == sorted(PREPARED)
    assert made[0] == made[1] == made[2]


def tasks_of(stories, tmp_path):
    write_text(tmp_path / "text.txt", stories)
    return texts.tasks(tmp_path / "text.txt")


def run_here(prepare, bpe, tokenizer, tmp_path, monkeypatch, workers):
    """Run stage 2 in this process on tmp_path/text.txt, cut into many ranges."""
    (tmp_path / "in").mkdir(exist_ok=True)
    (tmp_path / "in/tokenizer.json").write_text(tokenizer.to_json(), "utf-8")
    sha256 = prepare.sha256_of(tmp_path / "in/tokenizer.json")
    text = {"path": str(tmp_path / "text.txt")}
    text["sha256"] = prepare.sha256_of(tmp_path / "text.txt")
    meta = {"format": bpe.FORMAT, "tokenizer": sha256, "text": {"train": text}}
    meta["constants"] = {"TEXT": text["path"]}
    (tmp_path / "in/meta.json").write_text(json.dumps(meta))
    monkeypatch.setattr(prepare, "IN", tmp_path / "in")
    monkeypatch.setattr(prepare, "OUT", tmp_path / "out")
    monkeypatch.setattr(prepare, "WORKERS", workers)
    monkeypatch.setattr(texts, "RANGE", 60_000)
    prepare.main()


def test_forgetting_encoded_chunks_changes_nothing(
    prepare, bpe, stories, tmp_path, monkeypatch, capsys
):
    tokenizer, _ = bpe.train(bpe.count_text(tasks_of(stories, tmp_path), 1), 500, 2)
    monkeypatch.setattr(prepare, "REMEMBERED", 50)
    monkeypatch.setattr(prepare, "encoder", None)
    run_here(prepare, bpe, tokenizer, tmp_path, monkeypatch, 1)
    monkeypatch.setattr(prepare, "encoder", None)
    ids = np.fromfile(tmp_path / "out/train.bin", dtype="<u2").tolist()
    first = ids[1 : ids.index(3)]
    assert first == tokenizer.encode(tokenizer.decode(first))


def test_stories_looked_up_word_by_word_get_the_ids_of_the_tokenizer(
    prepare, bpe, stories
):
    found = regex.findall(bpe.GPT2_PATTERN, " ".join(stories))
    tokenizer, _ = bpe.train(Counter(found), 500, 2)
    encoder, rng, whole = prepare.Encoder(tokenizer), random.Random(9), 0
    for i in range(20_000):
        blanks = BLANKS if i % 2 else [" ", "\n", " ", "\n\n"]
        story = random_string(rng, None, blanks).strip()
        wanted = np.array(tokenizer.encode(story), dtype="<u2").tobytes()
        assert encoder.encode(story) == wanted, repr(story)
        whole += any(not w or w[0].isspace() for w in story.split(" ")[1:])
    assert 2000 < whole < 18_000  # both ways were taken often
    # What two blanks spoil is not remembered, or the next story would be cut there.
    assert not any(word == "" or word[0].isspace() for word in encoder)


def test_a_validation_part_of_the_text_itself_is_used_and_nothing_else(
    copied, bpe, stories
):
    extra = list(practice_stories.stories(40, seed=99))
    # Two stories of the validation text are also training stories: they must go.
    write_text(copied.folder / "valid.txt", [*extra, stories[3], stories[5]])
    path = copied.folder / "artifacts/01_bpe/meta.json"
    meta = json.loads(path.read_text())
    sha256 = hashlib.sha256((copied.folder / "valid.txt").read_bytes()).hexdigest()
    meta["text"]["valid"] = {"path": "valid.txt", "sha256": sha256}
    path.write_text(json.dumps(meta))
    done = copied.run("02_prepare.py")
    assert done.returncode == 0, done.stderr
    assert read_back(bpe, copied, "train.bin")[0] == stories
    assert read_back(bpe, copied, "valid.bin")[0] == extra
    assert "told before, dropped: 2" in done.stdout


# ---------------------------------------------------------------------------- cleaning

DIRT = {  # what is wrong -> (before, after, note)
    "nothing": ("All is well.", "All is well.", {}),
    "blanks around it": (" \n All is well.\t\n", "All is well.", {}),
    "apostrophe": ("Itâ€™s late.", "It’s late.", {"mojibake mended": 1}),
    "quotes": ("â€œNo,â€\x9d she said.", "“No,” she said.", {"mojibake mended": 1}),
    "dash": ("A dog â€“ a big one.", "A dog – a big one.", {"mojibake mended": 1}),
    "letter": ("A cafÃ©.", "A café.", {"mojibake mended": 1}),
    "hard blank": ("OneÂ\xa0day.", "One\xa0day.", {"mojibake mended": 1}),
    "emoji": ("Yes ðŸ˜€!", "Yes 😀!", {"mojibake mended": 1}),
    "bell": ("Ding\x07 dong.", "Ding dong.", {"stray control characters removed": 1}),
    "zero-width": ("\u200bHi.\ufeff", "Hi.", {"stray control characters removed": 1}),
    "only blanks": ("\x00 \n", None, {
        "stray control characters removed": 1, "empty, dropped": 1}),
    "no end": ("And then the", None, {"broken off, dropped": 1}),
    "no beginning": ("and then he slept.", None, {"broken off, dropped": 1}),
    "line separator": ("One.\u2028Two.", "One.\nTwo.", {"line separators replaced": 1}),
    # These look like dirt and are none:
    "German": ("„Das macht Spaß“.", "„Das macht Spaß“.", {}),
    "French": ("LIBERTÉ\xa0! À l’été.", "LIBERTÉ\xa0! À l’été.", {}),
    "Portuguese": ("Ã é til.", "Ã é til.", {}),
    "family": ("Hi 👩‍👧.", "Hi 👩‍👧.", {}),
    "Persian": ("می\u200cخواهم.", "می\u200cخواهم.", {}),
    "tab and line end": ("A\tb\nc.", "A\tb\nc.", {}),
}  # fmt: skip


@pytest.mark.parametrize("what", DIRT)
def test_each_kind_of_dirt_is_mended_or_dropped_and_counted(prepare, what):
    before, after, wanted = DIRT[what]
    notes = {}
    assert prepare.clean(before, notes, drop_broken=True) == after
    assert notes == wanted
    if after is not None:  # clean stories stay as they are
        again = {}
        assert prepare.clean(after, again, drop_broken=True) == after and again == {}


def test_poems_and_lists_are_not_dropped_for_lack_of_full_stops(prepare):
    assert prepare.looks_finished(["A dog.", "Yes!", '"No."'] * 5)
    assert not prepare.looks_finished(["roses are red", "A dog."] * 5)
    assert prepare.clean("roses are red", {}, drop_broken=False) == "roses are red"


def test_dirt_in_a_file_is_counted_in_what_is_printed(copied, stories):
    dirty = [*stories, stories[0], stories[1], "And so the", "the end.", "\x01 \x02"]
    dirty[7] = dirty[7].replace(" the ", " the\x07 ", 1)
    dirty[8] = dirty[8] + " Itâ€™s over."
    write_text(copied.folder / "mine.txt", dirty)
    assert copied.run("01_bpe.py").returncode == 0
    done = copied.run("02_prepare.py")
    for line in (
        "broken off, dropped: 2",
        "empty, dropped: 1",
        "mojibake mended: 1",
        "stray control characters removed: 2",
        "told before, dropped: 2",
    ):
        assert f"[check] stories {line}\n" in done.stdout, done.stdout


# --------------------------------------------------------------------------- splitting


def test_of_equal_stories_one_stays_and_none_is_on_both_sides(prepare):
    rng = np.random.default_rng(0)
    prints = rng.integers(0, 500, 2000).astype("<u8")  # every story about four times
    train, valid = prepare.choose(prints, np.zeros(2000, dtype=bool), 0.1)
    assert not (train & valid).any()
    assert sorted(prints[train | valid]) == sorted(set(prints))
    assert valid.sum() == round(0.1 * len(set(prints)))


def test_a_new_story_moves_none_of_the_others_to_the_other_side(prepare):
    # The split is by fingerprint, so a longer text keeps almost all where they were.
    rng = np.random.default_rng(1)
    prints = rng.integers(0, 2**63, 1001).astype("<u8")
    none = np.zeros(1001, dtype=bool)
    _, before = prepare.choose(prints[:1000], none[:1000], 0.05)
    _, after = prepare.choose(prints, none, 0.05)
    assert (before != after[:1000]).sum() <= 1


def test_the_share_is_met_and_at_least_one_story_is_kept_back(prepare):
    prints = np.arange(100, dtype="<u8")
    none = np.zeros(100, dtype=bool)
    for share, wanted in [(0.001, 1), (0.05, 5), (0.5, 50)]:
        assert prepare.choose(prints, none, share)[1].sum() == wanted


def test_the_histogram_counts_every_story(prepare):
    lengths = np.array([5, 15, 15, 95, 1000])
    lines = list(prepare.histogram(lengths))
    assert sum(int(line.split()[2].replace(",", "")) for line in lines) == 5


# ------------------------------------------------------------------- mistakes of people


def test_stage_2_before_stage_1_names_stage_1(workshop):
    lines = workshop.refuses("02_prepare.py", "tokenizer.json is missing")
    assert lines[-1] == "python 01_bpe.py"


@pytest.mark.parametrize(
    "constants, words",
    [
        ({"VOCAB_SIZE": 259}, "from 260 to 65,536"),
        ({"VOCAB_SIZE": 65_537}, "from 260 to 65,536"),
        ({"VOCAB_SIZE": "2048"}, "VOCAB_SIZE = '2048'"),
        ({"VOCAB_SIZE": 2048.0}, "a whole number"),
        ({"VOCAB_SIZE": True}, "VOCAB_SIZE = True"),
        ({"MIN_FREQUENCY": 0}, "from 1 to 1,000,000,000"),
        ({"WORKERS": 0}, "from 1 to 256"),
        ({"WORKERS": "all"}, "WORKERS = 'all'"),
    ],
)
def test_a_constant_of_stage_1_that_cannot_be_used_is_named(
    bpe, monkeypatch, constants, words
):
    for name, value in constants.items():
        monkeypatch.setattr(bpe, name, value)
    with pytest.raises(SystemExit) as stopped:
        bpe.check_constants()
    assert words in str(stopped.value) and len(str(stopped.value).splitlines()) == 3


@pytest.mark.parametrize(
    "name, value",
    [("VALID_SHARE", 0), ("VALID_SHARE", 0.6), ("VALID_SHARE", "5%"),
     ("VALID_SHARE", float("nan")), ("WORKERS", 1.5), ("WORKERS", None)],
)  # fmt: skip
def test_a_constant_of_stage_2_that_cannot_be_used_is_named(
    prepare, monkeypatch, name, value
):
    monkeypatch.setattr(prepare, name, value)
    with pytest.raises(SystemExit, match=f"{name} = "):
        prepare.check_inputs()


def test_wrong_texts_stop_stage_1_and_touch_nothing(copied):
    folder = copied.folder
    (folder / "empty.txt").write_bytes(b"")
    (folder / "small.txt").write_bytes(b"One day.\n\n" * 100)
    (folder / "binary.txt").write_bytes(b"GIF89a\0" * 5000)
    (folder / "latin.txt").write_bytes(b"One day.\n\n" * 2000 + b"caf\xe9.\n\n")
    (folder / "single.txt").write_bytes(b"One day.\n" * 2000)
    before = contents(folder / "artifacts")
    for text, words in [
        ("nowhere.txt", "no such file"),
        ("lessons", "is a folder"),
        ("empty.txt", "is empty"),
        ("small.txt", "at least 10,000 bytes"),
        ("binary.txt", "offset 6:"),
        ("latin.txt", "byte 0xe9 at offset 20,003"),
        ("single.txt", "one single story"),
    ]:
        copied.edit("01_bpe.py", TEXT=text)
        copied.refuses("01_bpe.py", words)
        assert contents(folder / "artifacts") == before, text


def test_a_vocabulary_larger_than_the_text_gives_is_trained_as_far_as_it_goes(copied):
    copied.edit("01_bpe.py", VOCAB_SIZE=60_000)
    done = copied.run("01_bpe.py")
    assert done.returncode == 0, done.stderr
    assert "[note] the text gives " in done.stdout
    assert "no pair is left that occurs 2 times" in done.stdout


def test_too_few_stories_are_refused_with_the_minimum(copied, stories):
    write_text(copied.folder / "mine.txt", [" ".join(stories[:10]), *stories[10:20]])
    assert copied.run("01_bpe.py").returncode == 0
    before = contents(copied.folder / "artifacts")
    copied.refuses("02_prepare.py", "20 different ones are the least")
    assert contents(copied.folder / "artifacts") == before


def test_artifacts_that_do_not_belong_together_are_refused(copied):
    folder = copied.folder / "artifacts/01_bpe"
    tokenizer, meta = folder / "tokenizer.json", folder / "meta.json"
    text = copied.folder / "mine.txt"
    whole = {path: path.read_bytes() for path in (tokenizer, meta, text)}
    other_form = json.dumps({**json.loads(whole[meta]), "format": "01_bpe/0"}).encode()
    spoiled = [
        (tokenizer, whole[tokenizer] + b"\n", "do not belong together"),
        (tokenizer, whole[tokenizer][:3000], "is damaged"),
        (meta, whole[meta][:50], "cannot be used"),
        (meta, b"", "cannot be used"),
        (meta, b"[1, 2]", "cannot be used"),
        (meta, other_form, "Its form is '01_bpe/0'"),
        (meta, b'{"format": "01_bpe/1"}', "do not belong together"),
        (text, whole[text] + b" One more.", "mine.txt has changed since stage 1 ran"),
    ]
    before = contents(copied.folder / "artifacts/02_prepare")
    for path, data, words in spoiled:
        path.write_bytes(data)
        lines = copied.refuses("02_prepare.py", words)
        assert lines[-1] == "python 01_bpe.py"
        path.write_bytes(whole[path])
    text.unlink()
    copied.refuses("02_prepare.py", "mine.txt is missing")
    assert contents(copied.folder / "artifacts/02_prepare") == before


# ------------------------------------------------- a full disk, Ctrl-C, other accidents


@pytest.mark.parametrize("script", ["01_bpe.py", "02_prepare.py"])
def test_a_file_that_finds_no_room_leaves_the_old_ones(copied, script):
    """The system refuses every file above 4 kB, as a full disk would."""
    copied.edit("01_bpe.py", VOCAB_SIZE=700)
    if script == "02_prepare.py":
        copied.edit("02_prepare.py", VALID_SHARE=0.2)
    before = contents(copied.folder / "artifacts")

    def little_room():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = subprocess.run(
        [sys.executable, script],
        cwd=copied.folder, capture_output=True, text=True, preexec_fn=little_room,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "The disk is full" in done.stderr
    assert f"Make room, then: python {script}" in done.stderr
    assert contents(copied.folder / "artifacts") == before


def test_no_space_left_is_told_in_three_lines():
    import plumbing

    def main():
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(SystemExit) as stopped:
        plumbing.run_stage(main, "01_bpe.py")
    assert str(stopped.value).splitlines()[0].startswith("The disk is full")


def test_when_the_last_of_several_files_finds_no_room_none_is_written(
    tmp_path, monkeypatch
):
    import plumbing

    (tmp_path / "a").write_text("old a")
    real, calls = os.fsync, []

    def full_at_the_second(number):
        calls.append(number)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(number)

    monkeypatch.setattr(os, "fsync", full_at_the_second)
    with pytest.raises(OSError):
        plumbing.write_all({tmp_path / "a": "new a", tmp_path / "b": b"new b"})
    assert contents(tmp_path) == {tmp_path / "a": b"old a"}


@pytest.mark.parametrize("script", ["01_bpe.py", "02_prepare.py"])
def test_ctrl_c_leaves_earlier_artifacts_and_says_how_to_go_on(copied, stories, script):
    """Ctrl-C as a terminal sends it: to all processes of the group at once."""
    many = [f"{story} {i}." for i in range(60) for story in stories]  # 16 MB
    if script == "01_bpe.py":
        write_text(copied.folder / "many.txt", many)
        copied.edit("01_bpe.py", TEXT="many.txt", WORKERS=2)
    else:
        write_text(copied.folder / "mine.txt", many)
        assert copied.run("01_bpe.py").returncode == 0
        copied.edit("02_prepare.py", WORKERS=2)
    before = contents(copied.folder / "artifacts")
    process = subprocess.Popen(
        [sys.executable, "-u", script], cwd=copied.folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    for line in process.stdout:
        if "process(es) at work" in line:
            break
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in errors, errors
    assert errors.splitlines()[-3] == "Stopped by Ctrl-C."
    assert errors.splitlines()[-1] == f"Go on with: python {script}"
    assert contents(copied.folder / "artifacts") == before


def test_parts_that_a_killed_run_left_behind_are_swept_away(copied):
    left = copied.folder / "artifacts/02_prepare/00007.part"
    left.write_bytes(b"half")
    assert copied.run("02_prepare.py").returncode == 0
    assert not left.exists()
