"""Stage 3 against torch and against arithmetic done by hand."""
import doctest
import functools
import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

SMALL = {"vocab_size": 50, "block_size": 16, "n_layer": 2, "n_head": 2, "n_embd": 32}


def loss_of(model, idx, targets):
    """The loss as training computes it, without keeping logits."""
    return model(idx, targets, return_logits=False)[1]


# Torch's own tolerance leaves little room for a processor that adds in another order.
alike = functools.partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)


@pytest.fixture
def model(gpt):
    torch.manual_seed(0)
    return gpt.GPT(gpt.GPTConfig(**SMALL)).eval()


def random_ids(rows, length):
    return torch.randint(50, (rows, length), generator=torch.Generator().manual_seed(1))


def test_the_examples_in_the_docstrings_are_true(gpt):
    outcome = doctest.testmod(gpt)
    assert outcome.attempted >= 5 and outcome.failed == 0


# ------------------------------------------------------------------------- attention


def test_attention_by_hand_equals_torch_in_values_and_gradients(gpt):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 7, 8, requires_grad=True) for _ in range(3))
    by_hand, _ = gpt.attention_by_hand(q, k, v)
    weight = torch.randn_like(by_hand)
    mine = torch.autograd.grad((by_hand * weight).sum(), (q, k, v))
    by_torch = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    theirs = torch.autograd.grad((by_torch * weight).sum(), (q, k, v))
    alike(by_hand, by_torch)
    alike(mine, theirs)


def test_in_bfloat16_on_a_cpu_ours_gives_what_torchs_attention_gives(gpt, monkeypatch):
    # Two ways, the same numbers up to the 8 bits of a bfloat16; with dropout, which
    # attention_by_hand does not know, torch's way is taken.
    taken = []
    by_hand = gpt.attention_by_hand
    monkeypatch.setattr(
        gpt, "attention_by_hand", lambda *qkv: taken.append(1) or by_hand(*qkv)
    )
    torch.manual_seed(0)
    attention = gpt.CausalSelfAttention(gpt.GPTConfig(n_head=2, n_embd=16))
    x = torch.randn(3, 9, 16)
    exact = attention(x)
    assert not taken
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(attention(x).float(), exact, rtol=0.05, atol=0.01)
        assert len(taken) == 1
        attention.dropout = 0.5
        attention.train()(x)
        assert len(taken) == 1


def test_attention_weights_sum_to_one_and_none_points_to_the_future(gpt):
    q, k, v = (torch.randn(1, 2, 5, 4) for _ in range(3))
    _, attn_weights = gpt.attention_by_hand(q, k, v)
    alike(attn_weights.sum(-1), torch.ones(1, 2, 5))
    assert attn_weights.triu(1).abs().max() == 0


def test_the_last_queries_alone_get_what_they_get_among_all(gpt):
    # With a cache there are fewer queries than keys: the mask's corner is bottom right.
    q, k, v = (torch.randn(1, 2, 6, 4) for _ in range(3))
    all_of_them, _ = gpt.attention_by_hand(q, k, v)
    last_two, _ = gpt.attention_by_hand(q[:, :, -2:], k, v)
    alike(last_two, all_of_them[:, :, -2:])


def test_splitting_into_heads_keeps_the_numbers_of_a_token_together(gpt):
    # B=1, T=4, C=6, H=2: token t holds 10 t + 0..5, and head 1 must get its last three.
    attention = gpt.CausalSelfAttention(gpt.GPTConfig(n_head=2, n_embd=6))
    with torch.no_grad():
        attention.c_attn.weight.copy_(torch.eye(6).repeat(3, 1))  # q = k = v = x
    x = (10 * torch.arange(4.0)[:, None] + torch.arange(6.0)).view(1, 4, 6)
    q, _, _ = attention.qkv(x)
    assert q.shape == (1, 2, 4, 3)
    # x.view(1, 2, 4, 3), the famous mistake, has [30.0, 31.0, 32.0] there.
    assert q[0, 1, 2].tolist() == [23.0, 24.0, 25.0]


