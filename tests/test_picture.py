"""The quest that teaches a model to see: pictures, patches, examples, and honest tests.

Most tests use a GPT with random weights: what must hold, holds before training, too.
"""
import base64
import copy
import doctest
import importlib
import itertools
import json
import os
import random
import re
import signal
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT

ME = "lessons/quests/picture.py"
BOS, EOS = 2, 3
# What would end the page's script, if a text could.
NASTY = "</script><script>document.title = 'broken'</script><b>Tom</b>"


@pytest.fixture(scope="module")
def quest():
    sys.path.append(str(ROOT / "lessons" / "quests"))
    return importlib.import_module("picture")


@pytest.fixture(scope="module")
def grammar():
    return importlib.import_module("practice_stories")


@pytest.fixture(scope="module")
def tokenizer(prepared, bpe):
    """The tokenizer of the small text, 400 tokens."""
    return bpe.Tokenizer.load(prepared / "artifacts/01_bpe/tokenizer.json")


def random_gpt(gpt, **sizes):
    torch.manual_seed(5)
    sizes = {"vocab_size": 400, "block_size": 288, "n_layer": 2, "n_head": 2} | sizes
    return gpt.GPT(gpt.GPTConfig(**{"n_embd": 32} | sizes)).eval()


@pytest.fixture
def seeing(gpt, quest):
    """A random model with an eye that is wide open: the picture matters at once."""
    model = quest.SeeingGPT(random_gpt(gpt)).eval()
    torch.nn.init.normal_(model.projection.weight, std=0.5)
    return model


def test_the_examples_in_the_docstrings_are_right(quest):
    result = doctest.testmod(quest)
    assert result.failed == 0 and result.attempted >= 3


# --------------------------------------------------------------- pictures and patches


def test_the_patches_of_a_picture_put_back_in_place_are_the_picture(quest):
    picture = np.random.default_rng(1).integers(256, size=(1, 48, 48, 3))
    patches, again = quest.cut(picture)[0], np.zeros((48, 48, 3))
    assert patches.shape == (36, 192)
    for number, patch in enumerate(patches):
        row, column = divmod(number, 6)  # reading order: six patches make a row
        top, left = 8 * row, 8 * column
        again[top : top + 8, left : left + 8] = patch.reshape(8, 8, 3)
    assert (again == picture[0]).all()


def a_scene(**changes):
    scene = {"animal": "fox", "color": "red", "toy": "kite", "place": "beach"}
    return scene | {"weather": "sun"} | changes


def test_two_pictures_of_one_scene_differ(quest):
    rng = np.random.default_rng(1)
    one, other = (quest.draw(a_scene(), rng).astype(int) for _ in range(2))
    assert one.shape == (48, 48, 3)
    assert abs(one - other).mean() > 5  # of 255: not only the noise


@pytest.mark.parametrize("change", [
    {"animal": "bear"}, {"color": "blue"}, {"toy": "ball"}, {"place": "farm"},
    {"weather": "rain"},
])  # fmt: skip
def test_each_word_of_a_scene_changes_the_picture_and_leaves_the_rest(quest, change):
    scenes = a_scene(), a_scene(**change)
    # Equal random numbers: equal positions and noise (rain takes some of its own).
    one, other = (quest.draw(s, np.random.default_rng(3)).astype(int) for s in scenes)
    changed = (abs(one - other) > 25).any(axis=2).mean()
    assert 0.005 < changed < (0.6 if "weather" in change or "place" in change else 0.3)


def test_a_toy_has_its_color(quest):
    for color, toy in itertools.product(quest.WORDS["color"], quest.WORDS["toy"]):
        picture = quest.draw(a_scene(color=color, toy=toy), np.random.default_rng(1))
        near = abs(picture.astype(int) - quest.PAINT[color]).max(axis=2) <= 6
        assert near.sum() >= 15, (color, toy)


# ------------------------------------------------------------------ stories and scenes


def test_each_word_that_a_story_can_need_has_a_drawing_and_the_other_way_round(
    quest, grammar
):
    rng = random.Random(1)
    scenes = [grammar.tell_scene(rng)[0] for _ in range(400)]
    for what, words in quest.WORDS.items():
        assert {scene[what] for scene in scenes} == set(words)
    shapes = [s for what in quest.WORDS if what != "color"
              for thing in quest.THINGS[what].values() for s in thing]  # fmt: skip
    for shape in shapes:
        kind, color, *numbers = shape.split()
        assert kind in quest.WIDTH and color in {"*", *quest.PAINT}
        assert len([float(number) for number in numbers]) == 4


