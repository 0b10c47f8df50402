"""The taste quest: votes become duels, duels move the model, and no vote is ever lost."""
import copy
import doctest
import importlib
import json
import math
import os
import random
import re
import signal
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from test_take_home import lively, write_best

ME = "lessons/quests/prefer.py"
SIZES = {"vocab_size": 400, "block_size": 64, "n_layer": 1, "n_head": 2, "n_embd": 32}
PROMPT = [2, 50, 60]  # <BOS> and two tokens
DUELS = [([*PROMPT, 100 + i, 7, 3], [*PROMPT, 200 + i, 8, 9, 3]) for i in range(24)]


@pytest.fixture(scope="module")
def quest():
    sys.path.append(str(ROOT / "lessons" / "quests"))
    return importlib.import_module("prefer")


@pytest.fixture(scope="module")
def stories():
    import practice_stories

    return practice_stories


@pytest.fixture(scope="module")
def tokenizer(prepared, bpe):
    return bpe.Tokenizer.load(prepared / "artifacts/01_bpe/tokenizer.json")


def test_the_examples_in_the_docstrings_are_true(quest):
    failed, tried = doctest.testmod(quest)
    assert tried == 4 and failed == 0


# ------------------------------------------------------------------------ the formulas


def test_a_log_prob_is_the_sum_over_the_tokens_after_the_prompt(quest, gpt):
    model = lively(gpt, **SIZES)
    stories = [[*PROMPT, 70, 80, 90, 3], [*PROMPT, 70, 3]]  # the second one is padded
    by_hand = []
    for ids in stories:
        total = 0.0
        for t in range(len(PROMPT), len(ids)):  # each token, given those before it
            logits = model(torch.tensor([ids[:t]]))[0][0, -1]
            total += logits.log_softmax(dim=-1)[ids[t]].item()
        by_hand.append(total)
    with torch.no_grad():
        together = quest.story_log_probs(model, stories, PROMPT).tolist()
    assert together == pytest.approx(by_hand, abs=1e-3)
    assert quest.score(model, stories, PROMPT).tolist() == pytest.approx(together)


def test_the_loss_does_not_see_what_both_stories_gained(quest):
    ref = torch.zeros(1, 2)
    gained, more = torch.tensor([[5.0, 2.0]]), torch.tensor([[105.0, 102.0]])
    losses = [quest.dpo_loss(now, ref, 0.1)[0].item() for now in (gained, more)]
    assert losses[0] == pytest.approx(losses[1])  # margin 0.3 both times
    assert losses[0] == pytest.approx(-math.log(1 / (1 + math.exp(-0.3))))


def test_the_gradient_raises_the_chosen_and_lowers_the_rejected_story_equally(quest):
    now = torch.zeros(1, 2, requires_grad=True)
    quest.dpo_loss(now, torch.zeros(1, 2), 0.1)[0].backward()
    # At margin 0: beta * (1 - sigmoid(0)) = 0.1 * 0.5, with opposite signs
    assert now.grad.tolist() == [[pytest.approx(-0.05), pytest.approx(0.05)]]


# ------------------------------------------------------------------------------- votes


def test_the_hero_of_every_told_story_is_recognized(quest, stories):
    rng, wrong, seen = random.Random(5), [], set()
    for _ in range(1500):
        plot = stories.pick(rng, list(stories.PLOTS))
        draws, beats = stories.parse(stories.PLOTS[plot])
        slots = stories.draw_slots(rng, draws)
        text = "".join(stories.fill(stories.pick(rng, beat), slots) for beat in beats)
        seen.add(slots["lives"])
        if quest.hero(text, stories) != slots["lives"]:
            wrong.append(text)
    assert not wrong and seen == {"child", "animal", "toy"}


@pytest.mark.parametrize(
    "text, kind",
    [
        ("Once upon a time, there was a little fox named Rusty. A little girl", "animal"),
        ("Everyone knew Mia. Mia was a little girl. A little bear came.", "child"),
        ("There once was a little cloth bear named Button.", "toy"),  # not a bear
        ("Once upon a time, there was a little foxglove.", None),  # not a fox
        ("Once upon a time", None),  # the prompt alone
    ],
)
def test_a_hero_is_what_the_first_words_introduce(quest, stories, text, kind):
    assert quest.hero(text, stories) == kind


FOX, MIA = "There was a little fox named Rusty.", "There was a little girl named Mia."


