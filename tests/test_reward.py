"""The quest that practices: what is rewarded gets more probable, and nothing else does."""
import copy
import dataclasses
import doctest
import importlib
import json
import os
import signal
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT

ME = "lessons/quests/reward.py"
BOS, EOS = 2, 3
SIZES = {"block_size": 64, "n_layer": 1, "n_head": 2, "n_embd": 32}


@pytest.fixture(scope="module")
def quest():
    """The quest as a module, with the grammar that check_inputs() would find."""
    sys.path.append(str(ROOT / "lessons" / "quests"))
    module = importlib.import_module("reward")
    module.grammar = importlib.import_module("practice_stories")
    return module


@pytest.fixture(scope="module")
def tokenizer(prepared, bpe):
    """The tokenizer of the small text, 400 tokens."""
    return bpe.Tokenizer.load(prepared / "artifacts/01_bpe/tokenizer.json")


@pytest.fixture(scope="module")
def tokens(prepared):
    """The ids of train.bin."""
    return np.fromfile(prepared / "artifacts/02_prepare/train.bin", dtype="<u2")


@pytest.fixture(scope="module")
def story(quest):
    """A right story, and where its hero is named for the second time."""
    text = next(s for s in quest.grammar.stories(50, seed=9) if s.count(" Tom") > 2)
    return text, text.index(" Tom", text.index(" Tom") + 1)


def tiny(gpt, seed=1, **sizes):
    torch.manual_seed(seed)
    return gpt.GPT(gpt.GPTConfig(**{"vocab_size": 400} | SIZES | sizes)).eval()


def ids_of(tokenizer, text, ended=True):
    return [BOS, *tokenizer.encode(text)] + [EOS] * ended


def test_the_examples_of_the_docstrings_are_true(quest):
    assert doctest.testmod(quest).failed == 0
    assert doctest.testmod(quest).attempted >= 2


# ------------------------------------------------------------------------- the rewards


def judged(quest, tokenizer, ids):
    """-> (reward, the text of the tokens that it depends on, their number)."""
    reward, count = quest.honest_reward(tokenizer, ids, quest.check(tokenizer, ids))
    return reward, tokenizer.decode(ids[:count]), count


def test_a_right_story_has_reward_2_and_all_of_it_is_judged(quest, tokenizer, story):
    ids = ids_of(tokenizer, story[0])
    assert judged(quest, tokenizer, ids) == (2.0, story[0], len(ids))


def test_a_wrong_name_ends_what_is_judged_and_its_place_is_the_reward(
    quest, tokenizer, story
):
    text, at = story
    wrong = text[:at] + " Ben" + text[at + len(" Tom") :]
    reward, seen, _ = judged(quest, tokenizer, ids_of(tokenizer, wrong))
    assert reward == pytest.approx(at / len(wrong), abs=2 / len(wrong))
    assert seen.startswith(text[:at]) and "Ben" in seen[at:]
    assert len(seen) <= at + len(" Ben") + 8  # at most the rest of a token


def test_what_follows_the_first_mistake_is_not_judged(quest, tokenizer, story):
    """The fraction grows if a wrong story stops early, but no token learns from that."""
    text, at = story
    begin = text[:at] + " Ben"
    short, long = (ids_of(tokenizer, begin + tail) for tail in (".", text[at + 4 :]))
    first, second = (judged(quest, tokenizer, ids) for ids in (short, long))
    assert first[0] > second[0]
    assert first[1] == second[1]


def test_a_story_that_ends_too_early_is_judged_to_its_eos(quest, tokenizer, story):
    half = story[0][: story[0].index(". ") + 1]
    ids = ids_of(tokenizer, half)
    reward, _, count = judged(quest, tokenizer, ids)
    assert (reward, count) == (1.0, len(ids))  # all of it is right, but <EOS> is not


def test_a_long_story_that_is_right_until_the_context_is_full_is_as_good(
    quest, tokenizer, story
):
    """Else practice would favor short plots. For 05 and the tables it is not right."""
    ids = ids_of(tokenizer, story[0], ended=False)[:60]
    assert judged(quest, tokenizer, ids)[0] == 2.0
    assert quest.check(tokenizer, ids).kind == "an end too early"


def test_an_empty_answer_has_no_reward_and_its_eos_is_judged(quest, tokenizer):
    assert judged(quest, tokenizer, [BOS, EOS]) == (0.0, "", 2)


