"""The figures: whole SVG files, drawn from a run's artifacts, the same each time."""
import dataclasses
import hashlib
import json
import os
import re
import sys
import xml.etree.ElementTree as xml

import numpy as np
import pytest
import torch
from conftest import ROOT

sys.path.append(str(ROOT / "lessons" / "images"))
import make_figures

NAMES = ["learning.svg", "lengths.svg", "attention.svg", "loss.svg", "rate.svg"]
NAMES += ["similar.svg", "stream.svg"]
HOSTILE = "A tale of </script> & <b>\x07\nthe end"  # what a story may hold


@pytest.fixture
def world(tmp_path, monkeypatch, bpe, gpt):
    """What a run of three evaluations leaves behind, too small to be worth running."""
    folder = {n: tmp_path / n for n in ("01_bpe", "02_prepare", "03_model", "04_train")}
    for path in folder.values():
        path.mkdir()
    byte_id = bpe.Tokenizer([]).byte_id
    tokenizer = bpe.Tokenizer([(byte_id[ord("t")], byte_id[ord("h")])])  # one merge: th
    (folder["01_bpe"] / "tokenizer.json").write_text(tokenizer.to_json(), "utf-8")
    ids = [bpe.BOS, *tokenizer.encode("Once there was a fox " * 5), bpe.EOS]
    for name in ("train.bin", "valid.bin"):
        np.array(ids, dtype="<u2").tofile(folder["02_prepare"] / name)
    torch.manual_seed(1)
    sizes = {"block_size": 80, "n_layer": 2, "n_head": 2, "n_embd": 8}
    model = gpt.GPT(gpt.GPTConfig(vocab_size=len(tokenizer), **sizes))
    content = {"config": dataclasses.asdict(model.config), "rows": []}
    content["weights"] = model.state_dict()
    weights = b"".join(w.numpy().tobytes() for w in model.state_dict().values())
    content["fingerprint"] = {"model": hashlib.sha256(weights).hexdigest()}
    content["tokenizer"] = sha256(folder["01_bpe"] / "tokenizer.json")
    log = "step,tokens,lr,train_loss,grad_norm,valid_loss\n"
    for step in range(1, 7):
        row = {"step": step, "tokens": step * 1000, "lr": step / 1000}
        row |= {"train_loss": 6 / step, "grad_norm": 1.0, "valid_loss": ""}
        if step % 2 == 0:
            row |= {"valid_loss": 6.5 / step}
        log += ",".join(str(value) for value in row.values()) + "\n"
        content["rows"].append(row | ({"sample": HOSTILE} if step % 2 == 0 else {}))
    gpt.save_checkpoint(folder["03_model"] / "model.pt", dict(content))
    for name in ("best.pt", "last.pt"):
        gpt.save_checkpoint(folder["04_train"] / name, dict(content))
    os.utime(folder["04_train"] / "last.pt", (0, 0))  # midnight, 1970-01-01
    (folder["04_train"] / "log.csv").write_text(log, "utf-8")
    names = "uniform", "unigram", "bigram", "trigram"
    result = {"format": "05_eval/3", "baselines": dict(zip(names, (8, 6, 4, 2)))}
    result |= {"stories": {"tokens": 100}, "untrained": {"loss": 5.6}, "bytes": 100}
    result["made_from"] = {"model": sha256(folder["04_train"] / "best.pt")}
    (tmp_path / "05_eval").mkdir()
    (tmp_path / "05_eval" / "eval.json").write_text(json.dumps(result), "utf-8")
    monkeypatch.setattr(bpe, "OUT", folder["01_bpe"])
    monkeypatch.setattr(make_figures, "IN", tmp_path)
    monkeypatch.setattr(make_figures, "OUT", tmp_path / "images")
    monkeypatch.setattr(make_figures, "SENTENCE", "the </svg> & the moth")
    monkeypatch.setattr(make_figures, "HEAD", (2, 2))  # this model has two heads
    return tmp_path


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def drawn(world):
    """Draw; {name: the text of the file}."""
    make_figures.main()
    found = sorted((world / "images").iterdir())
    assert [path.name for path in found] == sorted(NAMES)
    return {path.name: path.read_text("utf-8") for path in found}


def elements(text, tag):
    return xml.fromstring(text).iter("{http://www.w3.org/2000/svg}" + tag)


def test_every_figure_is_whole_and_says_what_it_is_and_where_from(world):
    for name, text in drawn(world).items():
        assert len(list(elements(text, "title"))) == 1, name
        (description,) = elements(text, "desc")
        assert len(description.text) > 20, name
        said = ["".join(e.itertext()) for e in elements(text, "text")]
        assert f"{make_figures.MACHINE}, 1970-01-01" in said, name
        assert "prefers-color-scheme: dark" in text, name
        assert not re.search(r"<script|javascript:|href=|url\(|@import|nan|inf\b", text)