def test_a_story_names_all_of_its_scene_and_nothing_else(quest, grammar):
    rng = random.Random(2)
    for _ in range(60):
        scene, story = grammar.tell_scene(rng)
        assert quest.named(scene, story) == dict.fromkeys(quest.WORDS, True), story
        assert grammar.check(story, grammar.SCENE_PLOTS) is None
        assert grammar.check(story) is not None  # the practice text has no such plot
        # Another word in one place only: the story names two, so it is not right.
        for what in quest.WORDS:
            other = next(w for w in quest.WORDS[what] if w != scene[what])
            wrong = re.sub(rf"\b{scene[what]}\b", other, story, count=1)
            assert not quest.named(scene, wrong)[what]


def test_the_scene_stories_are_good_english_of_words_of_the_practice_text(grammar):
    rng = random.Random(3)
    told = [grammar.tell_scene(rng)[1] for _ in range(500)]
    practice = " ".join(grammar.stories(4000)).lower()
    known = set(re.findall(r"[a-z'-]+", practice))
    # Only these have no place in a practice story, as picture.md says.
    new = {"nest", "cave", "den", "burrow"}
    assert set(re.findall(r"[a-z'-]+", " ".join(told).lower())) - known == new
    for story in told:
        assert 45 <= len(story.split()) <= 110
        assert not re.search(r"\b(\w+) \1\b|  |[{}|]|\.\.", story), story
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", story), story
        for paragraph in story.split("\n"):
            assert re.fullmatch(r'"?[A-Z].*[.!?]"?', paragraph), paragraph
            assert paragraph.count('"') % 2 == 0
    # Wordings and words vary: no story of 500 comes twice.
    assert len(set(told)) == 500


def test_training_sees_every_word_but_no_held_out_combination(quest):
    words, kinds = [quest.WORDS[what] for what in ("color", "toy", "place")], {}
    for color, toy, place in itertools.product(*words):
        scene = a_scene(color=color, toy=toy, place=place)
        kinds.setdefault(quest.kind_of(scene), set()).add((color, toy, place))
    seen, pairs, triples = kinds["seen"], kinds["new pair"], kinds["new triple"]
    for position, known in enumerate(words):  # each single word is in training
        assert {c[position] for c in seen} == set(known)
    assert not {c[:2] for c in seen} & {c[:2] for c in pairs}
    assert {c[:2] for c in triples} <= {c[:2] for c in seen}  # only the place is new
    assert len({c[:2] for c in pairs}) == 8 and len(triples) == 64


def test_examples_are_of_the_kind_asked_for_and_depend_on_seed_and_stream(
    quest, grammar, monkeypatch
):
    for kind in ("seen", "new pair", "new triple"):
        scenes, pictures, stories = quest.make_examples(grammar, 10, 7, kind)
        assert {quest.kind_of(scene) for scene in scenes} == {kind}
        assert pictures.shape == (10, 48, 48, 3) and len(stories) == 10
    again = quest.make_examples(grammar, 10, 7, kind)
    assert again[2] == stories and (again[1] == pictures).all()
    assert quest.make_examples(grammar, 10, 8, kind)[2] != stories
    monkeypatch.setattr(quest, "SEED", 2)
    assert quest.make_examples(grammar, 10, 7, kind)[2] != stories


# ----------------------------------------------------------------- the model that sees


def some_examples(quest, grammar, tokenizer, count=3):
    _, pictures, stories = quest.make_examples(grammar, count, 1)
    return pictures, *quest.encode(tokenizer, stories)


def test_the_loss_is_the_mean_over_the_stories_tokens_and_padding_is_free(
    quest, grammar, tokenizer, seeing
):
    pictures, idx, targets = some_examples(quest, grammar, tokenizer)
    assert (idx[:, 0] == BOS).all() and ((targets == EOS).sum(dim=1) == 1).all()
    loss = seeing(pictures, idx, targets)
    logits = seeing.gpt.output(seeing.hidden(pictures, idx))  # (B, T, V)
    one_by_one = [F.cross_entropy(row[t >= 0], t[t >= 0], reduction="sum")
                  for row, t in zip(logits, targets)]  # fmt: skip
    expected = sum(one_by_one) / (targets >= 0).sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    other = idx.masked_fill(targets < 0, 7)  # what stands behind a story's end
    assert seeing(pictures, other, targets).item() == pytest.approx(loss.item())


