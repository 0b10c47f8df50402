"""Fine-tuning on requests: what can be asked for, what is trained on, what is measured.

The first part is about the grammar, which makes pairs of request and story and judges
any story. The second is about lessons/quests/instruct.py, with tiny models.
"""
import doctest
import importlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import ROOT, Workshop

import practice_stories as ps  # noqa: E402  conftest has put lessons/ on the path

ME = "lessons/quests/instruct.py"
PAD, BOS, EOS = 0, 2, 3
ICE = "a story about Lily with ice, cold and sleigh, sad ending"


@pytest.fixture(scope="module")
def quest():
    sys.path.append(str(ROOT / "lessons" / "quests"))
    return importlib.import_module("instruct")


@pytest.fixture(scope="module")
def tokenizer(prepared, bpe):
    """The tokenizer of the small text, 400 tokens."""
    return bpe.Tokenizer.load(prepared / "artifacts/01_bpe/tokenizer.json")


def tellings(count):
    """(plot, hero, story), `count` of each plot, with the hero that was drawn."""
    for plot, seed in itertools.product(ps.PLOTS, range(count)):
        slots = ps.draw_slots(random.Random(seed), ps.parse(ps.PLOTS[plot])[0])
        yield plot, slots["hero"], ps.tell(random.Random(seed), plot)


# ------------------------------------------------------------------ what can be asked


def test_a_pair_is_a_request_and_a_story_that_keeps_it():
    for words, hero, ending, story in ps.pairs(100, seed=5):
        assert len(set(words)) == 3
        for word in words:
            assert re.search(rf"\b{word}\b", story), (word, story)
        # The first and the last paragraph name the hero: "the little fox" or "Lily".
        lines = story.split("\n")
        call = hero.removeprefix("the ")
        assert call in lines[0] and call in lines[-1], story
        assert ps.ending_of(story) == ending


def test_half_of_the_pairs_end_sadly_though_only_four_plots_do():
    assert len(ps.SAD) == 4 and ps.SAD < set(ps.PLOTS)
    endings = Counter(pair.ending for pair in ps.pairs(1_000, seed=6))
    assert 437 <= endings["sad"] <= 563  # within 4 standard deviations of a half
    for share in (0, 1):
        endings = {pair.ending for pair in ps.pairs(20, seed=6, sad=share)}
        assert endings == {"sad" if share else "happy"}


def test_the_same_seed_gives_the_same_pairs():
    assert list(ps.pairs(20, seed=7)) == list(ps.pairs(20, seed=7))
    assert list(ps.pairs(20, seed=7)) != list(ps.pairs(20, seed=8))


def test_what_is_drawn_can_be_asked_for_but_no_name_and_no_function_word():
    said, drawn = ps.word_plots()
    assert len(drawn) == 538
    # From a table, from a line of a plot; a noun, an adjective, a verb.
    assert {"kite", "sparrow", "birthday", "shy", "climbed"} - drawn.keys() == {"birthday"}
    # A birthday is said, but never drawn: it is in all stories of a plot, or in none.
    assert "the forgotten birthday" in said["birthday"]
    assert not {"the", "was", "lily", "sad", "story"} & drawn.keys()
    for word, plots in drawn.items():
        assert ps.WHOLE_WORD.fullmatch(word) and plots <= said[word]


def test_known_words_are_whole_words_in_the_order_of_the_text():
    assert ps.known_words("kite, spaceship and a shy kite") == ["kite", "shy"]
    # Neither parts of words, nor what is before an apostrophe or inside a hyphen.
    assert ps.known_words("kites, the cat's tail, a cat-like thing") == []
    assert ps.known_words("") == []


# -------------------------------------------------- what a story keeps of a request


def test_the_hero_of_every_story_is_found():
    for plot, hero, story in tellings(12):
        assert ps.hero_of(story) == hero, (plot, story)


@pytest.mark.parametrize(
    "text, hero",
    [
        ("a little mouse named Pip met the little fox", "Pip"),
        ("a little mouse lived with Pip", "the little mouse"),
        ("Write a story about the little tin robot.", "the little tin robot"),
        ("Clover and clover", "Clover"), ("a clover", None), ("Tommy", None), ("", None),
    ],
)  # fmt: skip
def test_the_hero_is_who_is_named_first(text, hero):
    assert ps.hero_of(text) == hero