def test_the_built_in_voter_votes_by_its_taste_alone(quest, stories, monkeypatch):
    pairs = [(FOX, MIA), (MIA, FOX), (FOX, FOX + " It ran."), (MIA, MIA)]
    assert quest.builtin_votes(pairs, stories) == [1, 2, 0, 0]
    monkeypatch.setattr(quest, "TASTE", "short")
    # MIA is one character shorter than FOX, and FOX shorter than FOX with more text.
    assert quest.builtin_votes(pairs, None) == [2, 1, 1, 0]


def test_the_built_in_voter_stops_when_enough_votes_decide(quest, stories, monkeypatch):
    monkeypatch.setattr(quest, "VOTES", 2)
    votes = quest.builtin_votes([(FOX, FOX), *[(FOX, MIA)] * 9], stories)
    assert votes == [0, 1, 1]


def test_two_columns_fit_into_the_terminal_and_lose_no_word(quest):
    for width in (20, 40, 80, 200):
        lines = quest.side_by_side([FOX + "\n" + MIA, "word " * 60], width)
        assert max(map(len, lines)) <= width, width
        assert all("  |" in line for line in lines)
        left, right = map(" ".join, zip(*(line.split("  |") for line in lines)))
        assert left.split() == (FOX + " " + MIA).split()
        assert right.split() == ["word"] * 60


@pytest.fixture
def typing(quest, tmp_path, monkeypatch):
    """Votes typed at the prompt; gives what is in votes-you.json at each question."""
    monkeypatch.setattr(quest, "OUT", tmp_path)

    def run(*answers):
        answers, on_disk = list(answers), []

        class Keyboard:
            def readline(self):
                on_disk.append(quest.read("votes-you.json", {}, tmp_path))
                if answers[0] is KeyboardInterrupt:
                    raise KeyboardInterrupt
                return answers.pop(0)

        monkeypatch.setattr(sys, "stdin", Keyboard())
        quest.vote([(FOX, MIA)] * 5, {})
        return on_disk

    return run


def test_each_vote_is_on_disk_before_the_next_question(typing, quest, tmp_path, capsys):
    seen = typing("1\n", " 2 \n", "S\n", "what?\n", "q\n")
    assert seen == [[], [1], [1, 2], [1, 2, 0], [1, 2, 0]]
    shown = capsys.readouterr().out
    assert "pair 3 of 5" in shown and "2 votes, 1 skips" in shown
    assert FOX.split()[-1] in shown and "Mia" in shown
    assert typing("2\n", "") == [[1, 2, 0], [1, 2, 0, 2]]  # resumes; Ctrl-D quits
    assert "pair 5 of 5" in capsys.readouterr().out
    assert typing("1\n") == [[1, 2, 0, 2]] and typing() == []  # no pair is left
    assert quest.read("votes-you.json", {}, tmp_path) == [1, 2, 0, 2, 1]


def test_ctrl_c_at_the_prompt_loses_no_vote(typing, quest, tmp_path):
    with pytest.raises(KeyboardInterrupt):  # run_stage() answers it in three lines
        typing("1\n", "2\n", KeyboardInterrupt)
    assert quest.read("votes-you.json", {}, tmp_path) == [1, 2]


# ---------------------------------------------------------------------------- training


@pytest.fixture
def training(quest, gpt, tokenizer, tmp_path, monkeypatch):
    """DPO on DUELS with a tiny model: run() -> (model before, model after, rows)."""
    for name, value in dict(OUT=tmp_path, BATCH=5, AT_ONCE=4, EPOCHS=4).items():
        monkeypatch.setattr(quest, name, value)
    monkeypatch.setattr(quest, "MAX_LR", 1e-3)

    def run(path="model.pt", how="one run"):
        before = lively(gpt, **SIZES)
        model, path = copy.deepcopy(before), tmp_path / path
        content = {"config": vars(before.config)}
        world = (DUELS, PROMPT, [how], path, tokenizer, None)
        quest.train(model, before, content, *world)
        after, content = gpt.GPT.load(path, "nobody")
        return before, after, content

    return run