# ----------------------------------------------------------------------------- model


def test_changing_a_token_never_changes_the_logits_before_it(gpt, model):
    before, after = gpt.check_causality(model, random_ids(1, 16))
    assert before == 0 and after > 0


def test_the_check_finds_a_model_that_sees_the_future(gpt, model, monkeypatch):
    def without_mask(q, k, v, *_, **__):
        return F.softmax(q @ k.transpose(2, 3), dim=-1) @ v

    monkeypatch.setattr(F, "scaled_dot_product_attention", without_mask)
    before, _ = gpt.check_causality(model, random_ids(1, 16))
    assert before > 0


def test_a_batch_gives_logits_and_a_loss_that_is_a_number(gpt):
    shape = {"vocab_size": 1000, "block_size": 64, "n_head": 2, "n_embd": 64}
    config = gpt.GPTConfig(**shape)
    idx = torch.randint(1000, (4, 32))
    logits, loss = gpt.GPT(config)(idx, idx)
    assert logits.shape == (4, 32, 1000)
    assert loss.shape == () and math.isfinite(loss.item())


def test_an_untrained_model_pays_ln_v_per_token_and_half_a_nat_for_its_opinions(model):
    # The logits of random weights vary by about 1, which costs 1/2 on average.
    idx = random_ids(8, 17)
    loss = loss_of(model, idx[:, :-1], idx[:, 1:]).item()
    assert loss == pytest.approx(math.log(50) + 0.5, abs=0.3)


@pytest.fixture(params=["one operation of torch", "the loop below it"])
def way(request, monkeypatch):
    """Both ways to a loss: a CPU in float32 takes the first; all else, the second."""
    if request.param == "the loop below it":
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: True)
    else:  # else this parameter would test the same way twice
        assert not torch.is_autocast_enabled("cpu")


def test_the_loss_in_chunks_equals_torch_on_all_logits_at_once(model, way):
    idx, targets = random_ids(3, 16), random_ids(3, 16).roll(1)
    targets[1, 4:] = -1  # not counted
    ours = loss_of(model, idx, targets)
    logits, loss = model(idx, targets)
    right = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
    alike(ours, right)
    alike(loss, right)
    weights = list(model.parameters())
    gradients = torch.autograd.grad(ours, weights)
    alike(gradients, torch.autograd.grad(right, weights))


def test_the_loss_of_more_rows_than_one_chunk_is_the_same(gpt, way):
    # 1,400 rows; a chunk has 2**22 / V = 1,024, so there are a whole one and a rest.
    model = gpt.GPT(gpt.GPTConfig(**SMALL | {"block_size": 700, "vocab_size": 4096}))
    idx = random_ids(2, 701)
    x, y = idx[:, :-1], idx[:, 1:]
    ours, logits = loss_of(model, x, y), model(x)[0]
    right = F.cross_entropy(logits.flatten(0, 1), y.flatten())
    alike(ours, right)
    weights = list(model.parameters())
    gradients = torch.autograd.grad(ours, weights)
    alike(gradients, torch.autograd.grad(right, weights))


def test_each_way_to_a_loss_is_taken_where_it_is_fast(model, monkeypatch):
    taken, operation = [], F.linear_cross_entropy
    monkeypatch.setattr(
        F, "linear_cross_entropy", lambda *a, **k: taken.append(1) or operation(*a, **k)
    )
    idx = random_ids(2, 9)
    exact = loss_of(model, idx, idx)
    assert len(taken) == 1
    with torch.autocast("cpu", torch.bfloat16):
        bf16 = loss_of(model, idx, idx)
        torch.testing.assert_close(bf16, exact, rtol=0.02, atol=0.0)
    assert len(taken) == 1


def test_with_a_cache_the_logits_are_those_without(model):
    idx = random_ids(2, 16)
    cache = model.new_cache()
    ends = [(0, 5), (5, 6), (6, 10), (10, 16)]
    parts = [model(idx[:, a:b], cache=cache)[0] for a, b in ends]
    alike(torch.cat(parts, dim=1), model(idx)[0])