def test_vectors_of_the_patches_come_first_then_those_of_the_tokens(gpt, quest, seeing):
    """P vectors come first, then the tokens, at positions P and up: nothing else."""
    ids = torch.arange(10, 20)[None]
    picture = np.zeros((1, 48, 48, 3), np.uint8)  # black: each patch is the same vector
    x = seeing.projection(torch.full((1, 36, 192), -1.0))
    x = torch.cat([x, seeing.gpt.wte(ids)], dim=1) + seeing.gpt.wpe.weight[:46]
    for block in seeing.gpt.h:
        x = block(x)
    expected = seeing.gpt.ln_f(x)[:, 36:]
    assert torch.allclose(seeing.hidden(picture, ids), expected, atol=1e-5)


def test_every_word_can_see_every_patch_and_no_later_word(quest, seeing):
    rng = np.random.default_rng(1)
    picture, ids = quest.draw(a_scene(), rng)[None], torch.arange(10, 20)[None]
    before = seeing.hidden(picture, ids)
    for row, column in itertools.product(range(0, 48, 8), repeat=2):
        other = picture.copy()
        other[0, row : row + 8, column : column + 8] //= 2
        changes = (seeing.hidden(other, ids) - before).abs().amax(dim=2)
        assert (changes > 0).all()
    later = ids.clone()
    later[0, 5] = 99
    changes = (seeing.hidden(picture, later) - before).abs().amax(dim=2)[0]
    assert (changes[:5] == 0).all() and changes[5] > 0


def test_telling_with_the_cache_is_telling_without_it(quest, seeing, monkeypatch):
    monkeypatch.setattr(quest, "SAMPLERS", {"temperature": 0.0})  # always the likeliest
    pictures = np.stack([quest.draw(a_scene(toy=toy), np.random.default_rng(1))
                         for toy in ("kite", "ball")])  # fmt: skip
    told = seeing.tell(pictures)
    for picture, ids in zip(pictures, told):
        idx = torch.tensor([ids[:30]])
        logits = seeing.gpt.output(seeing.hidden(picture[None], idx[:, :-1]))
        assert logits.argmax(dim=2)[0].tolist() == ids[1:30]
    assert all(ids[0] == BOS and ids[-1] == EOS for ids in told)
    assert all(len(ids) <= 288 - 36 for ids in told)


def test_a_story_is_the_same_alone_and_among_others(quest, seeing):
    rngs = map(np.random.default_rng, range(3))
    pictures = np.stack([quest.draw(a_scene(), rng) for rng in rngs])
    assert seeing.tell(pictures)[0] == seeing.tell(pictures[:1])[0]


def test_the_weights_on_the_page_are_those_of_attention(quest, seeing, tokenizer):
    picture = quest.draw(a_scene(), np.random.default_rng(1))
    (ids,) = seeing.tell(picture[None])
    row = quest.page_row(seeing, tokenizer, a_scene(), picture, ids)
    weights, T = np.array(row["attention"]) / 10_000, len(ids)
    assert weights.shape == (2, 2, T, 36) and len(row["tokens"]) == T
    total = weights.sum(axis=3)
    assert (total > 0).all() and (total < 1.01).all()
    # <BOS> sees 36 patches and itself; a random head spreads its attention evenly.
    assert total[:, :, 0].mean() > 0.9 > total[:, :, -1].mean()
    # The first block by hand: softmax of q k / 4 (D = 16), and no later token.
    patches = seeing.projection(torch.from_numpy(quest.cut(picture[None])) / 127.5 - 1)
    x = torch.cat([patches, seeing.gpt.wte(torch.tensor([ids]))], dim=1)
    x = seeing.gpt.h[0].ln_1(x + seeing.gpt.wpe.weight[: 36 + T])
    q, k, _ = seeing.gpt.h[0].attn.qkv(x)  # each (1, 2, 36 + T, 16)
    scores = q @ k.mT / 4 + torch.full((36 + T, 36 + T), -torch.inf).triu(1)
    by_hand = scores.softmax(dim=3)[0, :, 36:, :36].detach().numpy()
    assert weights[0] == pytest.approx(by_hand, abs=1e-4)


# -------------------------------------------------------------------------- training