def test_after_training_held_out_votes_are_ranked_right(training, quest, capsys):
    before, after, content = training()
    first, last = content["rows"][0], content["rows"][-1]
    assert first["step"] == 0 and last["step"] == 16  # 4 epochs of 20 duels, 5 a step
    assert first["accuracy"] == 0.5  # all margins are 0: a tie counts half
    assert first["kl"] == 0 and first["chosen"] == first["rejected"] == 0
    assert last["accuracy"] == 1 and last["chosen"] > last["rejected"]
    assert last["kl"] > 0
    held_out = DUELS[5::6]
    gained = [quest.score(m, quest.flat(held_out), PROMPT) for m in (after, before)]
    rewards = quest.BETA * (gained[0] - gained[1]).view(-1, 2)
    assert rewards.mean(dim=0).tolist() == pytest.approx(
        [last["chosen"], last["rejected"]], abs=1e-4
    )
    assert "16 steps, 20 votes; 4 are held out" in capsys.readouterr().out


def test_every_sixth_vote_is_never_trained_on(training, quest, monkeypatch):
    seen, step = [], quest.train_step

    def spy(model, optimizer, duels, *rest):
        seen.append(duels)
        step(model, optimizer, duels, *rest)

    monkeypatch.setattr(quest, "train_step", spy)
    training()
    assert all(duels == [d for i, d in enumerate(DUELS) if i % 6 != 5] for duels in seen)
    assert len(seen[0]) == 20 and len(seen) == 16


def test_a_run_stopped_by_ctrl_c_ends_like_one_that_was_not(
    training, quest, monkeypatch, capsys
):
    _, whole, content = training("whole.pt")
    step, count = quest.train_step, []

    def interrupted(*arguments):
        step(*arguments)
        count.append(1)
        if len(count) in (3, 8):  # in an epoch of 4 steps, and between two
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(quest, "train_step", interrupted)
    for saved in (3, 8):
        with pytest.raises(SystemExit, match=f"Step {saved} of 16 is saved"):
            training("parts.pt")
    _, parts, again = training("parts.pt")
    assert "resuming after step 8" in capsys.readouterr().out
    assert len(count) == 16
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, parts.state_dict()[name]), name
    assert content["rows"] == again["rows"]


def test_other_votes_or_settings_begin_a_new_run(training, capsys):
    training()
    capsys.readouterr()
    training(how="another run")
    assert "resuming" not in capsys.readouterr().out


def test_a_damaged_state_says_how_to_start_again(training, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"half a file")
    with pytest.raises(SystemExit, match=r"rm .*model.pt && python"):
        training()


def test_all_batches_of_an_epoch_are_all_duels_once(quest, gpt, monkeypatch):
    model, seen = lively(gpt, **SIZES), []
    optimizer = quest.training.configure_optimizer(model)
    monkeypatch.setattr(quest, "BATCH", 7)
    real = quest.story_log_probs
    monkeypatch.setattr(
        quest, "story_log_probs", lambda m, s, p: seen.append(s) or real(m, s, p)
    )
    for step in range(4):
        quest.train_step(model, optimizer, DUELS, torch.zeros(24, 2), PROMPT, step, 4)
    assert [len(stories) for stories in seen] == [14, 14, 14, 6]  # 24 = 3 * 7 + 3
    assert sorted(sum(seen, [])) == sorted(quest.flat(DUELS))


# -------------------------------------------------------------------------- the script


def fill(shop, gpt, bpe, seed=1):
    tokenizer = shop.folder / "artifacts/01_bpe/tokenizer.json"
    model = lively(gpt, seed, **SIZES)
    write_best(shop.folder / "artifacts/04_train/best.pt", gpt, bpe, tokenizer, model)
    shop.edit(ME, PAIRS=32, EPOCHS=1, TASTE="short", VOTES=24, BATCH=10, SAMPLES=4)
    return shop


@pytest.fixture
def ready(workshop, small_tokenizer, gpt, bpe):
    return fill(small_tokenizer(workshop), gpt, bpe)


def votes_file(shop, votes):
    """votes-you.json as vote writes it, for the pairs that are there."""
    folder = shop.folder / "artifacts" / "prefer"
    made_from = json.loads((folder / "pairs.json").read_text("utf-8"))["made_from"]
    text = json.dumps({"made_from": made_from, "items": votes})
    (folder / "votes-you.json").write_text(text, "utf-8")
    return folder / "votes-you.json"