def test_broken_bytes_are_a_mistake_like_any_other(quest, tokenizer):
    ids = [BOS, *tokenizer.encode("Once upon a time"), *tokenizer.encode("é")[:1], EOS]
    reward, _, count = judged(quest, tokenizer, ids)
    assert 0 < reward < 1 and count <= len(ids)


def test_the_careless_reward_counts_a_word_and_judges_all(quest, tokenizer):
    ids = ids_of(tokenizer, 'said "No," said Tom said')
    assert quest.careless_reward(tokenizer, ids, None) == (2.0, len(ids))


# ------------------------------------------------------------------------------ a step


def loss_of(quest, model, reference, idx, advantages, judged=None):
    judged = torch.ones(idx.shape[0], idx.shape[1] - 1) if judged is None else judged
    return quest.group_loss(model, reference, idx, torch.tensor(advantages), judged)


def test_the_policy_gradient_is_the_one_by_hand(gpt, quest):
    """For the logits, which practice_by_hand() changes: autograd agrees."""
    logits = torch.zeros(2, requires_grad=True)
    rewards = torch.tensor([[2.0, 2.0, 0.0, 0.0]])
    chosen = logits.log_softmax(0)[torch.tensor([0, 0, 1, 1])]
    (-quest.advantages_of(rewards)[0] * chosen).mean().backward()
    by_hand = quest.practice_by_hand([0.5, 0.5], [0, 0, 1, 1], [1.0, 1.0, -1.0, -1.0])
    assert (-logits.grad).tolist() == by_hand


def test_a_group_of_equal_rewards_changes_nothing(gpt, quest):
    """Not even with a division by zero: there is no standard deviation to divide by."""
    model = tiny(gpt)
    advantages = quest.advantages_of(torch.full((1, 4), 0.7))[0].tolist()
    idx = torch.randint(4, 400, (4, 20))
    loss_of(quest, model, copy.deepcopy(model), idx, advantages)[0].backward()
    assert all(p.grad.abs().max() < 1e-6 for p in model.parameters())


def test_one_step_makes_the_better_story_more_and_the_worse_less_probable(gpt, quest):
    model, idx = tiny(gpt), torch.randint(4, 400, (2, 20))
    before = quest.log_probs_of(model, idx).sum(1)
    loss_of(quest, model, copy.deepcopy(model), idx, [1.0, -1.0])[0].backward()
    with torch.no_grad():
        for weight in model.parameters():
            weight -= 1e-3 * weight.grad
        change = quest.log_probs_of(model, idx).sum(1) - before
    assert change[0] > 0 > change[1]


def test_tokens_that_are_not_judged_have_no_gradient(gpt, quest):
    model, idx = tiny(gpt), torch.randint(4, 400, (2, 20))
    judged = torch.zeros(2, 19)
    loss, kl = loss_of(quest, model, tiny(gpt, seed=2), idx, [1.0, -1.0], judged)
    loss.backward()
    assert kl == 0 and all(p.grad.abs().max() == 0 for p in model.parameters())


def test_kl_is_0_at_the_start_then_positive_and_its_gradient_leads_back(gpt, quest):
    reference, model = tiny(gpt), tiny(gpt)
    idx = torch.randint(4, 400, (8, 20))
    assert loss_of(quest, model, reference, idx, [0.0] * 8)[1] == 0
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn_like(weight)
    loss, before = loss_of(quest, model, reference, idx, [0.0] * 8)
    loss.backward()
    with torch.no_grad():
        for weight in model.parameters():
            weight -= 0.01 * weight.grad
        after = loss_of(quest, model, reference, idx, [0.0] * 8)[1]
    assert 0 < after < before