def test_text_of_a_story_stays_text_whatever_it_holds(world):
    files = drawn(world)
    told = "".join(xml.fromstring(files["learning.svg"]).itertext())
    assert "</script> & <b>\ufffd the end" in told  # a bell is no text
    tokens = [e.text for e in elements(files["attention.svg"], "text")]
    assert {"<", "&", "<BOS>"} <= set(tokens)


def test_no_line_or_bar_leaves_the_paper_and_no_word_begins_outside(world):
    for name, text in drawn(world).items():
        left, top, width, height = map(int, xml.fromstring(text).get("viewBox").split())
        for element in [*elements(text, "text"), *elements(text, "rect")]:
            x, y = float(element.get("x", 0)), float(element.get("y", 0))
            assert left <= x <= width and top <= y <= height, name
            right, bottom = (float(element.get(n, 0)) for n in ("width", "height"))
            assert x + right <= width and y + bottom <= height, name
        for element in elements(text, "polyline"):
            for point in element.get("points").split():
                x, y = map(float, point.split(","))
                assert left <= x <= width and top <= y <= height, name


def test_equal_artifacts_give_equal_files(world):
    assert drawn(world) == drawn(world)


def test_the_attention_weights_of_a_row_sum_to_one(world):
    text = drawn(world)["attention.svg"]
    rows = {}
    for bar in elements(text, "rect"):
        if bar.get("class") == "blue":
            rows.setdefault(bar.get("y"), []).append(float(bar.get("fill-opacity")))
    assert len(rows) > 10  # the sentence, of a tokenizer with one merge
    assert [len(row) for row in rows.values()] == list(range(1, len(rows) + 1))
    assert all(sum(row) == pytest.approx(1, abs=0.02) for row in rows.values())


def test_a_line_of_a_story_breaks_between_words_and_the_rest_is_dots(world):
    run = make_figures.read_run()
    lines = make_figures.surprise(run, "one two three four five six seven", 10, 2)
    said = ["".join(text for _, text in line) for line in lines]
    assert said == ["one two", "three four ..."]


def test_improbable_tokens_are_colored_and_given_words_are_not(world, monkeypatch):
    run = make_figures.read_run()
    assert run["prompt"].startswith("Once there")
    monkeypatch.setattr(make_figures, "ABSURD", 1.0)  # then every token is
    (line,) = make_figures.surprise(run, run["prompt"] + " fox", 99, 1)
    gray = [text for c, text in line if c == "soft"]
    assert "".join(gray) == run["prompt"].replace(" ", "")
    assert [text for c, text in line if c == "red" and text] == list("fox")


@pytest.mark.parametrize("name, writer", [
    ("01_bpe/tokenizer.json", "01_bpe.py"), ("02_prepare/train.bin", "02_prepare.py"),
    ("03_model/model.pt", "03_model.py"), ("04_train/best.pt", "04_train.py"),
    ("04_train/log.csv", "04_train.py"), ("05_eval/eval.json", "05_eval.py"),
])  # fmt: skip
def test_a_stage_that_has_not_run_is_named_in_three_lines(world, name, writer):
    (world / name).unlink()
    with pytest.raises(SystemExit) as error:
        make_figures.main()
    lines = str(error.value).splitlines()
    assert len(lines) == 3 and name.split("/")[1] in lines[0]
    assert lines[2] == f"python {writer}"
    assert not (world / "images").exists()


def test_figures_of_two_different_runs_are_refused(world):
    best = world / "04_train" / "best.pt"
    best.write_bytes(best.read_bytes() + b"\0")
    with pytest.raises(SystemExit, match="eval.json is about another model"):
        make_figures.main()


def test_a_head_that_the_model_has_not_is_refused(world, monkeypatch):
    monkeypatch.setattr(make_figures, "HEAD", (3, 1))
    with pytest.raises(SystemExit, match="2 blocks of 2 heads"):
        make_figures.main()


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_in_the_repository_and_a_text_shows_it(name):
    text = (ROOT / "lessons" / "images" / name).read_text("utf-8")
    assert list(elements(text, "title"))
    texts = [*(ROOT / "lessons").glob("*.md"), ROOT / "README.md"]
    assert any(f"images/{name})" in path.read_text("utf-8") for path in texts)


def test_every_image_that_a_text_shows_exists():
    for path in [*(ROOT / "lessons").rglob("*.md"), ROOT / "README.md"]:
        for image in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", path.read_text("utf-8")):
            assert (path.parent / image).is_file(), f"{path.name} shows {image}"


def test_ticks_are_round_and_few():
    assert make_figures.ticks(5.0, 5) == [0, 1, 2, 3, 4, 5]
    assert make_figures.ticks(0.0066, 5) == [0, 0.002, 0.004, 0.006]
    assert make_figures.ticks(12, 16)[-1] == 12