def test_one_command_samples_votes_trains_and_shows(ready, bpe, gpt):
    old = {path: path.read_bytes() for path in ready.folder.rglob("artifacts/0*/*")}
    done = ready.run(ME)
    assert done.returncode == 0, done.stderr
    for words in ("[read]", "24 votes", "[start] 2 steps",
                  "4 are held out", "held-out accuracy", "[wrote]", "before", "Next: "):
        assert words in done.stdout, done.stdout  # fmt: skip
    folder = ready.folder / "artifacts" / "prefer"
    names = {"pairs.json", "votes-short.json", "model-short.pt", "prefer.html"}
    assert {path.name for path in folder.iterdir()} == names
    model, content = gpt.GPT.load(folder / "model-short.pt", "nobody")
    best = torch.load(ready.folder / "artifacts/04_train/best.pt", weights_only=True)
    assert best.keys() <= content.keys() | {"weights"}  # what 05 and 06 look for
    assert not torch.equal(model.wte.weight, best["weights"]["wte.weight"])
    assert {p: p.read_bytes() for p in old} == old  # nothing of the stages is touched

    pairs = (folder / "pairs.json").read_bytes()
    again = ready.run(ME, "show")  # no new training, the same pairs
    assert "[start] 2 steps" not in again.stdout and "before" in again.stdout
    assert (folder / "pairs.json").read_bytes() == pairs

    # Your votes are another file, and train says which one it uses.
    votes_file(ready, [1, 2] * 12 + [0] * 8)
    builtin = (folder / "votes-short.json").read_bytes()
    mine = ready.run(ME, "train")
    assert "votes-you.json: 24 votes, 8 skips" in mine.stdout, mine.stderr
    assert (folder / "votes-short.json").read_bytes() == builtin
    assert (folder / "model-you.pt").exists()


def test_what_is_missing_or_of_another_kind_is_three_lines(ready, gpt, bpe):
    ready.refuses(ME, "Unknown command: python", "vote, train, or show", arguments=["voet"])
    ready.edit(ME, TASTE="animals")  # the text of this workshop has no grammar
    ready.refuses(ME, 'TASTE = "animals" cannot vote', "short", "vote")
    ready.edit(ME, TASTE="cats")
    ready.refuses(ME, "TASTE = 'cats'", "'animals', 'short'")
    ready.edit(ME, TASTE="short", BETA=0.0)
    ready.refuses(ME, "BETA = 0.0")
    ready.edit(ME, BETA=0.1)
    ready.refuses(ME, "model-short.pt is missing", f"{ME} train", arguments=["show"])
    (ready.folder / "artifacts/04_train/best.pt").unlink()
    ready.refuses(ME, "best.pt is missing", "python 04_train.py")


def test_without_the_grammar_file_the_practice_text_says_so(ready):
    meta = ready.folder / "artifacts/02_prepare/meta.json"
    content = json.loads(meta.read_text("utf-8"))
    content["constants"]["TEXT"] = "practice"
    meta.write_text(json.dumps(content), "utf-8")
    (ready.folder / "lessons/practice_stories.py").unlink()
    ready.edit(ME, TASTE="animals")
    ready.refuses(ME, "cannot vote", "practice stories")
    ready.edit(ME, TASTE="short")
    done = ready.run(ME, "train")
    assert done.returncode == 0 and "no story is checked" in done.stdout, done.stderr


def test_votes_that_are_damaged_too_few_or_all_skipped_are_not_lost(ready):
    assert ready.run(ME, "train").returncode == 0
    path = votes_file(ready, [1, 2] * 11 + [1])
    ready.refuses(ME, "23 votes are too few", "24", f"{ME} vote", arguments=["train"])
    votes_file(ready, [0] * 32)
    ready.refuses(ME, "0 votes are too few", arguments=["train"])
    for damage in ("", "{", "[]", '{"made_from": 1}', path.read_text("utf-8")[:-3]):
        path.write_text(damage, "utf-8")
        lines = ready.refuses(ME, "votes-you.json cannot be used", arguments=["train"])
        assert re.match(r"mv \S*votes-you\.json \S+ && python ", lines[2]), lines
        assert path.read_text("utf-8") == damage
    votes_file(ready, [1, "left", 2])
    ready.refuses(ME, "must be 1, 2, or 0", arguments=["train"])
    move = ready.refuses(ME, "cannot be used", arguments=["train"])[2].split(" && ")[0]
    subprocess.run(move, shell=True, cwd=ready.folder, check=True)
    assert ready.run(ME, "train").returncode == 0  # as it said
    assert list(path.parent.glob("votes-you.json.*"))


