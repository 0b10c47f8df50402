"""Stage 3 against torch and against arithmetic done by hand."""
import doctest
import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

SMALL = {"vocab_size": 50, "context": 16, "n_layer": 2, "n_head": 2, "n_embd": 32}


@pytest.fixture
def model(gpt):
    torch.manual_seed(0)
    return gpt.GPT(SMALL).eval()


def random_ids(rows, length):
    return torch.randint(50, (rows, length), generator=torch.Generator().manual_seed(1))


def test_the_examples_in_the_docstrings_are_true(gpt):
    outcome = doctest.testmod(gpt)
    assert outcome.attempted >= 5 and outcome.failed == 0


# ------------------------------------------------------------------------- attention


def test_attention_by_hand_equals_torch_in_values_and_gradients(gpt):
    q, k, v = (torch.randn(2, 3, 7, 8, requires_grad=True) for _ in range(3))
    by_hand, _ = gpt.attention_by_hand(q, k, v)
    weight = torch.randn_like(by_hand)
    mine = torch.autograd.grad((by_hand * weight).sum(), (q, k, v))
    by_torch = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    theirs = torch.autograd.grad((by_torch * weight).sum(), (q, k, v))
    torch.testing.assert_close(by_hand, by_torch)
    torch.testing.assert_close(mine, theirs)


def test_in_bfloat16_on_a_cpu_ours_gives_what_torchs_attention_gives(gpt, monkeypatch):
    # Two ways, the same numbers up to the 8 bits of a bfloat16; with dropout, which
    # attention_by_hand does not know, torch's way is taken.
    taken = []
    by_hand = gpt.attention_by_hand
    monkeypatch.setattr(
        gpt, "attention_by_hand", lambda *qkv: taken.append(1) or by_hand(*qkv)
    )
    torch.manual_seed(0)
    attention = gpt.Attention(n_head=2, n_embd=16, dropout=0.0)
    x = torch.randn(3, 9, 16)
    exact = attention(x)
    assert not taken
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(attention(x).float(), exact, rtol=0.05, atol=0.01)
        assert len(taken) == 1
        attention.dropout = 0.5
        attention.train()(x)
        assert len(taken) == 1


def test_the_shares_of_attention_sum_to_one_and_none_goes_to_the_future(gpt):
    q, k, v = (torch.randn(1, 2, 5, 4) for _ in range(3))
    _, shares = gpt.attention_by_hand(q, k, v)
    torch.testing.assert_close(shares.sum(-1), torch.ones(1, 2, 5))
    assert shares.triu(1).abs().max() == 0


def test_the_last_queries_alone_fetch_what_they_fetch_among_all(gpt):
    # With a cache there are fewer queries than keys: the mask's corner is bottom right.
    q, k, v = (torch.randn(1, 2, 6, 4) for _ in range(3))
    all_of_them, _ = gpt.attention_by_hand(q, k, v)
    last_two, _ = gpt.attention_by_hand(q[:, :, -2:], k, v)
    torch.testing.assert_close(last_two, all_of_them[:, :, -2:])


def test_splitting_into_heads_keeps_the_numbers_of_a_token_together(gpt):
    # B=1, T=4, C=6, H=2: token t holds 10 t + 0..5, and head 1 must get its last three.
    attention = gpt.Attention(n_head=2, n_embd=6, dropout=0.0)
    with torch.no_grad():
        attention.c_attn.weight.copy_(torch.eye(6).repeat(3, 1))  # q = k = v = x
    x = (10 * torch.arange(4.0)[:, None] + torch.arange(6.0)).view(1, 4, 6)
    q, _, _ = attention.split(x)
    assert q.shape == (1, 2, 4, 3)
    assert q[0, 1, 2].tolist() == [23.0, 24.0, 25.0]
    wrong = x.view(1, 2, 4, 3)  # the famous mistake: the same shape, other numbers
    assert wrong[0, 1, 2].tolist() != [23.0, 24.0, 25.0]


# ----------------------------------------------------------------------------- model


def test_changing_a_token_never_changes_the_logits_before_it(gpt, model):
    before, after = gpt.check_causality(model, random_ids(1, 16))
    assert before == 0 and after > 0


def test_the_check_finds_a_model_that_sees_the_future(gpt, model, monkeypatch):
    def without_mask(q, k, v, dropout_p, is_causal):
        return F.softmax(q @ k.transpose(2, 3), dim=-1) @ v

    monkeypatch.setattr(F, "scaled_dot_product_attention", without_mask)
    before, _ = gpt.check_causality(model, random_ids(1, 16))
    assert before > 0