def test_token_by_token_the_cache_is_filled_in_place(model):
    idx, cache, parts, places = random_ids(3, 16), model.new_cache(), [], set()
    with torch.no_grad():
        for t in range(16):
            parts.append(model(idx[:, t : t + 1], cache=cache)[0])
            places |= {block.buffer.data_ptr() for block in cache}
        alike(torch.cat(parts, dim=1), model(idx)[0])
    assert [block.length for block in cache] == [16, 16]
    # Two tensors for two blocks, each as long as the context: none was made anew.
    assert {block.buffer.shape for block in cache} == {(2, 3, 2, 16, 16)}
    assert len(places) == 2


# ------------------------------------------------------------------- distance penalty


def test_each_heads_scores_fall_linearly_with_the_distance_by_a_slope_of_its_own(
    gpt, model
):
    # H = 2: the slopes are 2**-4 = 1/16 and 2**-8 = 1/256; -inf is the future.
    model.alibi = 1.0
    bias = model.alibi_bias(torch.arange(4), 0)
    assert bias.shape == (1, 2, 4, 4)
    inf = math.inf
    assert bias[0, 0].tolist() == [
        [0, -inf, -inf, -inf],
        [-0.0625, 0, -inf, -inf],
        [-0.125, -0.0625, 0, -inf],
        [-0.1875, -0.125, -0.0625, 0],
    ]
    assert bias[0, 1, 3].tolist() == [-3 / 256, -2 / 256, -1 / 256, 0]
    model.alibi = 0.5
    assert model.alibi_bias(torch.arange(4), 3)[0, 0].tolist() == [
        [-0.09375, -0.0625, -0.03125, 0]  # the last query alone, half as strong
    ]


def test_the_bias_is_added_to_the_scores_by_hand_as_by_torch(gpt, model):
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 2, 7, 8) for _ in range(3))
    model.alibi = 0.7
    bias = model.alibi_bias(torch.arange(7), 0)
    by_hand, attn_weights = gpt.attention_by_hand(q, k, v, bias)
    alike(by_hand, F.scaled_dot_product_attention(q, k, v, bias))
    assert attn_weights.triu(1).abs().max() == 0
    plain = gpt.attention_by_hand(q, k, v)[1]
    # Besides the penalty only the sum that softmax divides by differs: from a position
    # to the next, one nearer to the query, ln of the ratio rises by 0.7 / 16.
    ratio = (attn_weights / plain).log()[0, 0, 6]
    alike(ratio.diff(), torch.full((6,), 0.7 / 16))


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_with_the_penalty_the_cache_gives_the_logits_of_no_cache(model, strength):
    model.alibi = strength
    idx, cache = random_ids(2, 16), model.new_cache()
    ends = [(0, 5), (5, 6), (6, 10), (10, 16)]
    parts = [model(idx[:, a:b], cache=cache)[0] for a, b in ends]
    with_penalty = model(idx)[0]
    alike(torch.cat(parts, dim=1), with_penalty)
    model.alibi = None
    assert (model(idx)[0] - with_penalty).abs().max() > 0.01
    # The first position has nothing to attend to but itself, so no distance either.
    alike(model(idx)[0][:, 0], with_penalty[:, 0])


def test_with_the_penalty_no_token_sees_the_future_either(gpt, model):
    model.alibi = 1.0
    before, after = gpt.check_causality(model, random_ids(1, 16))
    assert before == 0 and after > 0


def test_in_bfloat16_the_penalty_is_the_same_up_to_its_8_bits(gpt):
    for dropout in (0.0, 1e-9):  # by hand, and by torch
        torch.manual_seed(0)
        model = gpt.GPT(gpt.GPTConfig(**SMALL, dropout=dropout)).train()
        model.alibi = torch.tensor(0.8)
        idx = random_ids(2, 16)
        exact = loss_of(model, idx, idx)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, idx, idx)
        torch.testing.assert_close(loss, exact, rtol=0.02, atol=0.0)


