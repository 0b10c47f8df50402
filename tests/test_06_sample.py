"""Stage 6: samplers that do what their papers say, a cache that changes nothing."""
import contextlib
import copy
import doctest
import importlib
import io
import math
import os
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import plumbing
import pytest
import torch

CONFIG = {"vocab_size": 300, "context": 16, "n_layer": 2, "n_head": 2, "n_embd": 32}
PLAIN = {"temperature": 1.0, "top_k": None, "top_p": 1.0, "min_p": 0.0,
         "repetition_penalty": 1.0}  # fmt: skip
GREEDY = PLAIN | {"temperature": 0}
BOS, EOS = 2, 3


@pytest.fixture(scope="module")
def sample():
    """Stage 6 as a module."""
    return importlib.import_module("06_sample")


@pytest.fixture(scope="module")
def showing():
    """lessons/showing.py as a module."""
    return importlib.import_module("showing")


def lively(gpt, config, seed=1):
    """A random model with weights so large that its tokens differ in their chances."""
    torch.manual_seed(seed)
    model = gpt.GPT(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(6)
    return model


@pytest.fixture(scope="module")
def model(gpt):
    """A small model that sees 16 tokens."""
    return lively(gpt, CONFIG)


def test_the_examples_in_the_docstrings_are_true(sample, showing):
    for module in (sample, showing):
        failed, tried = doctest.testmod(module)
        assert tried > 0 and failed == 0, module.__name__


# --------------------------------------------------------------------- the cache


def test_logits_with_cache_equal_logits_without(sample, model):
    ids = torch.randint(4, 300, (3, 16), generator=torch.Generator().manual_seed(1))
    cache = model.new_cache()
    fed = 0
    for upto in (1, 2, 7, 8, 16):  # one token at a time and several at once
        new = sample.last_logits(model, ids[:, fed:upto], cache)
        whole = sample.last_logits(model, ids[:, :upto])
        torch.testing.assert_close(new, whole, atol=1e-4, rtol=1e-4)
        fed = upto


def test_the_layout_for_writing_changes_no_number(sample, model):
    laid = sample.lay_out(copy.deepcopy(model))
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, laid.state_dict()[name])
    assert laid.wte.weight.stride() == (1, model.wte.weight.shape[0])
    ids = torch.tensor([[2, 11, 12, 13]])
    torch.testing.assert_close(
        sample.last_logits(laid, ids), sample.last_logits(model, ids)
    )


@pytest.mark.parametrize("how", [GREEDY, PLAIN, PLAIN | {"top_p": 0.9, "min_p": 0.02}])
def test_the_cache_changes_no_token_not_even_when_the_window_slides(sample, model, how):
    prompts = [[BOS, 5, 6, 7], [BOS, *range(10, 20)], [BOS]]
    stories = [
        [*sample.generate(model, prompts, 60, how, sample.dice_for(3, 7), None, cached)]
        for cached in (True, False)
    ]
    assert stories[0] == stories[1]
    # 16 tokens of context, so 60 new ones slide the window several times.
    assert len(stories[0]) == 60 + 10


def test_a_full_window_keeps_bos_and_three_quarters(sample, model, monkeypatch):
    read = []

    def spy(model, ids, cache=None):
        read.append(ids.tolist())
        return torch.zeros(1, 300).index_fill(1, torch.tensor([100 + len(read)]), 1.0)

    monkeypatch.setattr(sample, "last_logits", spy)
    for _ in sample.generate(model, [[BOS, 9]], 30, GREEDY, [None], None, cached=False):
        pass
    assert max(len(rows[0]) for rows in read) == 16
    assert all(rows[0][0] == BOS for rows in read)
    full = read.index(next(rows for rows in read if len(rows[0]) == 16))
    newest = read[full][0][-11:] + [100 + full + 1]
    assert read[full + 1][0] == [BOS, *newest]  # <BOS> and 12 = 16 * 3 / 4 tokens


# -------------------------------------------------------------------- the batches


@pytest.mark.parametrize("how", [GREEDY, PLAIN])
def test_a_story_is_the_same_alone_and_in_a_batch(sample, model, how):
    prompts = [[BOS, 5, 6], [BOS], [BOS, *range(30, 44)], [BOS, 8, 8, 8]]
    together = sample.write(model, prompts, 40, how, seed=5)
    for row, prompt in enumerate(prompts):
        alone = sample.write(model, [prompt], 40, how, seed=5 + row)
        assert alone == [together[row]]
        assert 1 <= len(together[row]) <= 40