@pytest.fixture
def small_run(quest, grammar, tokenizer, gpt, tmp_path, monkeypatch):
    """-> function that trains for 6 steps, or resumes, and gives the model."""
    monkeypatch.setattr(quest, "MODEL", tmp_path / "model.pt")
    for name, value in {"STEPS": 6, "BATCH": 2}.items():
        monkeypatch.setattr(quest, name, value)
    header = {"format": "picture/1", "config": vars(random_gpt(gpt).config)}
    header |= {"tokenizer": "none", "fingerprint": {"STEPS": 6}}

    def run(**fingerprint):
        torch.manual_seed(1)
        model = quest.SeeingGPT(random_gpt(gpt))
        before = copy.deepcopy(model.state_dict())
        optimizer = importlib.import_module("04_train").configure_optimizer(model)
        made = header | {"fingerprint": header["fingerprint"] | fingerprint}
        quest.learn(model, optimizer, grammar, tokenizer, made)
        return model, before

    return run


def test_training_moves_the_eye_and_the_model(small_run):
    model, before = small_run()
    moved = {name for name, weight in model.state_dict().items()
             if not torch.equal(weight, before[name])}  # fmt: skip
    assert {"projection.weight", "gpt.wte.weight", "gpt.h.0.mlp.c_fc.weight"} <= moved


def test_a_run_stopped_by_ctrl_c_resumes_to_the_same_weights(
    quest, small_run, monkeypatch, capsys
):
    whole, _ = small_run()
    quest.MODEL.unlink()
    make_examples = quest.make_examples

    def make_and_interrupt(grammar, count, stream, *more):
        if stream == 2:  # in the third step
            os.kill(os.getpid(), signal.SIGINT)
        return make_examples(grammar, count, stream, *more)

    monkeypatch.setattr(quest, "make_examples", make_and_interrupt)
    with pytest.raises(SystemExit, match="Step 3 of 6 is saved"):
        small_run()
    monkeypatch.setattr(quest, "make_examples", make_examples)
    again, _ = small_run()
    assert "step 3 of 6" in capsys.readouterr().out
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_another_run_is_not_overwritten(quest, small_run):
    small_run()
    content = quest.MODEL.read_bytes()
    with pytest.raises(SystemExit, match=r"(?s)Changed: STEPS\..*mv "):
        small_run(STEPS=7)
    assert quest.MODEL.read_bytes() == content


def test_the_file_is_a_checkpoint_that_stage_3_can_read(quest, small_run, gpt):
    model, _ = small_run()
    again, content = gpt.GPT.load(quest.MODEL, "picture.py")
    for name, weight in model.gpt.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    assert content["step"] == 6


# ----------------------------------------------------------- as learners run the script


@pytest.fixture
def shop(workshop, small_tokenizer, gpt, bpe):
    """A course whose best.pt has random weights, and a quest of three short steps."""
    small_tokenizer(workshop)
    workshop.edit(ME, STEPS=3, BATCH=2, TESTS=2)
    save_best(workshop, gpt, bpe, n_layer=1)
    return workshop


def save_best(shop, gpt, bpe, **sizes):
    model = random_gpt(gpt, **sizes)
    hashed = bpe.sha256_of(shop.folder / "artifacts/01_bpe/tokenizer.json")
    content = {"config": vars(model.config), "tokenizer": hashed}
    content["weights"] = model.state_dict()
    (shop.folder / "artifacts/04_train").mkdir(exist_ok=True)
    torch.save(content, shop.folder / "artifacts/04_train/best.pt")


def test_the_script_trains_measures_and_writes_the_page(shop):
    best = (shop.folder / "artifacts/04_train/best.pt").read_bytes()
    done = shop.run(ME)
    assert done.returncode == 0, done.stderr
    for words in ("[note] best.pt was trained on another text",  # text.txt
                  "[plan] 3 steps x 2 pictures of 36 patches", "before training",
                  "new pair", "new triple", "other picture", "by chance",
                  "of 2 stories are right", "[wrote] artifacts/picture/picture.html",
                  "Next: python"):  # fmt: skip
        assert words in done.stdout, words
    assert (shop.folder / "artifacts/04_train/best.pt").read_bytes() == best
    assert not list(shop.folder.rglob("*.part"))
    again = shop.run(ME, "a Red kite, the fox; at the beach in the RAIN")
    assert again.returncode == 0, again.stderr
    assert "step 3 of 3" in again.stdout and "seen " not in again.stdout
    assert "fox, red, kite, beach, rain" in again.stdout
    assert again.stdout.count("▀") == 24 * 48  # the picture, two pixels each
    (shop.folder / "artifacts/picture/model.pt").write_bytes(b"damaged")
    shop.refuses(ME, "model.pt cannot be read", "rm artifacts/picture/model.pt")