def test_pairs_of_another_model_or_damaged_ones_are_not_thrown_away(ready, gpt, bpe):
    assert ready.run(ME, "train").returncode == 0
    path = ready.folder / "artifacts/prefer/pairs.json"
    pairs = path.read_bytes()
    fill(ready, gpt, bpe, seed=2)  # stage 4 has run again
    ready.refuses(ME, "pairs.json cannot be used", "another model", "mv artifacts/prefer ")
    assert path.read_bytes() == pairs
    fill(ready, gpt, bpe)
    path.write_bytes(pairs[:1000])
    ready.refuses(ME, "pairs.json cannot be used", "mv artifacts/prefer ")


def test_without_a_terminal_nobody_can_vote(ready, quest, monkeypatch):
    ready.refuses(ME, "Nobody can vote here", ME, arguments=["vote"])  # from /dev/null
    assert not (ready.folder / "artifacts/prefer").exists()  # before any work
    monkeypatch.setattr(sys, "argv", [ME, "vote"])
    monkeypatch.setattr(sys, "stdin", None)  # what Python makes of a closed one
    with pytest.raises(SystemExit, match="Nobody can vote here"):
        quest.check_inputs()


def test_sampling_that_was_stopped_resumes_with_equal_stories(
    quest, gpt, tmp_path, monkeypatch
):
    for name, value in dict(OUT=tmp_path, PAIRS=6, AT_ONCE=4).items():
        monkeypatch.setattr(quest, name, value)
    model = lively(gpt, **SIZES)
    whole = quest.get_pairs(model, PROMPT, {})
    assert len(whole) == 6 and all(a[:3] == b[:3] == PROMPT for a, b in whole)
    (tmp_path / "pairs.json").unlink()
    real, calls = quest.sample, []

    def stopped(*arguments):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return real(*arguments)

    monkeypatch.setattr(quest, "sample", stopped)
    with pytest.raises(KeyboardInterrupt):
        quest.get_pairs(model, PROMPT, {})
    monkeypatch.setattr(quest, "sample", real)
    assert quest.get_pairs(model, PROMPT, {}) == whole


# ---------------------------------------------------------------------------- the page

NASTY = "</script><b>Tom</b> & a little fox"


def test_the_page_shows_the_run_and_its_stories(bpe, browser, tmp_path):
    side = {"accuracy": 0.5, "chosen": 0.0, "rejected": 0.0, "kl": 0.0}
    counts = {"stories": 64, "tokens": 190.0, "animals": 18, "right": 9, "both": 3}
    rows = [{"step": 0} | side | counts]
    rows += [{"step": 25, "accuracy": 0.85, "chosen": -0.1, "rejected": -0.9, "kl": 3.25}
             | counts | {"animals": 48}]  # fmt: skip
    both = [counts | {"stories": 200}, counts | {"stories": 200, "animals": 150}]
    data = {"who": "animals", "beta": 0.1, "rows": rows, "both": both,
            "pairs": [[NASTY, "after one"], ["before two", "after two"]]}  # fmt: skip
    script = """
        const seen = { state: $('state').textContent, facts: $('facts').textContent,
          charts: document.querySelectorAll('svg').length, bold: document.querySelectorAll('b').length,
          before: $('before').textContent, readouts: $('charts').textContent };
        $('next').click(); seen.after = $('after').textContent;
        $('next').click(); seen.again = $('which').textContent;
        seen.wide = document.documentElement.scrollWidth - innerWidth;
        return seen;"""
    page = tmp_path / "prefer.html"
    page.write_text(bpe.fill_page("prefer.html", data), "utf-8")
    seen = browser.run(page, script)
    assert "hero is an animal" in seen["state"] and "25 steps" in seen["state"]
    assert "9% → 75%" in seen["facts"] and "85%" in seen["facts"]
    assert "17% → 2%" in seen["facts"]  # 3 of 18, 3 of 150
    assert "3.3 nats" in seen["facts"] and "step 25: " in seen["readouts"]
    assert seen["before"] == NASTY and seen["bold"] == 0  # text, never HTML
    assert seen["after"] == "after two" and seen["again"] == "Pair 1 of 2"
    assert seen["wide"] <= 0
    assert seen["charts"] == 4
    for row in [*rows, *both]:  # a text without a grammar: nothing to count
        del row["animals"], row["right"], row["both"]
    page.write_text(bpe.fill_page("prefer.html", data | {"who": "you"}), "utf-8")
    seen = browser.run(page, script)
    assert "You voted" in seen["state"] and seen["charts"] == 3
    assert "animal" not in seen["facts"]