def test_each_row_stops_at_its_own_eos_and_says_nothing_after_it(
    sample, model, monkeypatch
):
    script = iter([[7, 50], [EOS, 51], [99, EOS], [99, 99]])

    def scripted(model, ids, cache=None):
        logits = torch.zeros(2, 300)
        for row, token in enumerate(next(script)):
            logits[row, token] = 1.0
        return logits

    monkeypatch.setattr(sample, "last_logits", scripted)
    columns = list(sample.generate(model, [[BOS], [BOS]], 10, GREEDY, [None, None]))
    assert columns == [[7, 50], [EOS, 51], [None, EOS]]


def test_a_row_that_still_reads_its_prompt_throws_no_dart(sample, model):
    prompts = [[BOS], [BOS, 5, 6, 7, 8]]
    columns = [*sample.generate(model, prompts, 3, PLAIN, sample.dice_for(2, 1), None)]
    assert [new for _, new in columns[:4]] == [None] * 4
    assert [old for old, _ in columns[3:]] == [None] * (len(columns) - 3)
    assert len(columns) == 4 + 3


def test_max_tokens_counts_from_the_end_of_each_prompt(sample, model):
    stories = sample.write(model, [[BOS], [BOS, 5, 6]], 5, GREEDY, 1)
    assert all(len(s) == 5 or s[-1] == EOS for s in stories)


# ------------------------------------------------------------------- the samplers

LOGITS = [3.0 * math.sin(1.7 * i) + 0.02 * i for i in range(60)]
SEEN = [3, 3, 17, 40]


def by_definition(how):
    """The chances as the papers define them, in plain Python, token by token."""
    logits = list(LOGITS)
    for i in set(SEEN):
        penalty = how["repetition_penalty"]
        logits[i] = logits[i] / penalty if logits[i] > 0 else logits[i] * penalty
    weights = [math.exp(logit / how["temperature"]) for logit in logits]

    def normal(weights):
        return [weight / sum(weights) for weight in weights]

    chances = normal(weights)
    order = sorted(range(60), key=lambda i: -chances[i])
    if how["top_k"] is not None:
        chances = normal([c if i in order[: how["top_k"]] else 0.0
                          for i, c in enumerate(chances)])  # fmt: skip
    if how["top_p"] < 1:
        kept, total = set(), 0.0
        for i in order:
            if total >= how["top_p"]:
                break
            kept.add(i)
            total += chances[i]
        chances = normal([c if i in kept else 0.0 for i, c in enumerate(chances)])
    return normal([c if c >= how["min_p"] * max(chances) else 0.0 for c in chances])


def many_draws(sample, how, count=100_000, seed=11):
    """How often each token is chosen, in so many choices."""
    dice = torch.Generator().manual_seed(seed)
    rows = torch.tensor(LOGITS).expand(1000, 60)
    seen = torch.tensor(SEEN).expand(1000, 4)
    drawn = Counter()
    for _ in range(count // 1000):
        drawn.update(sample.choose(rows, seen, how, [dice] * 1000).tolist())
    return drawn


def chi_square(drawn, chances):
    """(statistic, degrees of freedom) of counts against chances.

    Tokens expected fewer than 5 times are counted as one, as is usual.
    """
    count = sum(drawn.values())
    bins, rest = [], [0.0, 0]
    for i, chance in enumerate(chances):
        if chance == 0:
            assert drawn[i] == 0, f"token {i} has no chance, and was drawn"
        elif chance * count >= 5:
            bins.append((chance * count, drawn[i]))
        else:
            rest = [rest[0] + chance * count, rest[1] + drawn[i]]
    if rest[0] > 0:
        bins.append(tuple(rest))
    return sum((seen - want) ** 2 / want for want, seen in bins), len(bins) - 1


def far(statistic, freedom):
    """Chi-square with n degrees of freedom has mean n and variance 2 n; six standard
    deviations above the mean is reached by chance less than once in 4,000 times (for
    n >= 5; rarer for larger n), and the seed is fixed besides."""
    return statistic > freedom + 6 * math.sqrt(2 * freedom)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 1.7},
        {"top_k": 7},
        {"top_p": 0.8},
        {"min_p": 0.2},
        {"repetition_penalty": 1.8},
        {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.05,
         "repetition_penalty": 1.3},
    ],
    ids=lambda changes: " ".join(changes) or "plain",
)  # fmt: skip
def test_a_hundred_thousand_draws_fit_the_definition_of_the_sampler(sample, changes):
    how = PLAIN | changes
    statistic, freedom = chi_square(many_draws(sample, how), by_definition(how))
    assert freedom >= 5
    assert not far(statistic, freedom), (statistic, freedom)