def test_what_the_user_gets_wrong_is_said_in_three_lines(shop, gpt, bpe):
    shop.refuses(ME, "names nothing", "pinwheel", arguments=["a cow"])
    save_best(shop, gpt, bpe, block_size=64)
    shop.refuses(ME, "36 patches and a story of", "is 64", "SIZE in 03_model.py")
    (shop.folder / "artifacts/04_train/best.pt").unlink()
    shop.refuses(ME, "best.pt is missing", "python 04_train.py")
    shop.edit(ME, PATCH=0)
    shop.refuses(ME, "PATCH = 0", "one of 6, 8, 12")


def test_without_its_stories_or_drawings_the_script_says_what_to_do(shop):
    drawings = shop.folder / "lessons/quests/drawings.json"
    text = drawings.read_text("utf-8")
    drawings.write_text(text.replace('"disc * 0 0 6 6"', '"disk * 0 0 6 6"'), "utf-8")
    shop.refuses(ME, "cannot be drawn", "disk", "git checkout")
    drawings.write_text(text[:500], "utf-8")
    shop.refuses(ME, "drawings.json cannot be read", "git checkout")
    drawings.write_text(text, "utf-8")
    (shop.folder / "lessons/practice_stories.py").unlink()
    shop.refuses(ME, "no stories about the pictures", "git checkout")


# -------------------------------------------------------------------------- the page


SCRIPT = """
const cells = [...document.querySelectorAll("#cells i")];
const bright = () => cells.map((cell) => Number(cell.style.opacity)).indexOf(0);
const said = () => document.getElementById("what").textContent;
const press = (key) => document.getElementById("story").dispatchEvent(
  new KeyboardEvent("keydown", { key, bubbles: true }));
const tokens = document.querySelectorAll("#story .token");
const result = { title: document.title, tokens: tokens.length, cells: cells.length };
result.names = document.getElementById("names").textContent;
tokens[1].click();
result.first = [said(), bright()];
press("ArrowRight");
result.second = [said(), bright()];
document.getElementById("head").value = "1";
document.getElementById("head").dispatchEvent(new Event("change"));
result.head = [said(), bright()];
const canvas = document.getElementById("canvas");
document.querySelectorAll("#scenes button")[1].click();
result.other = [...canvas.getContext("2d").getImageData(0, 0, 1, 1).data];
result.wide = document.documentElement.scrollWidth <= innerWidth;
return result;
"""


def test_the_page_shows_which_patch_a_word_came_from(bpe, browser, tmp_path):
    # One layer, two heads, three positions: half of the attention is on one patch.
    def heads(*patches):
        weights = np.zeros((6, 36), int)  # two heads with three positions each
        weights[range(6), patches] = 5000
        return weights.reshape(1, 2, 3, 36).tolist()

    def scene(level, right):
        pixels = np.full((48, 48, 3), level, np.uint8).tobytes()
        pixels = base64.b64encode(pixels).decode()
        row = {"scene": a_scene(), "right": dict.fromkeys(a_scene(), right)}
        row |= {"ids": [2, 9, 9], "tokens": ["<BOS>", NASTY, " kite"]}
        return row | {"pixels": pixels, "attention": heads(*range(6))}

    data = {"side": 48, "patch": 8, "special": 4}
    page = tmp_path / "picture.html"
    data["scenes"] = [scene(40, True), scene(90, False)]
    page.write_text(bpe.fill_page("picture.html", data), "utf-8")
    result = browser.run(page, SCRIPT)
    assert result["title"] == "What the model saw" and result["wide"]
    assert result["tokens"] == 3 and result["cells"] == 36
    assert result["names"].count("✓") == 5
    # The mean of two heads: half of the attention, each head on a patch of its own.
    assert "50% of the attention" in result["first"][0] and result["first"][1] == 0
    assert "kite" in result["second"][0] and result["second"][1] == 1
    assert "column 5: 50.0%" in result["head"][0] and result["head"][1] == 4
    assert result["other"] == [90, 90, 90, 255]  # the second picture, after a click


def test_the_template_says_that_it_is_empty(browser):
    page = ROOT / "lessons" / "pages" / "picture.html"
    said = browser.run(page, "return document.getElementById('trouble').textContent")
    assert "This page is empty" in said