def test_an_untrained_model_pays_ln_v_per_token_and_half_a_nat_for_its_opinions(model):
    # The logits of random weights vary by about 1, which costs 1/2 on the average.
    ids = random_ids(8, 17)
    loss = model.loss(ids[:, :-1], ids[:, 1:]).item()
    assert loss == pytest.approx(math.log(50) + 0.5, abs=0.3)


@pytest.fixture(params=["one operation of torch", "the loop below it"])
def way(request, monkeypatch):
    """Both ways to a loss: a CPU in float32 takes the first; all else, the second."""
    if request.param == "the loop below it":
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: True)
    else:  # else this parameter would test the same way twice
        assert not torch.is_autocast_enabled("cpu")


def test_the_loss_in_pieces_equals_torch_on_all_logits_at_once(model, way):
    ids, targets = random_ids(3, 16), random_ids(3, 16).roll(1)
    targets[1, 4:] = -1  # not counted
    mine = torch.autograd.grad(model.loss(ids, targets), list(model.parameters()))
    logits = model(ids).flatten(0, 1)
    right = F.cross_entropy(logits, targets.flatten(), ignore_index=-1)
    theirs = torch.autograd.grad(right, list(model.parameters()))
    torch.testing.assert_close(model.loss(ids, targets), right)
    torch.testing.assert_close(mine, theirs)


def test_the_loss_of_more_rows_than_one_piece_is_the_same(gpt, way):
    # 1,400 rows; a piece has 2**22 / V = 1,024, so there are a whole one and a rest.
    model = gpt.GPT(SMALL | {"context": 700, "vocab_size": 4096})
    ids = random_ids(2, 701)
    x, y = ids[:, :-1], ids[:, 1:]
    one_by_one = model.loss(x, y, reduction="none")
    assert one_by_one.shape == (2, 700)
    torch.testing.assert_close(one_by_one.mean(), model.loss(x, y))
    right = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
    torch.testing.assert_close(model.loss(x, y), right)
    weights = list(model.parameters())
    mine = torch.autograd.grad(model.loss(x, y), weights)
    torch.testing.assert_close(mine, torch.autograd.grad(right, weights))


def test_the_two_ways_to_a_loss_are_taken_where_they_should_be(model, monkeypatch):
    taken, operation = [], F.linear_cross_entropy
    monkeypatch.setattr(
        F, "linear_cross_entropy", lambda *a, **k: taken.append(1) or operation(*a, **k)
    )
    ids = random_ids(2, 9)
    exact = model.loss(ids, ids)
    assert len(taken) == 1
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model.loss(ids, ids), exact, rtol=0.02, atol=0.0)
    assert len(taken) == 1


def test_with_a_cache_the_logits_are_those_without(model):
    ids = random_ids(2, 16)
    at_once = model(ids)
    cache = model.new_cache()
    pieces = [model(ids[:, a:b], cache) for a, b in [(0, 5), (5, 6), (6, 10), (10, 16)]]
    torch.testing.assert_close(torch.cat(pieces, dim=1), at_once)


def test_token_by_token_the_cache_is_filled_in_place(model):
    ids, cache = random_ids(3, 16), model.new_cache()
    with torch.no_grad():
        one_by_one = [model(ids[:, t : t + 1], cache) for t in range(16)]
        places = {block.room.data_ptr() for block in cache}
        torch.testing.assert_close(torch.cat(one_by_one, dim=1), model(ids))
    assert [block.length for block in cache] == [16, 16]
    # Two tensors for two blocks, each as long as the context: none was made anew.
    assert {block.room.shape for block in cache} == {(2, 3, 2, 16, 16)}
    assert len(places) == 2