def test_the_chi_square_test_would_notice_a_slightly_wrong_sampler(sample):
    drawn = many_draws(sample, PLAIN | {"temperature": 1.05})  # 5 % too warm
    assert far(*chi_square(drawn, by_definition(PLAIN)))


@pytest.mark.parametrize("how", [GREEDY, PLAIN | {"top_k": 1}, PLAIN | {"top_p": 1e-6},
                                 PLAIN | {"min_p": 1.0}])  # fmt: skip
def test_greedy_and_all_that_leaves_one_token_take_the_likeliest(sample, how):
    best = max(range(60), key=LOGITS.__getitem__)
    assert many_draws(sample, how, 3000) == {best: 3000}


def test_greedy_breaks_a_tie_always_in_the_same_way(sample):
    tie = torch.tensor([[0.0, 2.0, 2.0, 1.0]])
    seen = torch.tensor([[0]])
    assert {sample.choose(tie, seen, GREEDY, [None]).item() for _ in range(20)} == {1}


def test_a_penalty_holds_at_temperature_zero_too(sample):
    logits = torch.tensor([[2.0, 1.9, 0.0]])
    dice = sample.dice_for(1, 1)
    how = GREEDY | {"repetition_penalty": 1.5}
    assert sample.choose(logits, torch.tensor([[0]]), how, dice).item() == 1


@pytest.mark.parametrize("dart", [0.0, 1 - 2**-53])
def test_the_ends_of_the_ruler_hit_only_tokens_that_have_a_chance(
    sample, dart, monkeypatch
):
    # Tokens without a chance at both ends: a dart at 0 or just below 1 must miss them.
    logits = torch.tensor([[-math.inf, 0.3, 0.2, 0.1, -math.inf, -math.inf]])
    darts = torch.tensor([dart], dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: darts)
    assert sample.draw(logits, [None]).item() == (1 if dart == 0 else 3)


def test_tiny_temperatures_give_numbers_and_the_likeliest_token(sample):
    logits, seen = torch.tensor([[50.0, -80.0, 49.0]]), torch.tensor([[1]])
    for temperature in (0.001, 1e-9, 1e-320):
        how = PLAIN | {"temperature": temperature}
        assert sample.choose(logits, seen, how, sample.dice_for(1, 1)).item() == 0


def test_the_same_seed_tells_the_same_story_and_another_seed_another(sample, model):
    first, again, other = (
        sample.write(model, [[BOS, 5]], 40, PLAIN, seed) for seed in (1, 1, 2)
    )
    assert first == again != other


# --------------------------------------------------------------------- the showing


def bytewise(bpe):
    """A tokenizer without merges: every token is a byte."""
    return bpe.train(Counter(), 260, 1)[0]


def test_streaming_holds_bytes_back_until_a_character_is_whole(showing, bpe):
    tokenizer = bytewise(bpe)
    text = "naïve 🙂 日本"
    pieces = list(showing.stream(tokenizer, tokenizer.encode(text)))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert pieces[2:4] == ["", "ï"]  # the first of its two bytes shows nothing


def test_a_character_that_never_becomes_whole_shows_as_a_replacement(showing, bpe):
    tokenizer = bytewise(bpe)
    ids = tokenizer.encode("a🙂")[:-1]
    assert "".join(showing.stream(tokenizer, ids)) == "a\ufffd"
    ids += tokenizer.encode("b")
    assert "".join(showing.stream(tokenizer, ids)) == "a\ufffdb"


def test_special_tokens_are_not_part_of_the_text(showing, bpe):
    tokenizer = bytewise(bpe)
    ids = [BOS, *tokenizer.encode("Hi"), EOS]
    assert "".join(showing.stream(tokenizer, ids)) == "Hi"