def test_in_bfloat16_the_penalty_does_not_make_the_scores_float32(gpt, monkeypatch):
    # A sum of both would be float32, twice as large: half of a run would be slower.
    by_hand, seen = gpt.attention_by_hand, []

    def watch(q, k, v, bias):
        seen.append((q.dtype, bias.dtype))
        return by_hand(q, k, v, bias)

    monkeypatch.setattr(gpt, "attention_by_hand", watch)
    model, idx = gpt.GPT(gpt.GPTConfig(**SMALL)).train(), random_ids(2, 16)
    model.alibi = torch.tensor(0.8)
    with torch.autocast("cpu", torch.bfloat16):
        model(idx)
    assert seen == [(torch.bfloat16, torch.bfloat16)] * 2  # one per block


def test_a_number_and_a_tensor_are_the_same_strength(model):
    # Training sets a tensor: torch.compile would compile anew for each new number.
    idx = random_ids(2, 16)
    model.alibi = 0.3
    logits = model(idx)[0]
    model.alibi = torch.tensor(0.3)
    alike(model(idx)[0], logits)


def test_without_the_penalty_a_model_is_plain_gpt_2(gpt, model):
    # Written out from GPT-2's paper and code, with nothing of stage 3 but its weights.
    idx, weights = random_ids(2, 16), dict(model.named_parameters())
    x = weights["wte.weight"][idx] + weights["wpe.weight"][:16]
    for block in ("h.0.", "h.1."):
        w = {name[4:]: w for name, w in weights.items() if name.startswith(block)}
        normed = F.layer_norm(x, (32,), w["ln_1.weight"])
        q, k, v = (normed @ w["attn.c_attn.weight"].T).chunk(3, dim=-1)
        heads = []
        for part in (slice(0, 16), slice(16, 32)):  # H = 2, D = 16
            scores = q[..., part] @ k[..., part].transpose(1, 2) / 4
            scores = scores.masked_fill(torch.ones(16, 16).triu(1).bool(), -math.inf)
            heads.append(scores.softmax(-1) @ v[..., part])
        x = x + torch.cat(heads, -1) @ w["attn.c_proj.weight"].T
        normed = F.layer_norm(x, (32,), w["ln_2.weight"])
        wide = F.gelu(normed @ w["mlp.c_fc.weight"].T, approximate="tanh")
        x = x + wide @ w["mlp.c_proj.weight"].T
    x = F.layer_norm(x, (32,), weights["ln_f.weight"])
    assert model.alibi is None
    alike(model(idx)[0], x @ weights["wte.weight"].T)


@pytest.mark.parametrize("saved, loaded", [(0.0, None), (0.25, 0.25)])
def test_a_checkpoint_keeps_the_strength_of_its_penalty(
    gpt, model, tmp_path, saved, loaded
):
    content = {"config": SMALL, "weights": model.state_dict(), "alibi": saved}
    gpt.save_checkpoint(tmp_path / "best.pt", content)
    again, _ = gpt.GPT.load(tmp_path / "best.pt", "04_train.py")
    assert again.alibi == loaded
    model.alibi, idx = loaded, random_ids(1, 16)
    assert torch.equal(again.eval()(idx)[0], model(idx)[0])


# -------------------------------------------------------------------------- generation


def test_generate_returns_the_prompt_and_as_many_new_tokens(model):
    prompt = random_ids(1, 10)
    idx = model.generate(prompt, 20)  # past the context of 16
    assert idx.shape == (1, 30)
    assert torch.equal(idx[:, :10], prompt)
    assert 0 <= idx.min() and idx.max() < 50


def greedy_without_cache(model, idx, count):
    """The definition of greedy generation, with the same window as generate()."""
    window = idx
    for _ in range(count):
        if window.shape[1] > 16:
            window = idx[:, -8:]
        new = model(window)[0][:, -1].argmax(dim=-1, keepdim=True)
        window, idx = torch.cat([window, new], 1), torch.cat([idx, new], 1)
    return idx