def test_the_ending_of_every_story_is_that_of_its_plot():
    for plot, _, story in tellings(12):
        assert ps.ending_of(story) == ("sad" if plot in ps.SAD else "happy"), story


def test_the_ending_is_found_in_spite_of_mistakes():
    rng = random.Random(3)
    for plot, hero, story in tellings(2):
        ending = "sad" if plot in ps.SAD else "happy"
        assert ps.ending_of(story.replace(hero, "Ben")) == ending  # a wrong hero
        sentences = story.split(". ")
        some = rng.sample(sentences, k=len(sentences) * 2 // 3)  # in disorder
        assert ps.ending_of(". ".join(some)) == ending, some
        assert ps.check(". ".join(some)) is not None


def test_no_words_no_ending():
    assert ps.ending_of("") is None and ps.ending_of("Qwerty 123!") is None


# ------------------------------------------------------------------------- the idea


def test_the_examples_in_the_script_are_right(quest):
    result = doctest.testmod(quest)
    assert result.attempted == 3 and result.failed == 0


def tiny(gpt, **sizes):
    torch.manual_seed(5)
    sizes = {"vocab_size": 400, "block_size": 512, "n_layer": 1, "n_head": 2} | sizes
    return gpt.GPT(gpt.GPTConfig(**{"n_embd": 16} | sizes))


def test_a_row_of_a_pair_has_targets_only_in_the_answer(quest):
    # Request 10 11, story 20 21; the row has 8 positions.
    x, y = quest.pair_row([BOS, 10, 11, BOS], [20, 21], T=8)
    no = -1  # IGNORE
    assert x.tolist() == [BOS, 10, 11, BOS, 20, 21, EOS, PAD]
    # After the second <BOS> the story is to follow, and after its last token <EOS>.
    assert y.tolist() == [no, no, no, 20, 21, EOS, no, no]


def test_a_pair_that_does_not_fit_is_left_out_whole(quest):
    # 4 + 2 + 1 tokens are 6 inputs, because <EOS> is only a target.
    assert quest.pair_row([BOS, 10, 11, BOS], [20, 21], T=5) is None
    x, y = quest.pair_row([BOS, 10, 11, BOS], [20, 21], T=6)
    assert x.tolist() == [BOS, 10, 11, BOS, 20, 21] and y[-1] == EOS


def test_masked_targets_change_neither_the_loss_nor_its_gradient(quest, gpt):
    model = tiny(gpt)
    x, y = quest.pair_row([BOS, 10, 11, BOS], [20, 21, 22], T=16)
    losses = torch.nn.functional.cross_entropy(model(x[None])[0][0], y.clamp(min=0),
                                               reduction="none")  # fmt: skip
    by_hand = quest.masked_loss(losses.tolist(), y.tolist())
    assert model(x[None], y[None])[1].item() == pytest.approx(by_hand, rel=1e-5)
    # What follows <EOS> is as if it were not there.
    other = x.clone()
    other[8:] = 99
    assert torch.equal(model(x[None], y[None])[1], model(other[None], y[None])[1])


def test_a_fully_masked_row_has_no_weight_but_a_fully_masked_batch_would_be_nan(
    quest, gpt
):
    model = tiny(gpt)
    x, y = quest.pair_row([BOS, 10, 11, BOS], [20, 21], T=16)
    masked = torch.full_like(y, gpt.IGNORE)
    both = model(torch.stack([x, x]), torch.stack([y, masked]))[1]
    assert both.item() == pytest.approx(model(x[None], y[None])[1].item(), rel=1e-6)
    # 0 / 0 in 03_model.py: so no batch of ours may be without a target (see below).
    assert model(x[None], masked[None])[1].isnan()


# -------------------------------------------------------------------- the batches


@pytest.fixture
def tokens(quest, prepared):
    return quest.train.Tokens(prepared / "artifacts/02_prepare/train.bin", 512, seed=1)


def decoded(tokenizer, ids):
    return [tokenizer.decode(part) for part in split_at(ids, BOS)]


def split_at(ids, mark):
    parts = [[]]
    for i in ids:
        parts.append([]) if i == mark else parts[-1].append(i)
    return parts[1:]


def test_a_batch_holds_pairs_and_plain_stories(quest, tokenizer, tokens):
    x, y = quest.get_batch(ps, tokenizer, tokens, n=3)  # every third: whole stories
    assert x.shape == y.shape == (9, 512)
    for ids, targets in zip(x[:7].tolist(), y[:7].tolist()):
        text, story = decoded(tokenizer, ids)
        assert ps.check(story) is None
        words = ps.known_words(text.lower())
        assert len(words) >= 3 and set(words[:3]) <= set(ps.WHOLE_WORD.findall(story))
        answer = [i for i in targets if i != -1]
        assert tokenizer.decode(answer) == story and answer[-1] == EOS
    plain, after = quest.train.get_batch(tokens, 3, 2)
    assert torch.equal(x[7:], plain) and torch.equal(y[7:], after)


def test_two_of_three_batches_hold_more_rows_cut_to_a_half_or_a_third(
    quest, tokenizer, tokens
):
    shapes = [tuple(quest.get_batch(ps, tokenizer, tokens, n)[0].shape)
              for n in (0, 1, 2, 3, quest.STEPS * 4 // 5 + 1)]  # fmt: skip
    whole, half, third = (9, 512), (14, 256), (21, 170)
    assert shapes == [whole, half, third, whole, whole]  # the last fifth is whole
    x, y = quest.get_batch(ps, tokenizer, tokens, 2)
    for ids, targets in zip(x[:21].tolist(), y[:21].tolist()):
        text, story = decoded(tokenizer, ids)
        begins = tokenizer.decode([i for i in targets if i != -1])
        # One target more than inputs, and nowhere a false end.
        assert begins.startswith(story) and EOS not in targets
        assert ps.check(begins.rpartition(".")[0] + ".").kind == "an end too early"


@pytest.mark.parametrize("n, cut", [(0, 1), (1, 2), (2, 3)])
def test_a_batch_uses_the_pairs_whose_words_come_latest_but_are_not_cut_off(
    quest, tokenizer, tokens, n, cut
):
    def place(pair):  # where words begin, as fractions of the story, summed
        request, _, story = pair
        places = [story.find(word) / len(story) for word in request.words]
        return sum(place for place in places if place < 0.9 / cut)

    # Of 15 pairs the 7 latest; of rows cut to a half, 14 of 30; to a third, 21 of 45.
    drawn = itertools.islice(quest.requests(ps, 10**6 + n, held_out=False), 15 * cut)
    latest = [story for *_, story in sorted(drawn, key=place, reverse=True)[: 7 * cut]]
    x, _ = quest.get_batch(ps, tokenizer, tokens, n)
    used = [decoded(tokenizer, ids)[1] for ids in x[: 7 * cut].tolist()]
    assert all(story.startswith(begin) for story, begin in zip(latest, used, strict=True))


def test_muon_moves_the_matrices_of_the_blocks_and_adamw_all_else(quest, gpt):
    model = tiny(gpt)
    adamw, muon = quest.configure_optimizers(model)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    x = torch.arange(20).view(1, 20)
    for rate, moves in ((0.0, False), (0.01, True)):  # Muon follows AdamW's rate
        for group in adamw.param_groups:
            group["lr"] = rate
        model(x, x)[1].backward()
        adamw.step()
        after = model.state_dict()
        moved = [name for name in before if not torch.equal(before[name], after[name])]
        assert moved == [name for name in before if moves]
    matrices = {name for name in before if name.startswith("h.") and "ln" not in name}
    names = {weight: name for name, weight in model.named_parameters()}
    assert {names[weight] for weight in muon.state} == matrices
    assert {names[weight] for weight in adamw.state} == before.keys() - matrices


def test_every_row_of_every_batch_has_a_target(quest, tokenizer, tokens, monkeypatch):
    monkeypatch.setattr(quest, "PLAIN", 0)
    for n in range(4):
        _, y = quest.get_batch(ps, tokenizer, tokens, n)
        assert len(y) in (7, 14, 21) and ((y != -1).sum(dim=1) > 50).all()


def test_a_batch_depends_on_its_number_and_the_seed_alone(
    quest, tokenizer, tokens, monkeypatch
):
    first = quest.get_batch(ps, tokenizer, tokens, 7)[0]
    other = quest.get_batch(ps, tokenizer, tokens, 10)[0]
    assert torch.equal(first, quest.get_batch(ps, tokenizer, tokens, 7)[0])
    assert not (first[:, None] == other).all(dim=2).any()  # no row is in both
    monkeypatch.setattr(quest, "SEED", 2)
    assert not torch.equal(first, quest.get_batch(ps, tokenizer, tokens, 7)[0])


def test_combinations_of_the_evaluation_are_never_trained_on(quest):
    def combinations(seeds, held_out, count=6):
        for seed in seeds:
            some = quest.requests(ps, seed, held_out, count)
            yield from (frozenset(request.words) for request, *_ in some)

    trained = set(combinations(range(100), held_out=False))
    asked = set(combinations([10**15], held_out=True, count=200))
    assert len(trained) > 500 and len(asked) == 200 and not trained & asked
    # In whatever order the words are named:
    for words in asked:
        orders = list(itertools.permutations(words))
        assert len(orders) == 6 and all(map(quest.is_held_out, orders))


def test_fewer_requests_are_sad_in_training_than_in_the_evaluation(quest):
    shares = [np.mean([request.ending == "sad" for request, *_ in
                       quest.requests(ps, 5, held_out, 200)])
              for held_out in (False, True)]  # fmt: skip
    # Not 0.25 and 0.5: no combination comes twice, and sad plots have fewer of them.
    assert 0.12 < shares[0] < 0.3 < shares[1] < 0.5


def test_one_combination_in_ten_is_held_out(quest):
    drawn = sorted(ps.word_plots()[1])[:30]
    held = list(map(quest.is_held_out, itertools.combinations(drawn, 3)))  # 4,060
    assert 0.08 < np.mean(held) < 0.12


def test_half_of_the_requests_name_a_hero_in_all_phrasings(quest):
    some = list(quest.requests(ps, 4, held_out=False, count=400))
    assert len(some) == 400
    assert 160 <= sum(request.hero is None for request, *_ in some) <= 240
    starts = Counter(text.split()[0] for _, text, _ in some)
    assert set(starts) == {"a", "Words:", "Tell"}
    assert min(starts.values()) >= 60


def test_whether_the_first_request_names_a_hero_does_not_depend_on_its_ending(quest):
    # With one generator for the grammar's draws and another of the same seed for ours,
    # the numbers that make an ending sad would also name a hero, and so on.
    firsts = [next(quest.requests(ps, seed, False, 1))[0] for seed in range(400)]
    for ending in ("sad", "happy"):
        heroes = [bool(request.hero) for request in firsts if request.ending == ending]
        assert 0.35 < sum(heroes) / len(heroes) < 0.65, (ending, heroes)


# -------------------------------------------------------- requests as people type them


@pytest.mark.parametrize("typed, ending", [
    ("a story with ice, sad ending", "sad"),
    ("Words: ice\nFeatures: BadEnding", "sad"),
    ("a story with ice and a bad ending", "sad"),
    ("an unhappy story with ice", "sad"),
    ("a story with ice, happy ending", "happy"),
    ("a story with ice", "happy"),  # as in TinyStories-Instruct: only bad ones are named
])  # fmt: skip
def test_an_ending_is_read_from_the_words_that_people_use(quest, typed, ending):
    assert quest.read_request(ps, typed).ending == ending


def test_a_request_written_in_any_phrasing_is_read_as_it_was_meant(quest):
    endings, heroes = ("sad", "happy"), ("Lily", "the little fox", None)
    for phrasing in quest.PHRASINGS:
        for ending, hero in itertools.product(endings, heroes):
            request = quest.Request(["kite", "pond", "brave"], hero, ending)
            text = quest.write_request(request, phrasing)
            assert quest.read_request(ps, text) == request, text


@pytest.mark.parametrize(
    "typed, words, hero, ending, note",
    [
        ("Kite!", ["kite"], None, "happy", ""),
        ("a SAD story with a Brave pond", ["brave", "pond"], None, "sad", ""),
        ("it ends sadly: ice", ["ice"], None, "sad", ""),
        ("kite, spaceship", ["kite"], None, "happy", "spaceship"),
        ("kite drum ball doll", ["kite", "drum", "ball"], None, "happy", "doll"),
        ("Clover with clover and kite", ["kite"], "Clover", "happy", ""),
        ("<EOS> kite </script>", ["kite"], None, "happy", "eos, script"),
    ],
)  # fmt: skip
def test_a_free_request_is_read_for_what_is_known(
    quest, capsys, typed, words, hero, ending, note
):
    assert quest.read_request(ps, typed) == (words, hero, ending)
    said = capsys.readouterr().out
    assert f"fourth word): {note}\n" in said if note else "left out" not in said


@pytest.mark.parametrize("typed", ["", "   ", "spaceship", "a sad story", "\ud83d", "🪁"])
def test_a_request_with_no_known_word_gets_three_lines(quest, typed):
    with pytest.raises(SystemExit) as stopped:
        quest.read_request(ps, typed)
    what, why, how = str(stopped.value).split("\n")
    assert "No word of" in what and "The 538 are: " in why
    assert how == quest.TRY and how.startswith(f"python {ME} ")


# --------------------------------------------------------- answers, and their measure


def test_answers_come_in_the_order_of_the_requests(quest, gpt, tokenizer, monkeypatch):
    # The default is greedy: nothing depends on the other rows of a batch.
    assert quest.TEMPERATURE == 0.0
    model = tiny(gpt, block_size=64).eval()
    texts = ["kite", "a sad story with kite", "pond", "kite"]
    together = quest.answer(model, tokenizer, texts, seed=1)
    assert together == [quest.answer(model, tokenizer, [t], seed=1)[0] for t in texts]
    assert together[0] == together[3] and len(set(together)) == 3


def test_with_a_temperature_equal_requests_get_different_stories(
    quest, gpt, tokenizer, monkeypatch
):
    monkeypatch.setattr(quest, "TEMPERATURE", 0.8)
    model, ask = tiny(gpt, block_size=64).eval(), ["kite", "kite", "a kite"]
    stories = quest.answer(model, tokenizer, ask, seed=1)
    assert len(set(stories)) == 3
    assert stories == quest.answer(model, tokenizer, ask, seed=1)
    assert stories != quest.answer(model, tokenizer, ask, seed=2)


def test_wishes_are_counted_over_all_requests(quest):
    Request, (pair, other) = quest.Request, ps.pairs(2, seed=9)
    asked = [Request(pair.words, pair.hero, pair.ending),
             Request([*pair.words[:2], "spaceship"], None, pair.ending),
             Request(other.words, "Nobody", "neither")]  # fmt: skip
    answers = [(pair.story, True), (pair.story, False), ("", True)]
    assert quest.measure(ps, asked, answers) == {
        "each word": [True] * 5 + [False] * 4, "all words": [True, False, False],
        "hero": [True, False], "ending": [True, True, False],
        "story right": [True, False, False],  # one did not end, one is empty
    }  # fmt: skip


def test_a_word_counts_only_as_a_whole_word(quest):
    request = quest.Request(["kite", "cat", "red"], None, "happy")
    kept = quest.wishes_kept(ps, request, "Two kites, the cat's tail. A red-hot Red.")
    assert kept["each word"] == [False, False, False]


def test_a_table_without_any_request_for_a_hero_is_printed_all_the_same(quest, capsys):
    quest.print_table({"after": {"hero": [], "ending": [True]}})
    assert re.search(r"hero +0% \(", capsys.readouterr().out)


# ------------------------------------------------------------------- the whole run


def files_of_stages(folder):
    return {path: path.read_bytes() for path in folder.rglob("artifacts/0*/*")}


@pytest.fixture(scope="module")
def trained(prepared, gpt, bpe, tmp_path_factory):
    """A folder with a tiny "trained" model of the small text, as a practice text."""
    folder = tmp_path_factory.mktemp("instruct")
    shop = Workshop(folder)
    shutil.copytree(prepared / "artifacts", folder / "artifacts")
    path = folder / "artifacts/02_prepare/meta.json"
    meta = json.loads(path.read_text())
    meta["constants"]["TEXT"] = "practice"
    path.write_text(json.dumps(meta))
    model = tiny(gpt)
    gpt.save_checkpoint(folder / "artifacts/04_train/best.pt", {
        "config": dict(vars(model.config)), "tokenizer": meta["tokenizer"],
        "fingerprint": {"data": meta["train"]["sha256"]}, "alibi": 0.0,
        "weights": model.state_dict(),
    })  # fmt: skip
    shop.edit(ME, STEPS=3, REQUESTS=2, SAVE_EVERY=2)
    shop.stages = files_of_stages(folder)
    done = shop.run(ME)
    assert done.returncode == 0, done.stdout + done.stderr
    shop.output = done.stdout
    return shop


@pytest.fixture
def again(trained, tmp_path):
    """A copy of the folder after the run."""
    shutil.copytree(trained.folder, tmp_path / "copy")
    return Workshop(tmp_path / "copy", copy=False)


def test_a_run_says_what_it_does_and_what_came_of_it(trained):
    for words in (
        "[plan] 3 steps, up to (7 pairs + 2 plain) x 512 tokens",
        "of 500 pairs do not fit",
        "[wrote] artifacts/instruct/model.pt", "[start] 2 requests",
        "each word", "all words", "hero", "ending", "story right", "bits per byte",
    ):  # fmt: skip
        assert words in trained.output, words
    last = trained.output.rstrip().splitlines()[-1]
    assert last.startswith(f'Next: python {ME} "')


def test_the_model_is_a_checkpoint_like_best_and_stages_1_to_6_are_untouched(
    trained, gpt
):
    artifacts = trained.folder / "artifacts"
    model, content = gpt.GPT.load(artifacts / "instruct/model.pt", ME)
    base, old = gpt.GPT.load(artifacts / "04_train/best.pt", "04_train.py")
    assert model.config == base.config and content["tokenizer"] == old["tokenizer"]
    assert not torch.equal(model.wte.weight, base.wte.weight)
    assert {p.name for p in (artifacts / "instruct").iterdir()} == {"model.pt", "last.pt"}
    assert files_of_stages(trained.folder) == trained.stages  # no byte, and no new file


def test_a_second_run_trains_no_more_and_measures_the_same(again, trained, gpt):
    path = again.folder / "artifacts/instruct/model.pt"
    before = gpt.load_checkpoint(path, ME)["weights"]
    path.unlink()  # as if the first run had been killed between its two last files
    done = again.run(ME)
    assert done.returncode == 0 and "resuming after step 3" in done.stdout
    after = gpt.load_checkpoint(path, ME)["weights"]
    assert all(torch.equal(before[name], after[name]) for name in before)
    table = trained.output.index("[start] 2 requests")
    assert done.stdout.endswith(trained.output[table:])


def test_a_request_gets_a_story_and_a_list_of_its_wishes(again):
    done = again.run(ME, ICE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"model.pt reads {ICE!r}" in done.stdout
    wishes = re.search(r"wishes kept: ice (yes|NO), cold (yes|NO), sleigh (yes|NO), "
                       r"Lily (yes|NO), sad (yes|NO); by the grammar: wrong\n",
                       done.stdout)  # fmt: skip
    assert wishes, done.stdout  # wrong, because 3 steps are few


def test_a_request_that_no_plot_can_keep_is_answered_with_a_note(again):
    # A kite is in two plots, and neither of them has a sleigh.
    done = again.run(ME, "kite and sleigh")
    assert done.returncode == 0 and "[note] no plot draws all of these words" in done.stdout


def test_without_the_grammar_a_request_is_passed_on_as_typed(again):
    (again.folder / "lessons/practice_stories.py").unlink()
    done = again.run(ME, "spaceship!")
    assert done.returncode == 0, done.stderr
    assert "practice_stories.py is missing, so no story is checked" in done.stdout
    assert "model.pt reads 'spaceship!'" in done.stdout
    long = again.run(ME, "\U0001fa81" * 999)  # a kite, four bytes, so four tokens
    assert long.returncode == 0 and "\U0001fa81" * 26 not in long.stdout
    again.refuses(ME, "needs the grammar", "A finished model.pt of this tokenizer")


# --------------------------------------------------------------------- interrupted


def test_ctrl_c_saves_and_the_same_command_resumes_to_the_same_model(
    quest, gpt, tokenizer, tokens, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(quest, "STEPS", 5)
    header, get_batch = {"config": {}, "fingerprint": {}}, quest.get_batch

    def run(folder, state=None, stop_at=None):
        def batch(grammar, tokenizer, tokens, n):
            if n == stop_at:
                os.kill(os.getpid(), signal.SIGINT)
            return get_batch(grammar, tokenizer, tokens, n)

        monkeypatch.setattr(quest, "OUT", tmp_path / folder)
        monkeypatch.setattr(quest, "get_batch", batch)
        model = tiny(gpt)
        quest.fine_tune(model, ps, tokenizer, tokens, state, header)
        return model.state_dict()

    whole = run("whole")
    with pytest.raises(SystemExit) as stopped:
        run("parts", stop_at=2)
    assert "Step 3 of 5 is saved" in str(stopped.value)
    state = gpt.load_checkpoint(tmp_path / "parts/last.pt", ME)
    assert state["step"] == 3 and not (tmp_path / "parts/model.pt").exists()
    resumed = run("parts", state)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert "resuming after step 3" in capsys.readouterr().out


# ------------------------------------------------------------- a user's mistakes


def test_without_best_pt_the_script_that_writes_it_is_named(workshop, small_tokenizer):
    small_tokenizer(workshop)
    workshop.refuses(ME, "best.pt is missing", "python 04_train.py")


def test_a_request_before_the_fine_tuning_is_told_what_to_run(again):
    (again.folder / "artifacts/instruct/model.pt").unlink()
    again.refuses(ME, "model.pt is missing", f"python {ME}", arguments=[ICE])


def test_a_model_of_another_text_cannot_be_fine_tuned_here(again):
    path = again.folder / "artifacts/02_prepare/meta.json"
    path.write_text(path.read_text().replace('"practice"', '"my/own.txt"'))
    again.refuses(ME, "needs the grammar", 'Set TEXT = "practice" in 01')


@pytest.mark.parametrize("request_", ["", "spaceship"])
def test_an_empty_or_unknown_request_is_refused(again, request_):
    again.refuses(ME, "No word of", "The 538 are", arguments=[request_])


@pytest.mark.parametrize("name, arguments", [("last.pt", []), ("model.pt", [ICE])])
def test_a_damaged_file_is_named(again, name, arguments):
    path = again.folder / "artifacts/instruct" / name
    path.write_bytes(path.read_bytes()[:1000])
    again.refuses(ME, f"{name} cannot be read", f"python {ME}", arguments=arguments)


def test_a_model_with_a_short_context_is_refused(again, gpt):
    path = again.folder / "artifacts/04_train/best.pt"
    content = gpt.load_checkpoint(path, "04_train.py")
    content["config"]["block_size"] = 64
    content["weights"]["wpe.weight"] = content["weights"]["wpe.weight"][:64].clone()
    gpt.save_checkpoint(path, content)
    shutil.rmtree(again.folder / "artifacts/instruct")
    again.refuses(ME, "context length of best.pt is too short", 'SIZE = "nano"')


def test_another_run_is_not_overwritten(again):
    before = (again.folder / "artifacts/instruct/last.pt").read_bytes()
    again.edit(ME, MAX_LR=1e-3, SEED=7)
    again.refuses(ME, "holds another run. Changed: SEED, MAX_LR.", "mv artifacts/instruct")
    assert (again.folder / "artifacts/instruct/last.pt").read_bytes() == before


@pytest.mark.parametrize(
    "name, value", [("STEPS", 0), ("PAIRS", 0), ("PLAIN", -1), ("MAX_LR", 2.0)]
)
def test_a_constant_out_of_range_is_named(workshop, name, value):
    workshop.edit(ME, **{name: value})
    workshop.refuses(ME, f"{name} = {value!r}", f"Edit {name} at the top of {ME}")


def test_an_empty_answer_gets_three_lines(quest, gpt, tokenizer, monkeypatch):
    monkeypatch.setattr(quest.gpt.GPT, "load", lambda *_: (tiny(gpt), {}))
    monkeypatch.setattr(quest.bpe, "check_tokenizer", lambda *_: None)
    monkeypatch.setattr(quest.bpe.Tokenizer, "load", lambda: tokenizer)
    monkeypatch.setattr(quest, "answer", lambda *_: [("", True)])
    with pytest.raises(SystemExit) as stopped:
        quest.tell("kite")
    what, why, how = str(stopped.value).split("\n")
    assert "empty" in what and "<EOS>" in why and ME in how


def test_the_script_has_the_form_of_the_others():
    text = (ROOT / ME).read_text("utf-8")
    lines = text.splitlines()
    assert len(lines) <= 350 and max(map(len, lines)) <= 88
    titles = re.findall(r"^# =+ (\d+)\. ", text, re.MULTILINE)
    assert [int(n) for n in titles] == list(range(1, len(titles) + 1))
