"""Stage 6: samplers that do what their papers say, a KV cache that changes no token."""
import contextlib
import doctest
import importlib
import io
import math
import sys
from collections import Counter
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch

PLAIN = {"temperature": 1.0}
GREEDY = {"temperature": 0}
BOS, EOS = 2, 3


@pytest.fixture(scope="module")
def sample():
    """Stage 6 as a module."""
    return importlib.import_module("06_sample")


def small(gpt, block_size=16, vocab_size=300):
    """The configuration of a small model."""
    return gpt.GPTConfig(vocab_size, block_size, n_layer=2, n_head=2, n_embd=32)


def lively(gpt, config, seed=1):
    """A random model with weights so large that the probabilities of tokens differ."""
    torch.manual_seed(seed)
    model = gpt.GPT(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(6)
    return model


@pytest.fixture(scope="module")
def model(gpt):
    """A small model with a context of 16 tokens."""
    return lively(gpt, small(gpt))


def test_the_examples_in_the_docstrings_are_true(sample):
    failed, tried = doctest.testmod(sample)
    assert tried >= 10 and failed == 0


# ------------------------------------------------------------------ the KV cache


def test_logits_with_cache_equal_logits_without(sample, model):
    ids = torch.randint(4, 300, (3, 16), generator=torch.Generator().manual_seed(1))
    cache = model.new_cache()
    fed = 0
    for upto in (1, 2, 7, 8, 16):  # one token at a time and several at once
        new = sample.last_logits(model, ids[:, fed:upto], cache)
        whole = sample.last_logits(model, ids[:, :upto])
        torch.testing.assert_close(new, whole, atol=1e-4, rtol=1e-4)
        fed = upto


@pytest.mark.parametrize("prompt", [[BOS], [BOS, 5, 6, 7]])
def test_greedy_generation_agrees_with_the_plain_generate_of_stage_3(
    sample, model, prompt
):
    length = 16 - len(prompt)  # within the context; past it, the two slide differently
    (ours,) = sample.generate_all(model, [prompt], length, GREEDY, 1, None)
    plain = model.generate(torch.tensor([prompt]), length, temperature=0)
    assert plain.tolist() == [prompt + ours]


@pytest.mark.parametrize(
    "settings", [GREEDY, PLAIN, {"temperature": 1.0, "top_p": 0.9, "min_p": 0.02}]
)
def test_the_cache_changes_no_token_not_even_when_the_context_slides(
    sample, model, settings
):
    prompts = [[BOS, 5, 6, 7], [BOS, 10, 11, 12], [BOS, 5, 5, 5]]
    stories = [
        sample.generate_all(model, prompts, 60, settings, 7, None, cached)
        for cached in (True, False)
    ]
    assert stories[0] == stories[1]
    # A context of 16 tokens slides several times during 60 new ones.
    assert list(map(len, stories[0])) == [60, 60, 60]


@pytest.mark.parametrize("block_size", [1, 2, 3, 4, 5, 8])
def test_tiny_contexts_work_and_the_check_says_that_the_tokens_are_equal(
    sample, gpt, block_size, capsys
):
    tiny = lively(gpt, small(gpt, block_size))
    ids = [BOS, 5, 6, 7, 8][:block_size]
    for cached in (True, False):
        (story,) = sample.generate_all(tiny, [ids], 20, GREEDY, 1, None, cached)
        assert len(story) == 20
    sample.show_cache(tiny, ids)
    assert "equal: True\n" in capsys.readouterr().out


def test_a_bigram_model_continues_from_the_last_token(sample, gpt):
    tiny = lively(gpt, small(gpt, block_size=1))
    (story,) = sample.generate_all(tiny, [[BOS]], 4, GREEDY, 1, None)
    for before, token in zip([BOS, *story], story):
        assert tiny(torch.tensor([[before]]))[0].argmax() == token


def test_the_check_says_so_when_stage_3_generates_other_tokens(
    sample, model, monkeypatch, capsys
):
    other = lambda idx, length, temperature: torch.zeros(1, length + idx.shape[1])
    monkeypatch.setattr(model, "generate", other, raising=False)
    sample.show_cache(model, [BOS, 5])
    assert "equal: False (rounding, or a bug in 03?)" in capsys.readouterr().out


def test_a_full_context_keeps_bos_and_three_quarters(sample, model, monkeypatch):
    read = []

    def spy(model, idx, cache=None):
        read.append(idx.tolist())
        return torch.zeros(1, 300).index_fill(1, torch.tensor([100 + len(read)]), 1.0)

    monkeypatch.setattr(sample, "last_logits", spy)
    for _ in sample.generate(model, [[BOS, 9]], 30, GREEDY, [None], None, cached=False):
        pass
    assert max(len(rows[0]) for rows in read) == 16
    assert all(rows[0][0] == BOS for rows in read)
    full = read.index(next(rows for rows in read if len(rows[0]) == 16))
    newest = read[full][0][-11:] + [100 + full + 1]
    assert read[full + 1][0] == [BOS, *newest]  # <BOS> and 12 = 16 * 3 / 4 tokens


# ------------------------------------------------------------------------ batches


@pytest.mark.parametrize("settings", [GREEDY, PLAIN])
def test_a_story_is_the_same_alone_and_in_a_batch(sample, model, settings):
    prompts = [[BOS, 5, 6], [BOS, 7, 7], [BOS, 30, 44], [BOS, 8, 8]]
    together = sample.generate_all(model, prompts, 40, settings, seed=5)
    for row, prompt in enumerate(prompts):
        alone = sample.generate_all(model, [prompt], 40, settings, seed=5 + row)
        assert alone == [together[row]]
        assert 1 <= len(together[row]) <= 40


def test_each_row_stops_at_its_own_eos_and_yields_nothing_after_it(
    sample, model, monkeypatch
):
    # After its <EOS> the first row samples on (99), which nobody gets to see.
    script = iter([[7, 50], [EOS, 51], [99, EOS], [99, 99]])

    def scripted(model, idx, cache=None):
        logits = torch.zeros(2, 300)
        for row, token in enumerate(next(script)):
            logits[row, token] = 1.0
        return logits

    monkeypatch.setattr(sample, "last_logits", scripted)
    columns = list(sample.generate(model, [[BOS], [BOS]], 10, GREEDY, [None, None]))
    assert columns == [[7, 50], [EOS, 51], [None, EOS]]


def test_max_tokens_counts_from_the_end_of_the_prompt(sample, model):
    for prompt in ([BOS], [BOS, 5, 6]):
        (story,) = sample.generate_all(model, [prompt], 5, GREEDY, 1, None)
        assert len(story) == 5


# ------------------------------------------------------------------- the samplers

LOGITS = [3.0 * math.sin(1.7 * i) + 0.02 * i for i in range(60)]
SEEN = [3, 3, 17, 40]


def by_definition(
    temperature, top_k=None, top_p=1.0, min_p=0.0, repetition_penalty=1.0
):
    """The probabilities as the papers define them, in plain Python, token by token."""
    logits = list(LOGITS)
    for i in set(SEEN):
        if logits[i] > 0:
            logits[i] /= repetition_penalty
        else:
            logits[i] *= repetition_penalty
    weights = [math.exp(logit / temperature) for logit in logits]

    def normalized(weights):
        return [weight / sum(weights) for weight in weights]

    probs = normalized(weights)
    order = sorted(range(60), key=lambda i: -probs[i])
    if top_k is not None:
        probs = normalized([p if i in order[:top_k] else 0.0
                            for i, p in enumerate(probs)])  # fmt: skip
    if top_p < 1:
        kept, total = set(), 0.0
        for i in order:
            if total >= top_p:
                break
            kept.add(i)
            total += probs[i]
        probs = normalized([p if i in kept else 0.0 for i, p in enumerate(probs)])
    return normalized([p if p >= min_p * max(probs) else 0.0 for p in probs])


def many_draws(sample, settings, count=50_000, seed=11):
    """How often each token is sampled, in so many draws."""
    rng = torch.Generator().manual_seed(seed)
    rows = torch.tensor(LOGITS).expand(1000, 60)
    seen = torch.tensor(SEEN).expand(1000, 4)
    drawn = Counter()
    for _ in range(count // 1000):
        drawn.update(sample.choose(rows, seen, settings, [rng] * 1000).tolist())
    return drawn


def chi_square(drawn, probs):
    """(statistic, degrees of freedom) of counts against probabilities.

    Tokens expected fewer than 5 times are counted as one, as is usual.
    """
    count = sum(drawn.values())
    bins, rest = [], [0.0, 0]
    for i, p in enumerate(probs):
        if p == 0:
            assert drawn[i] == 0, f"token {i} is impossible, and was sampled"
        elif p * count >= 5:
            bins.append((p * count, drawn[i]))
        else:
            rest = [rest[0] + p * count, rest[1] + drawn[i]]
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
def test_fifty_thousand_draws_fit_the_definition_of_the_sampler(sample, changes):
    settings = PLAIN | changes
    drawn, probs = many_draws(sample, settings), by_definition(**settings)
    statistic, freedom = chi_square(drawn, probs)
    assert freedom >= 5
    assert not far(statistic, freedom), (statistic, freedom)


def test_the_chi_square_test_would_notice_a_slightly_wrong_sampler(sample):
    drawn = many_draws(sample, {"temperature": 1.05})  # 5% too high
    assert far(*chi_square(drawn, by_definition(**PLAIN)))


@pytest.mark.parametrize(
    "changes", [GREEDY, {"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}]
)
def test_greedy_and_all_that_leaves_one_token_take_the_most_likely(sample, changes):
    best = max(range(60), key=LOGITS.__getitem__)
    assert many_draws(sample, PLAIN | changes, 3000) == {best: 3000}


def kept(sampler, probs, value, dtype=torch.float32):
    """The indices that a sampler keeps of some probabilities."""
    logits = sampler(torch.tensor(probs, dtype=dtype).log(), value)
    assert logits.dtype == dtype
    return logits.isfinite().nonzero().flatten().tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "probs, p, expected",
    [
        ([0.3, 0.1, 0.1, 0.5], 0.8, [0, 3]),  # 0.5 + 0.3 reach 0.8 exactly
        ([0.3, 0.1, 0.1, 0.5], 0.80001, [0, 1, 3]),  # a little more: a third token
        ([0.3, 0.1, 0.1, 0.5], 0.79999, [0, 3]),
        ([0.3, 0.1, 0.1, 0.5], 0.5, [3]),
        ([0.3, 0.1, 0.1, 0.5], 1e-6, [3]),  # never fewer than one
        ([0.7, 0.2, 0.1], 0.9, [0, 1]),  # in binary, 0.7 + 0.2 is less than 0.9
        ([0.6, 0.3, 0.1], 0.9, [0, 1]),
        ([0.4, 0.3, 0.2, 0.1], 0.9, [0, 1, 2]),
        ([0.5, 0.5], 0.5, [0]),
        ([1.0, 0.0], 0.9, [0]),
        ([0.2, 0.8], 0.999, [0, 1]),
    ],
)
def test_top_p_keeps_the_fewest_tokens_that_reach_p(sample, probs, p, expected, dtype):
    assert kept(sample.keep_top_p, probs, p, dtype) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_top_p_is_exact_where_sums_that_binary_cannot_hold_reach_p(sample, dtype):
    # n equal tokens and p = m/n: exactly m stay.
    for n in (3, 5, 7, 10, 20, 100, 997):
        for m in {1, 2, n // 2, n - 1}:
            assert len(kept(sample.keep_top_p, [1 / n] * n, m / n, dtype)) == m
    # 1/45, 2/45, ... 9/45 sum to 1; p is the sum of the m largest.
    probs = [k / 45 for k in range(1, 10)]
    for m in range(1, 9):
        p = sum(range(9, 9 - m, -1)) / 45
        assert len(kept(sample.keep_top_p, probs, p, dtype)) == m


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_min_p_keeps_a_token_at_exactly_the_fraction(sample, dtype):
    assert kept(sample.keep_min_p, [0.5, 0.3, 0.2], 0.6, dtype) == [0, 1]
    assert kept(sample.keep_min_p, [0.5, 0.3, 0.2], 0.4, dtype) == [0, 1, 2]
    assert kept(sample.keep_min_p, [0.5, 0.3, 0.2], 0.41, dtype) == [0, 1]
    for n in range(2, 60):  # 1/n of the best, for every n
        probs = [n / (n + 1), 1 / (n + 1)]
        assert kept(sample.keep_min_p, probs, 1 / n, dtype) == [0, 1]
        assert kept(sample.keep_min_p, probs, 1.0001 / n, dtype) == [0]


def test_greedy_breaks_a_tie_always_in_the_same_way(sample):
    tie = torch.tensor([[0.0, 2.0, 2.0, 1.0]])
    seen = torch.tensor([[0]])
    chosen = {sample.choose(tie, seen, GREEDY, [None]).item() for _ in range(20)}
    assert len(chosen) == 1 and chosen <= {1, 2}


def test_a_penalty_holds_at_temperature_zero_too(sample):
    logits, seen = torch.tensor([[2.0, 1.9, 0.0]]), torch.tensor([[0]])
    settings = GREEDY | {"repetition_penalty": 1.5}
    assert sample.choose(logits, seen, settings, [None]).item() == 1


@pytest.mark.parametrize("u, expected", [(0.0, 1), (1 - 2**-53, 3)])
def test_the_ends_of_the_ruler_hit_only_possible_tokens(sample, u, expected):
    # Impossible tokens at both ends: a u of 0 or just below 1 must miss them.
    logits = torch.tensor([[-math.inf, 0.3, 0.2, 0.1, -math.inf, -math.inf]])
    u = torch.tensor([[u]], dtype=torch.float64)
    assert sample.sample(logits, u).item() == expected


def test_sampling_by_torch_and_by_hand_agree(sample):
    logits = torch.tensor(LOGITS)
    probs = logits.double().softmax(dim=-1).tolist()
    u = torch.rand(500, 1, generator=torch.Generator().manual_seed(3)).double()
    by_hand = [sample.sample_by_hand(probs, x) for x in u.flatten().tolist()]
    assert sample.sample(logits.expand(500, 60), u).tolist() == by_hand


def test_tiny_temperatures_give_numbers_and_the_most_likely_token(sample):
    logits, seen = torch.tensor([[50.0, -80.0, 49.0]]), torch.tensor([[1]])
    for temperature in (0.001, 1e-9, 1e-320):
        settings, rngs = {"temperature": temperature}, sample.make_rngs(1, 1)
        assert sample.choose(logits, seen, settings, rngs).item() == 0


def test_the_same_seed_gives_the_same_story_and_another_seed_another(sample, model):
    first, again, other = (
        sample.generate_all(model, [[BOS, 5]], 40, PLAIN, seed) for seed in (1, 1, 2)
    )
    assert first == again != other


# ------------------------------------------------------------------ text on screen


def bytewise(bpe):
    """A tokenizer without merges: every token is a byte."""
    return bpe.train(Counter(), 260, 1)[0]


def test_streaming_holds_bytes_back_until_a_character_is_complete(sample, bpe):
    tokenizer = bytewise(bpe)
    text = "naïve 🙂 日本"
    parts = list(sample.stream(tokenizer, tokenizer.encode(text)))
    assert "".join(parts) == text
    assert not any("\ufffd" in part for part in parts)
    assert parts[2:4] == ["", "ï"]  # the first of its two bytes shows nothing


def test_a_character_that_never_becomes_complete_shows_as_a_replacement(sample, bpe):
    tokenizer = bytewise(bpe)
    ids = tokenizer.encode("a🙂")[:-1]
    assert "".join(sample.stream(tokenizer, ids)) == "a\ufffd"
    ids += tokenizer.encode("b")
    assert "".join(sample.stream(tokenizer, ids)) == "a\ufffdb"


def test_special_tokens_are_not_part_of_the_text(sample, bpe):
    tokenizer = bytewise(bpe)
    ids = [BOS, *tokenizer.encode("Hi"), EOS]
    assert "".join(sample.stream(tokenizer, ids)) == "Hi"


def test_a_printed_story_is_wrapped_and_no_word_changes(sample, bpe, capsys):
    tokenizer = bytewise(bpe)
    text = "Once upon a time there was a fox.\n\nIt had " + "x" * 50 + " friends. Bye"
    new = [*tokenizer.encode(text[7:]), EOS]
    ids = [BOS, *tokenizer.encode(text[:7])]
    assert sample.print_story(tokenizer, ids, iter(new), width=24) == new
    *lines, ending = capsys.readouterr().out.splitlines()
    assert ending == f"  ({len(new)} tokens; ended by itself, with <EOS>)"
    assert " ".join(lines).split() == text.split()
    assert all(len(line) <= 24 + 10 or "xxx" in line for line in lines)
    assert all(line.startswith("  ") for line in lines if line)
    assert "" in lines  # the empty line between paragraphs


def test_a_story_is_printed_while_it_is_generated(sample, bpe):
    # Also one in Chinese, which has no spaces to wait for.
    tokenizer, printed, seen = bytewise(bpe), io.StringIO(), []

    def tokens():
        for token in tokenizer.encode("有一只猫"):
            seen.append(printed.getvalue())
            yield token

    with contextlib.redirect_stdout(printed):
        sample.print_story(tokenizer, [BOS, *tokenizer.encode("从前")], tokens())
    assert [seen[0], seen[3], seen[11]] == ["  从前", "  从前有", "  从前有一只"]


# -------------------------------------------------------------- inside of the model


@pytest.mark.parametrize("alibi", [None, 0.5])  # 0.5: training was stopped early
def test_look_inside_gives_the_logits_of_the_model_and_weights_that_sum_to_1(
    sample, model, monkeypatch, alibi
):
    monkeypatch.setattr(model, "alibi", alibi)
    idx = torch.tensor([BOS, 9, 4, 250, 7])
    logits, attention = sample.look_inside(model, idx)
    torch.testing.assert_close(logits, model(idx[None])[0][0], atol=1e-4, rtol=1e-4)
    assert attention.shape == (2, 2, 5, 5)
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(2, 2, 5))
    assert (attention.triu(1) == 0).all()  # no position attends to a later one


def test_entropy_of_a_coin_is_one_bit(sample):
    assert sample.entropy(torch.tensor([5.0, 5.0, -math.inf])) == pytest.approx(1.0)


def test_page_data_fits_the_context_and_counts_what_it_leaves_out(sample, model):
    names = [b"<PAD>", b"<UNK>", b"<BOS>", b"<EOS>"]
    tokenizer = SimpleNamespace(token_bytes=names + [b" t%d" % i for i in range(296)])
    ids = [BOS, 5, *range(20, 45)]
    settings = PLAIN | {"top_k": 3, "repetition_penalty": 1.2}
    data = sample.page_data(model, tokenizer, ids, 2, settings)
    assert len(data["tokens"]) == len(data["ids"]) == 16 and data["left_out"] == 11
    assert len(data["steps"]) == 14
    assert [len(row) for row in data["attention"][1][0]] == list(range(1, 17))
    assert all(abs(sum(row) - 1000) <= 16 for row in data["attention"][0][1])
    for step in data["steps"]:
        assert step["kept"] == 3
        after = [row[-1] for row in step["candidates"]]
        assert sum(after) == pytest.approx(1, abs=2e-4)
        assert step["entropy"][1] <= math.log2(3) + 0.01


# -------------------------------------------------------------------------- prompts


@pytest.mark.parametrize(
    "prompt, text",
    [
        ("Once upon a time", "Once upon a time"),
        ("", ""),
        ("     ", ""),  # spaces at the end are left out: " time" is one token
        ("The fox  ", "The fox"),
        ("  The fox", "  The fox"),
        ("\tline one\nline two\r\n", "\tline one\nline two\r\n"),
        ("<EOS> is text, and <BOS> too", "<EOS> is text, and <BOS> too"),
        ("Żółw i jeż", "Żółw i jeż"),
        ("从前有一只小猫", "从前有一只小猫"),
        ("كان يا ما كان", "كان يا ما كان"),
        ("e\u0301 👩‍👩‍👧 \u200b", "e\u0301 👩‍👩‍👧 \u200b"),
        ("\ufeffbyte-order mark", "\ufeffbyte-order mark"),
        ("a\udcff", "a\ufffd"),  # the lone byte 255, as Linux hands it over
        ("\ud83d\ude42", "🙂"),  # both halves of a UTF-16 pair
        ("\ud83d alone \ude42", "\ufffd alone \ufffd"),  # one half each
        ("\0\x1b[31m", "\0\x1b[31m"),
    ],
)
def test_any_prompt_is_encoded_and_continued(sample, model, bpe, prompt, text):
    tokenizer = bytewise(bpe)
    ids = sample.read_prompt(tokenizer, prompt, 1000)
    assert ids[0] == BOS and tokenizer.decode(ids) == text
    ids = sample.read_prompt(tokenizer, prompt, 16)
    assert len(ids) <= 16
    (new,) = sample.generate_all(model, [ids], 5, PLAIN, 1, None)
    assert len(new) == 5


def test_characters_without_a_token_of_their_own_are_named(sample, bpe, capsys):
    sample.read_prompt(bytewise(bpe), "The 龍 said ß 🙂 ß", 100)
    assert "several tokens each: ß 龍 🙂" in capsys.readouterr().out


def test_of_a_prompt_longer_than_the_context_the_end_is_kept(sample, bpe, capsys):
    tokenizer = bytewise(bpe)
    assert len(sample.read_prompt(tokenizer, "x" * 15, 16)) == 16
    assert capsys.readouterr().out == ""  # it fits, with <BOS>
    ids = sample.read_prompt(tokenizer, "x" * 16 + "123456789012", 16)
    assert ids == [BOS, *tokenizer.encode("123456789012")]
    printed = capsys.readouterr().out
    assert "29 tokens" in printed and "sees 16" in printed and "last 12" in printed


# ------------------------------------------------------------- the script as a whole


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
        ("TOP_K", 0, "1 to 300"),
        ("TOP_K", 301, "1 to 300"),
        ("TOP_K", 2.5, "1 to 300"),
        ("TOP_K", True, "1 to 300"),
    ],
)
def test_constants_out_of_range_are_named_with_their_range(
    sample, model, monkeypatch, name, value, span
):
    monkeypatch.setattr(sample, name, value)
    monkeypatch.setattr(sample.bpe.Tokenizer, "load", lambda: range(300))
    monkeypatch.setattr(sample.gpt.GPT, "load", lambda path, writer: (model, {}))
    monkeypatch.setattr(sample.bpe, "check_tokenizer", lambda *_: None)
    with pytest.raises(SystemExit) as stopped:
        sample.check_inputs()
    what, why, how = str(stopped.value).splitlines()
    assert name in what and repr(value) in what
    assert span in why and "06_sample.py" in how


@pytest.fixture
def studio(workshop, bpe, gpt):
    """A workshop with a tokenizer and a best.pt, as if stages 1 to 4 had run."""
    tokenizer = workshop.folder / "artifacts" / "01_bpe" / "tokenizer.json"
    best = workshop.folder / "artifacts" / "04_train" / "best.pt"
    for path in (tokenizer, best):
        path.parent.mkdir(parents=True)
    tokenizer.write_text(bytewise(bpe).to_json(), "utf-8")

    def train(block_size=16):
        config = small(gpt, block_size, vocab_size=260)
        checkpoint = {"format": "04_train/3", "config": asdict(config)}
        checkpoint["weights"] = lively(gpt, config).state_dict()
        checkpoint["tokenizer"] = bpe.sha256_of(tokenizer)
        torch.save(checkpoint, best)

    workshop.train = train
    workshop.train()
    workshop.edit("06_sample.py", MAX_TOKENS=30, SAMPLES=2, DEVICE="cpu")
    return workshop


def test_a_run_shows_all_its_parts_and_writes_the_page(studio):
    done = studio.run("06_sample.py", "Once", "upon")  # without quotes works, too
    assert done.returncode == 0, done.stderr
    out = done.stdout
    assert "[plan] device cpu" in out and "min_p 0.1" in out
    assert "after the samplers" in out and "#" in out and "entropy" in out
    assert ["0.0", "0.5", "1.0", "1.5"] in [line.split() for line in out.splitlines()]
    assert out.count("equal: True") == 2 and "tokens/s with the cache (" in out
    assert out.count("tokens; ") == 3 and "of 2 ended by themselves" in out
    assert out.count("  Once upon") >= 3
    page = studio.folder / "artifacts" / "06_sample" / "story.html"
    assert "/*DATA*/null" not in page.read_text("utf-8")
    assert "Next:" in out.splitlines()[-1]


def test_in_a_chat_each_line_is_continued_until_an_empty_line(
    sample, gpt, bpe, monkeypatch, capsys
):
    typed = io.BytesIO(b"A fox\nA crow \xff\n\nnever read\n")  # \xff is not UTF-8
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(typed, encoding="utf-8"))
    monkeypatch.setattr(sample, "MAX_TOKENS", 30)
    sample.chat(lively(gpt, small(gpt, vocab_size=260)), bytewise(bpe))
    out = capsys.readouterr().out
    assert out.count("tokens; ") == 2
    assert "A fox" in out and "A crow" in out and "never read" not in out


def test_a_missing_model_and_another_tokenizer_are_refused(
    sample, model, bpe, tmp_path, monkeypatch
):
    path = tmp_path / "tokenizer.json"
    path.write_text(bytewise(bpe).to_json(), "utf-8")
    monkeypatch.setattr(bpe, "OUT", tmp_path)
    monkeypatch.setattr(bpe.Tokenizer, "load", lambda: bytewise(bpe))
    monkeypatch.setattr(sample, "MODEL", tmp_path / "best.pt")
    with pytest.raises(SystemExit, match="best.pt is missing") as stopped:
        sample.check_inputs()
    assert str(stopped.value).endswith("python 04_train.py")
    checkpoint = {"tokenizer": "sha256 of another"}
    monkeypatch.setattr(sample.gpt.GPT, "load", lambda path, _: (model, checkpoint))
    with pytest.raises(SystemExit, match="another tokenizer") as stopped:
        sample.check_inputs()
    assert str(stopped.value).endswith("python 04_train.py")