def test_checkpointing_changes_memory_and_not_the_gradient(gpt):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = gpt.GPT(SMALL).train()
        model.checkpointing = checkpointing
        ids = random_ids(2, 17)
        model.loss(ids[:, :-1], ids[:, 1:]).backward()
        gradients.append([weight.grad for weight in model.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_projections_into_the_stream_start_smaller_by_the_root_of_two_l(gpt):
    torch.manual_seed(0)
    model = gpt.GPT(SMALL | {"n_layer": 8, "n_embd": 128, "n_head": 4})
    plain = model.h[0].mlp.c_fc.weight.std().item() * math.sqrt(128)
    narrow = model.h[0].mlp.c_proj.weight.std().item() * math.sqrt(128)
    assert plain / narrow == pytest.approx(math.sqrt(2 * 8), rel=0.05)


def test_a_head_starts_by_handing_on_what_it_looks_at(gpt):
    # What a value becomes on its way through c_attn and c_proj is mostly itself: the
    # diagonal of the product is 0.5 / L = 0.25 for L = 2, the rest is chance.
    torch.manual_seed(0)
    model = gpt.GPT(SMALL | {"n_layer": 2, "n_embd": 128, "n_head": 4})
    attention = model.h[0].attn
    way = attention.c_proj.weight @ attention.c_attn.weight[2 * 128 :]  # (128, 128)
    assert way.diagonal().mean().item() == pytest.approx(0.25, abs=0.02)
    others = way - torch.diag(way.diagonal())
    assert abs(others.mean().item()) < 0.01


# --------------------------------------------------------------------------- counting


@pytest.mark.parametrize(
    "size, millions", [("nano", 1), ("tiny", 10), ("small", 28), ("medium", 70)]
)
def test_each_size_has_the_parameters_it_promises(gpt, monkeypatch, size, millions):
    monkeypatch.setattr(gpt, "SIZE", size)
    config = gpt.check_constants(vocab_size=8192)
    parts = gpt.count_parameters(config)
    assert sum(parts.values()) == pytest.approx(millions * 1e6, rel=0.07)
    assert config["n_embd"] // config["n_head"] in (32, 64)  # what fast kernels take
    with torch.device("meta"):  # shapes without memory
        model = gpt.GPT(config)
    assert sum(w.numel() for w in model.parameters()) == sum(parts.values())


def test_the_operations_add_up_to_what_torch_counts(gpt, model, monkeypatch):
    # torch's counter does not see inside the CPU's fused attention: by hand it does.
    def by_hand(q, k, v, dropout_p, is_causal):
        return gpt.attention_by_hand(q, k, v)[0]

    monkeypatch.setattr(F, "scaled_dot_product_attention", by_hand)
    with FlopCounterMode(display=False) as counter:
        model(random_ids(3, 16))
    assert counter.get_total_flops() == 3 * 16 * gpt.flops_per_token(SMALL)


def test_a_saved_model_holds_the_tied_weight_once_and_no_mask(gpt, model, tmp_path):
    import machine

    path = tmp_path / "model.pt"
    machine.save_checkpoint(path, {"config": SMALL, "weights": model.state_dict()})
    weights = torch.load(path, weights_only=True)["weights"]
    total = sum(weight.numel() for weight in model.parameters())
    assert sum(weight.numel() for weight in weights.values()) == total
    again, _ = gpt.GPT.load(path, "03_model.py")
    ids = random_ids(1, 16)
    assert torch.equal(again.eval()(ids), model(ids))


# ------------------------------------------------------------------------- bad inputs


@pytest.fixture
def with_tokenizer(workshop, small_tokenizer):
    return small_tokenizer(workshop)


@pytest.mark.parametrize(
    "size, words",
    [
        ("huge", "'nano', 'tiny', 'small', 'medium'"),
        (7, "SIZE = 7"),
        ((4, 3, 64, 128), "64 cannot be shared by 3 heads"),
        ((0, 2, 64, 128), "SIZE[0] (blocks) = 0"),
        ((2, 2, 64.5, 128), "SIZE[2] (width) = 64.5"),
    ],
)
def test_a_size_that_cannot_be_is_refused(with_tokenizer, size, words):
    with_tokenizer.edit("03_model.py", SIZE=size)
    with_tokenizer.refuses("03_model.py", words, "Edit SIZE")
    assert not (with_tokenizer.folder / "artifacts/03_model/model.pt").exists()


def test_without_a_tokenizer_stage_3_names_stage_1(workshop):
    workshop.refuses("03_model.py", "tokenizer.json is missing", "python 01_bpe.py")


def test_without_a_mask_stage_3_stops_and_writes_nothing(with_tokenizer):
    script = with_tokenizer.folder / "03_model.py"
    text = script.read_text("utf-8")
    assert text.count("is_causal=True)") == 1
    script.write_text(text.replace("is_causal=True)", "is_causal=False)"), "utf-8")
    with_tokenizer.refuses("03_model.py", "The causal mask is broken", "Mend Attention")
    assert not (with_tokenizer.folder / "artifacts/03_model/model.pt").exists()


def test_a_table_that_forgets_a_weight_is_refused(gpt, model):
    model.h[0].mlp.c_fc.bias = torch.nn.Parameter(torch.zeros(128))  # nobody counts it
    with pytest.raises(SystemExit) as stopped:
        gpt.table(model)
    what, why, command = str(stopped.value).split("\n")
    assert "The table counts" in what and "count_parameters()" in why
    assert command.endswith("python 03_model.py")


def test_own_numbers_make_a_model(with_tokenizer, gpt):
    with_tokenizer.edit("03_model.py", SIZE=(1, 2, 32, 64))
    done = with_tokenizer.run("03_model.py")
    assert done.returncode == 0, done.stderr
    model, _ = gpt.GPT.load(
        with_tokenizer.folder / "artifacts/03_model/model.pt", "03_model.py"
    )
    assert model.config["context"] == 64 and len(model.h) == 1
    assert done.stdout.rstrip().endswith("Next: python 04_train.py")