@pytest.mark.parametrize("prompt_length", [1, 15, 16])
def test_at_temperature_0_and_with_top_k_1_generate_is_greedy(model, prompt_length):
    prompt = random_ids(3, prompt_length)
    right = greedy_without_cache(model, prompt, 30)
    assert torch.equal(model.generate(prompt, 30, temperature=0.0), right)
    assert torch.equal(model.generate(prompt, 30, top_k=1), right)


def test_a_prompt_longer_than_the_context_is_read_from_its_end(model):
    prompt = random_ids(1, 40)
    new = model.generate(prompt, 1, temperature=0.0)[:, 40:]
    assert torch.equal(new, model.generate(prompt[:, -16:], 1, temperature=0.0)[:, 16:])


def test_the_same_random_generator_gives_the_same_sample(model):
    samples = [
        model.generate(random_ids(2, 3), 10, rng=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])


def test_top_k_and_min_p_leave_only_likely_tokens(model):
    prompt = random_ids(1, 4).repeat(400, 1)
    probs = model(prompt[:1])[0][0, -1].softmax(dim=-1)
    best = probs.topk(3).indices.tolist()
    assert set(model.generate(prompt, 1, top_k=3)[:, -1].tolist()) == set(best)
    likely = (probs >= 0.5 * probs.max()).nonzero().flatten().tolist()
    assert set(model.generate(prompt, 1, min_p=0.5)[:, -1].tolist()) <= set(likely)
    assert len(set(model.generate(prompt, 1)[:, -1].tolist())) > len(likely)


def test_generation_ends_once_every_row_has_stopped(model, monkeypatch):
    script = iter([[9, 5], [7, 9]])  # 9 stops; the second row has it a token later
    rows = lambda x: F.one_hot(torch.tensor(next(script)), 50).float()
    monkeypatch.setattr(model, "output", rows)
    idx = model.generate(random_ids(2, 4), 20, temperature=0.0, stop_id=9)
    assert idx[:, 4:].tolist() == [[9, 7], [5, 9]]


def test_generate_leaves_the_model_as_it_was_and_needs_no_gradient(model):
    model.train()
    idx = model.generate(random_ids(1, 4), 3)
    assert model.training and not idx.requires_grad


# ------------------------------------------------------------ gradient checkpointing


@pytest.mark.parametrize("alibi", [None, 0.5])
def test_checkpointing_changes_memory_and_not_the_gradient(gpt, alibi):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = gpt.GPT(gpt.GPTConfig(**SMALL)).train()
        model.checkpointing, model.alibi = checkpointing, alibi
        idx = random_ids(2, 17)
        loss_of(model, idx[:, :-1], idx[:, 1:]).backward()
        gradients.append([weight.grad for weight in model.parameters()])
    alike(gradients[0], gradients[1])


# ----------------------------------------------------------------------- initialization


def test_projections_into_the_stream_start_smaller_by_the_root_of_two_l(gpt):
    torch.manual_seed(0)
    model = gpt.GPT(gpt.GPTConfig(**SMALL | {"n_layer": 8, "n_embd": 128, "n_head": 4}))
    plain = model.h[0].mlp.c_fc.weight.std().item() * math.sqrt(128)
    narrow = model.h[0].mlp.c_proj.weight.std().item() * math.sqrt(128)
    assert plain / narrow == pytest.approx(math.sqrt(2 * 8), rel=0.05)


def test_a_head_starts_by_passing_on_what_it_attends_to(gpt):
    # What a vector becomes on its way through c_attn and c_proj is partly itself: the
    # diagonal of the product is 0.5 / L = 0.25 for L = 2, the rest is noise of 0.03.
    torch.manual_seed(0)
    model = gpt.GPT(gpt.GPTConfig(**SMALL | {"n_embd": 128, "n_head": 4}))
    attention = model.h[0].attn
    way = attention.c_proj.weight @ attention.c_attn.weight[2 * 128 :]  # (128, 128)
    assert way.diagonal().mean().item() == pytest.approx(0.25, abs=0.02)
    others = way - torch.diag(way.diagonal())
    assert others.std().item() < 0.04 and abs(others.mean().item()) < 0.01