def test_telling_wraps_lines_and_changes_no_word(showing):
    text = "Once upon a time there was a fox.\n\nIt had " + "x" * 50 + " friends. Bye"
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        showing.tell("Once up", list(text[7:]), width=30)
    lines = said.getvalue().splitlines()
    assert said.getvalue().split() == text.split()
    assert all(len(line) <= 30 or "xxx" in line for line in lines)
    assert all(line.startswith("  ") for line in lines if line)
    assert not any(line.endswith(" ") for line in lines if line.strip())
    assert "" in [line.strip() for line in lines]  # the empty line between paragraphs


def test_looking_inside_gives_the_models_own_logits_and_shares_of_the_past(
    showing, model
):
    ids = torch.tensor([BOS, 9, 4, 250, 7])
    logits, shares = showing.look_inside(model, ids)
    torch.testing.assert_close(logits, model(ids[None])[0], atol=1e-4, rtol=1e-4)
    assert shares.shape == (2, 2, 5, 5)
    torch.testing.assert_close(shares.sum(dim=-1), torch.ones(2, 2, 5))
    assert (shares.triu(1) == 0).all()


def test_entropy_of_a_coin_is_one_bit(showing):
    assert showing.entropy(torch.tensor([5.0, 5.0, -math.inf])) == pytest.approx(1.0)


def test_page_data_fits_into_the_context_and_counts_what_it_leaves_out(
    showing, sample, model
):
    names = [b"<PAD>", b"<UNK>", b"<BOS>", b"<EOS>"]
    tokenizer = SimpleNamespace(token_bytes=names + [b" t%d" % i for i in range(296)])
    ids = [BOS, 5, *range(20, 45)]
    how = PLAIN | {"top_k": 3, "repetition_penalty": 1.2}
    data = showing.page_data(model, tokenizer, ids, 2, how, sample.shape)
    assert len(data["tokens"]) == len(data["ids"]) == 16 and data["left_out"] == 11
    assert len(data["steps"]) == 14
    assert [len(row) for row in data["attention"][1][0]] == list(range(1, 17))
    assert all(abs(sum(row) - 1000) <= 16 for row in data["attention"][0][1])
    for step in data["steps"]:
        assert step["left"] == 3
        chances = [after for *_, after in step["candidates"]]
        assert sum(chances) == pytest.approx(1, abs=2e-4)
        assert step["entropy"][1] <= math.log2(3) + 0.01


# -------------------------------------------------------------------- the messages


@pytest.mark.parametrize(
    "name, value, span",
    [
        ("SAMPLES", 0, "1 to 1,000"),
        ("MAX_TOKENS", 2.5, "1 to 100,000"),
        ("TEMPERATURE", -0.1, "0.0 to 100.0"),
        ("TEMPERATURE", math.nan, "0.0 to 100.0"),
        ("TEMPERATURE", "hot", "0.0 to 100.0"),
        ("TOP_P", 0, "to 1.0"),
        ("TOP_P", 1.01, "to 1.0"),
        ("MIN_P", -1, "0.0 to 1.0"),
        ("REPETITION_PENALTY", 0.5, "1.0 to 100.0"),
        ("SEED", -1, "0 to"),
        ("CHAT", "yes", "True, False"),
    ],
)
def test_constants_out_of_range_are_named_with_their_range(
    sample, monkeypatch, name, value, span
):
    monkeypatch.setattr(sample, name, value)
    with pytest.raises(SystemExit) as stopped:
        sample.check_constants()
    what, why, how = str(stopped.value).splitlines()
    assert name in what and repr(value) in what
    assert span in why and "06_sample.py" in how


@pytest.fixture
def studio(workshop, small_tokenizer, gpt):
    """A workshop with a tokenizer and a best.pt, as if stage 4 had run."""
    small_tokenizer(workshop)
    folder = workshop.folder / "artifacts"
    torch.set_num_threads(1)
    about = {"format": "04_train/1", "step": 1, "config": CONFIG | {"vocab_size": 400}}
    about["tokenizer"] = plumbing.sha256_of(folder / "01_bpe" / "tokenizer.json")
    about["weights"] = lively(gpt, about["config"]).state_dict()
    (folder / "04_train").mkdir()
    torch.save(about, folder / "04_train" / "best.pt")
    workshop.edit("06_sample.py", MAX_TOKENS=30, SAMPLES=2)
    return workshop