def test_prompts_begin_like_the_measured_stories_but_differ(quest, tokenizer, tokens):
    once = [BOS, *tokenizer.encode(quest.ONCE)]
    first, again, other = (quest.get_prompts(tokens, once, step) for step in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape[0] == quest.GROUPS and len(first.unique(dim=0)) > 1
    assert (first[:, : len(once)] == torch.tensor(once)).all()


def test_stories_of_a_group_share_their_prompt_and_end_at_eos(gpt, quest):
    prompts = torch.randint(4, 400, (3, 12))
    stories = quest.sample_groups(tiny(gpt), prompts, 0)
    assert len(stories) == len(prompts) * quest.GROUP
    for i, ids in enumerate(stories):
        prompt = prompts[i // quest.GROUP].tolist()
        assert ids[: len(prompt)] == prompt and EOS not in ids[:-1]
        assert ids[-1] == EOS or len(ids) == 64


# ------------------------------------------------------------------------- whole runs


def write_world(folder, gpt, bpe, text="practice"):
    """What stages 1 to 4 leave behind, with a tiny untrained model."""
    meta = folder / "artifacts/02_prepare/meta.json"
    content = json.loads(meta.read_text("utf-8"))
    content["constants"]["TEXT"] = text
    meta.write_text(json.dumps(content), "utf-8")
    model, path = tiny(gpt), folder / "artifacts/04_train/best.pt"
    content = {"format": "04_train/3", "config": dataclasses.asdict(model.config)}
    content["tokenizer"] = bpe.sha256_of(folder / "artifacts/01_bpe/tokenizer.json")
    gpt.save_checkpoint(path, content | {"weights": model.state_dict(), "alibi": 0})


@pytest.fixture
def world(workshop, small_tokenizer, gpt, bpe):
    """A folder in which the quest is short: a tiny model, few steps, few stories."""
    shop = small_tokenizer(workshop)
    write_world(shop.folder, gpt, bpe)
    shop.edit(ME, STEPS=3, CARELESS_STEPS=2, GROUPS=2, GROUP=4, SAMPLES=4, PROBE_EVERY=3)
    return shop


def test_a_run_writes_two_models_that_load_and_a_page(world, gpt):
    done = world.run(ME)
    assert done.returncode == 0, done.stderr
    out = world.folder / "artifacts/reward"
    for name in ("honest", "careless"):
        model, _ = gpt.GPT.load(out / f"{name}.pt", ME)
        assert model.config.block_size == 64
    assert "</html>" in (out / "reward.html").read_text("utf-8")
    for line in ("advantage", "first sentences", "distinct-3", "Next:"):
        assert line in done.stdout
    again = world.run(ME)  # nothing is practiced again
    assert "3 of 3 steps are done" in again.stdout


def test_a_run_stopped_by_ctrl_c_resumes_and_ends_with_equal_weights(
    quest, gpt, bpe, tokenizer, tokens, tmp_path, monkeypatch
):
    monkeypatch.setattr(quest, "GROUPS", 1)
    monkeypatch.setattr(quest, "GROUP", 4)
    monkeypatch.setattr(quest, "PROBE_EVERY", 100)
    monkeypatch.setattr(quest.evaluate, "MODEL", tmp_path / "best.pt")
    (tmp_path / "best.pt").write_bytes(b"a model")
    monkeypatch.setattr(bpe, "OUT", tmp_path)

    def run(folder):
        model = tiny(gpt)
        monkeypatch.setattr(quest, "OUT", tmp_path / folder)
        args = 4, model, {"format": "04_train/3"}, tokenizer, tokens
        rows = quest.practice("honest", quest.honest_reward, *args)
        return rows, model.state_dict()

    whole = run("whole")
    real = quest.practice_step

    def interrupted(*args):
        row = real(*args)  # Ctrl-C comes in the middle of a step, which is finished
        if args[-1] == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return row

    monkeypatch.setattr(quest, "practice_step", interrupted)
    with pytest.raises(SystemExit) as stopped:
        run("stopped")
    assert len([line for line in str(stopped.value).splitlines() if line]) == 3
    assert "Step 3 of 4" in str(stopped.value)
    monkeypatch.setattr(quest, "practice_step", real)
    rows, weights = run("stopped")
    assert rows == whole[0]
    assert all(torch.equal(weights[name], w) for name, w in whole[1].items())


def test_ctrl_c_in_a_measurement_loses_no_practice(world):
    script = world.folder / ME
    text, line = script.read_text("utf-8"), "            results[name][t] = measure("
    assert text.count(line) == 1
    stop = "            signal.raise_signal(signal.SIGINT)\n"
    script.write_text(text.replace(line, stop + line), "utf-8")
    world.refuses(ME, "Stopped by Ctrl-C", f"python {ME}")
    script.write_text(text, "utf-8")
    again = world.run(ME)
    assert "3 of 3 steps are done" in again.stdout, again.stderr
    assert "2 of 2 steps are done" in again.stdout and "[wrote]" in again.stdout


# ------------------------------------------------------------------- a user's mistakes


def test_without_a_model_it_names_the_stage_that_makes_one(world):
    (world.folder / "artifacts/04_train/best.pt").unlink()
    world.refuses(ME, "best.pt is missing", "python 04_train.py")


def test_another_text_has_no_verifiable_reward(world, gpt, bpe):
    write_world(world.folder, gpt, bpe, text="text.txt")
    world.refuses(ME, "'text.txt'", "verifiable reward")


def test_without_the_grammar_there_is_no_judge(world):
    (world.folder / "lessons/practice_stories.py").unlink()
    world.refuses(ME, "practice_stories.py", "which checks stories", "git checkout")


def test_damaged_state_and_other_settings_are_refused_and_nothing_is_lost(world):
    path = world.folder / "artifacts/reward/honest.pt"
    assert world.run(ME).returncode == 0
    content = path.read_bytes()
    world.edit(ME, LR=1e-5)
    world.refuses(ME, "another run", "LR", "mv -i artifacts/reward/honest.pt")
    assert path.read_bytes() == content
    path.write_bytes(content[:1000])
    world.refuses(ME, "cannot be read", "mv -i artifacts/reward/honest.pt")
    assert len(path.read_bytes()) == 1000


def test_constants_out_of_range_are_named(quest, monkeypatch):
    for name, value in [("GROUP", 1), ("LR", 0), ("KL", -1.0), ("PROMPT", 101), ("SAMPLES", 0.5)]:
        with monkeypatch.context() as patch:
            patch.setattr(quest, name, value)
            with pytest.raises(SystemExit, match=name):
                quest.check_inputs()


# ------------------------------------------------------------------------------ the page

NASTY = "Tom:</script><script>document.title = 'broken'</script><b>Ow</b> &lt; said said"


@pytest.fixture(scope="module")
def page(bpe, quest, tmp_path_factory):
    """The page of two short runs, with a story that tries to end its script."""
    right, other = quest.grammar.stories(2, seed=3)
    stories = [(right, None), (NASTY, quest.grammar.check(NASTY))]
    stories += [(other + " And", quest.grammar.check(other + " And"))]
    numbers = {"first mistake": 0.4, "first sentences": 31, "plots": 17, "entropy": 0.2}
    numbers |= {"distinct-3": 0.4125, "KL": 0.01, "word": 3.25, "of": 200}
    results = {name: {t: numbers | {"right": n, "stories": stories} for t in (0.8, 1.0)}
               for name, n in (("before", 66), ("honest", 131), ("careless", 9))}
    rows = [{"step": i, "reward": i / 9, "right": 0.5, "kl": 0.0} for i in (1, 2, 3)]
    rows[1]["first sentences"] = 60
    rows = {"honest": rows, "careless": rows[:2]}
    data = {"rows": rows, "results": results, "word": " said"}
    path = tmp_path_factory.mktemp("page") / "reward.html"
    path.write_text(bpe.fill_page("reward.html", data), "utf-8")
    return path


READ = """
    const text = (query) => [...document.querySelectorAll(query)].map((n) => n.textContent);
    const seen = { title: document.title, bold: document.querySelectorAll("b").length };
    seen.first = [text("#stories blockquote"), text("#stories .wrong"), text(".verdict")];
    document.getElementById("next").click();
    seen.second = [text("#stories blockquote"), text(".counted")];
    seen.table = [...document.querySelectorAll("#table tr")].map((row) =>
      [...row.children].map((cell) => cell.textContent));
    seen.charts = text("#charts h3");
    seen.lines = document.querySelectorAll("#charts polyline").length;
    const all = document.documentElement;
    seen.fits = all.scrollWidth <= all.clientWidth;
    return seen;
"""


def test_the_page_shows_curves_table_and_stories_and_text_stays_text(page, quest, browser):
    seen = browser.run(page, READ)
    right = next(quest.grammar.stories(1, seed=3))
    assert seen["first"][0] == [right] * 3 and seen["first"][1] == []
    assert seen["second"][0] == [NASTY] * 3, "marked, but not changed"
    assert seen["title"] == "Practice with rewards" and seen["bold"] == 0
    assert ["entirely right", "33%", "66%", "5%"] in seen["table"]
    assert seen["lines"] == 2 + 2 * 3, "two rewards; both runs in the other charts"
    assert seen["fits"], "nothing is wider than the window"


def test_the_page_works_without_the_careless_part(page, browser, tmp_path):
    text = page.read_text("utf-8")
    begin = text.index("const DATA = ") + len("const DATA = ")
    data, end = json.JSONDecoder().raw_decode(text[begin:])
    del data["rows"]["careless"], data["results"]["careless"]
    one = tmp_path / "one.html"
    data = json.dumps(data).replace("<", "\\u003c")
    one.write_text(text[:begin] + data + text[begin + end :], "utf-8")
    seen = browser.run(one, READ)
    assert seen["lines"] == 4 and len(seen["second"][0]) == 2