# --------------------------------------------------------------------------- counting


@pytest.mark.parametrize(
    "size, millions", [("nano", 1.5), ("tiny", 10), ("small", 28), ("medium", 70)]
)
def test_each_size_has_the_parameters_it_promises(gpt, monkeypatch, size, millions):
    monkeypatch.setattr(gpt, "SIZE", size)
    config = gpt.read_size(vocab_size=8192)
    assert config.n_params == pytest.approx(millions * 1e6, rel=0.07)
    assert config.n_embd // config.n_head in (32, 64)  # what fast kernels take
    if size == "nano":
        weights = gpt.GPT(config).parameters()
        assert sum(weight.numel() for weight in weights) == config.n_params


def test_biases_are_counted_and_start_at_zero(gpt):
    config = gpt.GPTConfig(**SMALL, bias=True)
    weights = dict(gpt.GPT(config).named_parameters())
    assert sum(weight.numel() for weight in weights.values()) == config.n_params
    biases = [w for name, w in weights.items() if name.endswith("bias")]
    assert len(biases) == 2 * 6 + 1 and all(not bias.any() for bias in biases)


def test_the_flops_add_up_to_what_torch_counts(gpt, model, monkeypatch):
    # torch's counter does not see inside the CPU's fused attention: by hand it does.
    def by_hand(q, k, v, *_, **__):
        return gpt.attention_by_hand(q, k, v)[0]

    monkeypatch.setattr(F, "scaled_dot_product_attention", by_hand)
    with FlopCounterMode(display=False) as counter:
        model(random_ids(3, 16))
    assert counter.get_total_flops() == 3 * 16 * model.config.flops_per_token


def test_a_saved_model_holds_the_tied_weight_once_and_no_mask(gpt, model, tmp_path):
    path = tmp_path / "model.pt"
    gpt.save_checkpoint(path, {"config": SMALL, "weights": model.state_dict()})
    weights = torch.load(path, weights_only=True)["weights"]
    assert sum(weight.numel() for weight in weights.values()) == model.config.n_params
    again, _ = gpt.GPT.load(path, "03_model.py")
    idx = random_ids(1, 16)
    assert torch.equal(again.eval()(idx)[0], model(idx)[0])


def test_weights_that_do_not_fit_an_edited_gpt_are_refused(gpt, model, tmp_path):
    whole, path = model.state_dict(), tmp_path / "best.pt"
    for config, weights in [
        (SMALL | {"n_embd": 64}, whole),  # other shapes
        (SMALL | {"bias": True}, whole),  # the GPT has weights that the file lacks
        (SMALL, whole | {"ln_f.bias": torch.zeros(32)}),  # and the other way round
        (SMALL | {"n_expert": 4}, whole),  # a setting that is gone
        (SMALL, None),  # no weights at all
    ]:
        gpt.save_checkpoint(path, {"config": config, "weights": weights})
        with pytest.raises(SystemExit, match="best.pt cannot be used") as stopped:
            gpt.GPT.load(path, "04_train.py")
        _, why, how = str(stopped.value).splitlines()
        assert "do not fit the GPT" in why and how == "python 04_train.py"


# ------------------------------------------------------------------------------ devices