def test_a_run_shows_its_six_sights_and_writes_the_page(studio):
    done = studio.run("06_sample.py", "Once", "upon")  # without quotes works, too
    assert done.returncode == 0, done.stderr
    out = done.stdout
    assert "[plan] device cpu" in out
    assert "after the samplers" in out and "#" in out
    assert ["0.0", "0.5", "1.0", "1.5"] in [line.split() for line in out.splitlines()]
    assert "equal: True" in out and "times as fast" in out
    assert out.count("tokens; ") == 3 and "of 2 stopped by themselves" in out
    assert out.count("  Once upon") >= 3
    page = studio.folder / "artifacts" / "06_sample" / "story.html"
    assert "/*DATA*/null" not in page.read_text("utf-8")
    assert "Next:" in out.splitlines()[-1]


def test_it_ends_in_silence_when_nobody_reads_on(studio):
    # As with `python 06_sample.py | head`: the reader has left before the first line.
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "06_sample.py"], cwd=studio.folder,
        stdout=writer, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_an_empty_prompt_is_no_mistake(studio):
    done = studio.run("06_sample.py", "")
    assert done.returncode == 0, done.stderr
    assert "an empty prompt: the model begins by itself" in done.stdout


def test_characters_never_seen_are_read_and_said_to_be_strange(sample, bpe, capsys):
    tokenizer = bytewise(bpe)
    text = "The 龍 said ß 🙂"
    ids = sample.read_prompt(tokenizer, text + "  ", 100)  # blanks at the end: left out
    assert tokenizer.decode(ids) == text
    assert "byte by byte: ß 龍 🙂" in capsys.readouterr().out


def test_of_a_prompt_longer_than_the_context_the_end_is_kept_and_it_says_so(
    sample, bpe, capsys
):
    tokenizer = bytewise(bpe)
    assert len(sample.read_prompt(tokenizer, "x" * 15, 16)) == 16
    assert capsys.readouterr().out == ""  # it fits, with <BOS>
    ids = sample.read_prompt(tokenizer, "x" * 16 + "123456789012", 16)
    assert ids == [BOS, *tokenizer.encode("123456789012")]
    said = capsys.readouterr().out
    assert "29 tokens" in said and "sees 16" in said and "last 12" in said


def test_what_a_terminal_cannot_decode_does_no_harm(sample, bpe, capsys):
    ids = sample.read_prompt(bytewise(bpe), "a\udcff", 16)  # a lone byte 255 from argv
    assert bytewise(bpe).decode(ids) == "a\ufffd"


def test_in_a_chat_each_line_gets_an_ending_until_an_empty_line(studio):
    studio.edit("06_sample.py", CHAT=True)
    done = subprocess.run(
        [sys.executable, "06_sample.py"], cwd=studio.folder, text=True, timeout=120,
        input="A fox\nA crow\n\nnever read\n", capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tokens; ") == 2
    assert "A fox" in done.stdout and "A crow" in done.stdout
    assert "never read" not in done.stdout


@pytest.mark.parametrize("value", [0, 301, 2.5, True])
def test_top_k_outside_the_vocabulary_is_named_with_its_range(
    sample, model, monkeypatch, value
):
    monkeypatch.setattr(sample, "TOP_K", value)
    monkeypatch.setattr(sample, "sha256_of", lambda path: "abc")
    monkeypatch.setattr(sample.bpe.Tokenizer, "load", lambda: range(300))
    monkeypatch.setattr(
        sample.gpt.GPT, "load", lambda path, writer: (model, {"tokenizer": "abc"})
    )
    with pytest.raises(SystemExit, match=f"TOP_K = {value}(.|\n)*from 1 to 300"):
        sample.check_inputs()


def test_models_and_tokenizers_that_do_not_fit_are_refused_in_three_lines(studio):
    best = studio.folder / "artifacts" / "04_train" / "best.pt"
    whole = best.read_bytes()
    best.write_bytes(whole[: len(whole) // 2])
    studio.refuses("06_sample.py", "best.pt cannot be", "python 04_train.py")
    best.write_bytes(whole)
    tokenizer = studio.folder / "artifacts" / "01_bpe" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text("utf-8") + " ", "utf-8")
    studio.refuses("06_sample.py", "another tokenizer", "stage 1 has run again")
    best.unlink()
    studio.refuses("06_sample.py", "best.pt is missing", "python 04_train.py")
    assert not (studio.folder / "artifacts" / "06_sample").exists()