def test_without_a_gpu_the_device_is_the_cpu(gpt, model, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert gpt.pick_device(model, "auto", "06_sample.py").type == "cpu"
    assert "[plan] device cpu (here are: cpu)" in capsys.readouterr().out


def test_a_device_that_is_not_there_is_refused(gpt, model):
    with pytest.raises(SystemExit, match="'auto', .*'cpu'"):
        gpt.pick_device(model, "tpu", "06_sample.py")


def test_a_gpu_that_computes_other_logits_is_refused(gpt, model, monkeypatch):
    # Pretend there is a GPU: the CPU under another name, and wrong by one percent.
    fake = torch.device("cpu", 0)
    monkeypatch.setattr(gpt, "available_devices", lambda: [fake, torch.device("cpu")])
    moved = []

    def to(self, device):
        moved.append(device)
        with torch.no_grad():
            self.wte.weight.mul_(1.01)
        return self

    monkeypatch.setattr(gpt.GPT, "to", to)
    with pytest.raises(SystemExit) as stopped:
        gpt.pick_device(model, "auto", "06_sample.py")
    what, why, how = str(stopped.value).split("\n")
    assert "does not compute what the CPU computes" in what and moved == [fake]
    assert how == 'Set DEVICE = "cpu" in 06_sample.py, then: python 06_sample.py'


# ----------------------------------------------------------------------------- checks


def test_the_cases_of_attention_agree_and_the_penalty_is_off_again(gpt, model):
    assert gpt.check_cases(model, random_ids(1, 16)) < 1e-4
    assert model.alibi is None


def test_a_penalty_that_differs_with_a_cache_is_noticed(gpt, model, monkeypatch):
    right = gpt.GPT.alibi_bias

    def wrong(self, positions, past):
        return right(self, positions, past) * (2 if past else 1)

    monkeypatch.setattr(gpt.GPT, "alibi_bias", wrong)
    assert gpt.check_cases(model, random_ids(1, 16)) > 1e-3


# ------------------------------------------------------------------------- bad inputs


@pytest.fixture
def with_tokenizer(workshop, small_tokenizer):
    return small_tokenizer(workshop)


@pytest.mark.parametrize(
    "size, words",
    [
        ("huge", "'nano', 'tiny', 'small', 'medium'"),
        (7, "SIZE = 7"),
        ((1, 2, 3), "SIZE = (1, 2, 3)"),
        ((4, 3, 64, 128), "SIZE's width = 64"),
        ((4, 3, 64, 128), "a multiple of 3"),
        ((0, 2, 64, 128), "SIZE's blocks = 0"),
        ((2, 2, 64.5, 128), "SIZE's width = 64.5"),
    ],
)
def test_a_size_that_cannot_be_is_refused(gpt, monkeypatch, size, words):
    monkeypatch.setattr(gpt, "SIZE", size)
    with pytest.raises(SystemExit) as stopped:
        gpt.read_size(vocab_size=400)
    lines = str(stopped.value).splitlines()
    assert len(lines) == 3 and words in "\n".join(lines)
    assert lines[2].startswith("Edit SIZE")


def test_without_a_tokenizer_stage_3_names_stage_1(workshop):
    workshop.refuses("03_model.py", "tokenizer.json is missing", "python 01_bpe.py")


def test_without_a_mask_stage_3_stops_and_writes_nothing(with_tokenizer):
    script = with_tokenizer.folder / "03_model.py"
    text = script.read_text("utf-8")
    masked = "is_causal=T > 1)"
    assert text.count(masked) == 1
    script.write_text(text.replace(masked, "is_causal=False)"), "utf-8")
    with_tokenizer.refuses("03_model.py", "The causal mask is broken", "Fix it")
    assert not (with_tokenizer.folder / "artifacts/03_model/model.pt").exists()


def test_a_cache_that_an_edit_forgot_is_noticed(with_tokenizer):
    # The learner turns values into twice the values, but only where there is no cache.
    script = with_tokenizer.folder / "03_model.py"
    text = script.read_text("utf-8")
    line = "            k, v = cache.append(k, v)"
    assert text.count(line) == 1
    edited = line + "\n        else:\n            v = 2 * v"
    script.write_text(text.replace(line, edited))
    with_tokenizer.refuses("03_model.py", "The cases of attention disagree", "KV cache")


def test_own_numbers_make_a_model(with_tokenizer, gpt):
    with_tokenizer.edit("03_model.py", SIZE=(1, 2, 32, 64))
    done = with_tokenizer.run("03_model.py")
    assert done.returncode == 0, done.stderr
    model, _ = gpt.GPT.load(
        with_tokenizer.folder / "artifacts/03_model/model.pt", "03_model.py"
    )
    assert model.config.block_size == 64 and len(model.h) == 1
    assert done.stdout.rstrip().endswith("Next: python 04_train.py")
