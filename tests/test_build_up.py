"""The seven models of lessons/build_up.py: each adds one thing. The page shows all."""
import html
import importlib
import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import build_up

stage4 = importlib.import_module("04_train")
KINDS = [step[0] for step in build_up.STEPS]
FROM_ONE_TOKEN = {build_up.Bigram, build_up.Positions}
V, T, L, H, C = 11, 8, 2, 2, 16
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
NASTY = "</script><script>document.title = 'broken'</script><b>Ow</b>"


def build(gpt, kind, **sizes):
    """One of the seven, tiny, always with the same weights."""
    sizes = dict(vocab_size=V, block_size=T, n_layer=L, n_head=H, n_embd=C) | sizes
    torch.manual_seed(3)
    return kind(gpt.GPTConfig(**sizes)).init_weights()


def random_ids(*shape):
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(5))


each = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


# ------------------------------------------------------------------------- the models


@each
def test_each_turns_ids_into_logits_and_a_loss_near_the_uniform_baseline(gpt, kind):
    model, idx = build(gpt, kind), random_ids(3, T)
    logits, loss = model(idx, random_ids(3, T))
    assert logits.shape == (3, T, V) and loss.shape == ()
    assert abs(loss.item() - math.log(V)) < 1
    assert model(idx)[1] is None
    assert model(idx[:, :2])[0].shape == (3, 2, V), "shorter than block_size will do"


@each
def test_no_model_sees_the_future_and_only_two_do_not_see_the_past(gpt, kind):
    model, idx = build(gpt, kind), random_ids(1, T)
    other = idx.clone()
    other[0, 4] = (idx[0, 4] + 1) % V
    moved = (model(idx)[0] - model(other)[0]).abs().amax(dim=(0, 2))  # (T,)
    assert (moved[:4] == 0).all() and moved[4] > 0
    # A bigram knows one token, and a position is no other token.
    assert bool((moved[5:] > 0).all()) == (kind not in FROM_ONE_TOKEN)
    assert (moved[5:] > 0).any() == (kind not in FROM_ONE_TOKEN)


def test_each_adds_the_parameters_of_its_one_new_thing(gpt):
    sizes = [sum(p.numel() for p in build(gpt, kind).parameters()) for kind in KINDS]
    assert sizes[0] == 2 * V * C, "the embedding, and the output layer"
    assert sizes[1] - sizes[0] == T * C, "a vector per position"
    assert sizes[2] == sizes[1], "a mean has nothing to learn"
    assert sizes[3] - sizes[2] == 3 * C * C, "queries, keys, values"
    assert sizes[4] - sizes[3] == C * C, "c_proj; the heads themselves are free"
    assert sizes[5] - sizes[4] == 8 * C * C, "C to 4C and back"
    block = 4 * C * C + 8 * C * C
    norms = (2 * L + 1) * C
    assert sizes[6] - sizes[5] == (L - 1) * block + norms, "one more block, and norms"


@pytest.mark.parametrize("number", range(1, 6))
def test_each_keeps_every_layer_of_the_model_before_it(gpt, number):
    shapes = [{n: p.shape for n, p in build(gpt, KINDS[i]).named_parameters()}
              for i in (number - 1, number)]  # fmt: skip
    assert shapes[0].items() <= shapes[1].items()


def test_the_output_of_an_mlp_has_a_nonlinearity_in_it(gpt):
    model, x = build(gpt, build_up.WithMLP), torch.randn(1, 1, C)
    assert not torch.allclose(model.mlp(2 * x), 2 * model.mlp(x), atol=1e-4)


def test_averaging_takes_the_mean_of_all_vectors_so_far(gpt):
    x = torch.tensor([[[1.0], [2.0], [6.0]]])
    mixed = build(gpt, build_up.Averaging).mix(x)
    assert mixed.flatten().tolist() == pytest.approx([1.0, 1.5, 3.0])


def test_one_head_with_equal_scores_is_the_average_of_the_values(gpt):
    model, x = build(gpt, build_up.OneHead), torch.randn(1, T, C)
    with torch.no_grad():
        model.c_attn.weight[: 2 * C] = 0  # queries and keys: every score is 0
        model.c_attn.weight[2 * C :] = torch.eye(C)  # each value is the vector itself
    mean = build(gpt, build_up.Averaging).mix(x)
    assert torch.allclose(model.mix(x), mean, atol=1e-6)


def test_several_heads_of_which_there_is_one_are_one_head(gpt):
    one = build(gpt, build_up.OneHead, n_head=1)
    several = build(gpt, build_up.SeveralHeads, n_head=1)
    several.load_state_dict(one.state_dict() | {"c_proj.weight": torch.eye(C)})
    x = torch.randn(2, T, C)
    assert torch.allclose(several.mix(x), one.mix(x), atol=1e-6)


def test_several_heads_are_the_attention_of_stage_3(gpt):
    model = build(gpt, build_up.SeveralHeads)
    theirs = gpt.CausalSelfAttention(model.config)
    theirs.load_state_dict({"c_attn.weight": model.c_attn.weight,
                            "c_proj.weight": model.c_proj.weight})  # fmt: skip
    x = torch.randn(2, T, C)
    assert torch.allclose(model.mix(x), theirs(x), atol=1e-6)


def test_the_seventh_is_stage_3s_gpt_with_an_output_layer_of_its_own(gpt):
    ours = build(gpt, build_up.Residual)
    theirs = gpt.GPT(ours.config)
    ours.lm_head.weight = ours.wte.weight  # GPT-2 uses one matrix for both
    weights = {n: w for n, w in ours.state_dict().items() if n != "lm_head.weight"}
    theirs.load_state_dict(weights)  # strict: all names and shapes are the same
    idx = random_ids(2, T)
    assert torch.allclose(ours(idx)[0], theirs(idx)[0], atol=1e-5)


def test_generate_continues_the_prompt_past_the_context_until_eos_or_the_limit(
    gpt, bpe, monkeypatch
):
    model, idx = build(gpt, build_up.Residual), random_ids(1, 3)
    first, again = (model.generate(idx, torch.Generator().manual_seed(7))
                    for _ in range(2))  # fmt: skip
    assert torch.equal(first, again) and torch.equal(first[:, :3], idx)
    assert T < first.shape[1] < 3 + build_up.NEW_TOKENS and first[0, -1] == bpe.EOS
    monkeypatch.setattr(bpe, "EOS", V)  # no token has this id
    endless = model.generate(idx, torch.Generator().manual_seed(7))
    assert endless.shape[1] == 3 + build_up.NEW_TOKENS


# ------------------------------------------------------------------ what they can learn


def descend(model, idx, targets, steps=150, lr=0.1):
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps)
        optimizer.zero_grad()
        loss = model(idx, targets)[1]
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.fixture(scope="module")
def ring(tmp_path_factory, gpt):
    """A file of 2,000 ids, 2 to 7, each often followed by the next; 2 is <BOS>."""
    rng, ids = np.random.default_rng(1), [2]
    while len(ids) < 2000:
        step = rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1])
        ids.append(2 + (ids[-1] - 2 + int(step)) % 6)
    path = tmp_path_factory.mktemp("ring") / "ring.bin"
    np.array(ids, dtype="<u2").tofile(path)
    return np.array(ids), stage4.Tokens(path, T, seed=0)


def test_counting_pairs_finds_the_entropy_of_the_source(ring):
    ids, tokens = ring
    entropy = -sum(p * math.log(p) for p in (0.7, 0.2, 0.1))
    assert build_up.count_table_loss(ids, tokens, V) == pytest.approx(entropy, abs=0.1)


def test_a_pair_that_never_occurred_has_a_probability_above_zero(ring):
    loss = build_up.count_table_loss(np.array([2, 3, 2, 3]), ring[1], V)
    assert math.isfinite(loss) and loss > math.log(V), "worse than knowing nothing"


def test_the_best_loss_of_the_bigram_is_that_of_counted_pairs(gpt, ring):
    ids, tokens = ring
    x, y = stage4.get_batch(tokens, 0, min(64, tokens.count))
    # Counted on the very pairs that the bigram trains on; those of the whole file are
    # nearly as frequent.
    counts = torch.zeros(V, V).index_put((x, y), torch.ones(x.shape), accumulate=True)
    probs = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    best = -probs[x, y].log().mean().item()
    assert descend(build(gpt, build_up.Bigram), x, y) == pytest.approx(best, abs=0.01)
    assert best < build_up.count_table_loss(ids, tokens, V) < best + 0.05


def test_positions_learn_what_a_bigram_cannot(gpt):
    idx, targets = torch.zeros(1, 4, dtype=torch.long), torch.tensor([[1, 2, 3, 4]])
    assert descend(build(gpt, build_up.Bigram), idx, targets) == pytest.approx(
        math.log(4), abs=0.05
    )  # one token, four answers
    assert descend(build(gpt, build_up.Positions), idx, targets) < 0.1


def test_one_head_repeats_the_first_token_where_an_average_blurs_it(gpt):
    idx = random_ids(48, T)
    targets = idx[:, :1].expand(-1, T)  # what came first?
    losses = [descend(build(gpt, kind), idx, targets, steps=80, lr=0.05)
              for kind in (build_up.Positions, build_up.Averaging, build_up.OneHead)]
    assert losses[0] > losses[1] > losses[2] + 0.2


# ----------------------------------------------------------------- the script, the page


@pytest.fixture
def small(prepared, bpe, tmp_path, monkeypatch):
    """build_up at work in a small world: vocabulary 400, eight steps of a sequence."""
    shutil.copytree(prepared / "artifacts", tmp_path / "artifacts")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bpe, "OUT", tmp_path / "artifacts/01_bpe")
    monkeypatch.setattr(build_up, "DATA", tmp_path / "artifacts/02_prepare")
    monkeypatch.setattr(build_up, "OUT", tmp_path / "artifacts/build_up")
    monkeypatch.setattr(build_up, "TOKENS_EACH", 2_200)
    monkeypatch.setattr(build_up, "SEQUENCES", 1)
    monkeypatch.setattr(build_up, "NEW_TOKENS", 5)
    monkeypatch.setattr(stage4, "estimate_loss", loss_of_two_sequences)
    return tmp_path


@torch.no_grad()
def loss_of_two_sequences(model, tokens, device):
    return model(*stage4.get_batch(tokens, 0, 2))[1].item()


def data_of(page):
    return json.loads(re.search(r"^const DATA = (.*);$", page, re.MULTILINE)[1])


def test_the_run_prints_a_table_and_writes_seven_curves(small, capsys):
    build_up.main()
    printed = capsys.readouterr().out
    for _, added, _ in build_up.STEPS:
        assert added in printed
    page = (small / "artifacts/build_up/build_up.html").read_text("utf-8")
    data = data_of(page)
    assert [model["name"] for model in data["models"]] == [k.__name__ for k in KINDS]
    for model in data["models"]:
        tokens, seconds, losses = zip(*model["rows"])
        assert tokens[-1] == 8 * 256, "2,200 tokens are eight whole steps"
        assert sorted(seconds) == list(seconds) and seconds[0] > 0
        assert losses[-1] < losses[0], "eight steps are enough to learn something"
        assert f"{losses[-1]:.3f}" in printed and f"{model['parameters']:,}" in printed
        assert model["sample"].startswith(data["prompt"])
    assert data["uniform"] == pytest.approx(math.log(400))
    # To know how often each token follows each other one is better than nothing.
    assert 0 < data["counted"] < data["uniform"]


def test_missing_artifacts_name_the_script_to_run(small):
    (small / "artifacts/02_prepare/train.bin").unlink()
    with pytest.raises(SystemExit) as stopped:
        build_up.main()
    lines = str(stopped.value).splitlines()
    assert len(lines) == 3 and lines[2] == "python 02_prepare.py"
    (small / "artifacts/01_bpe/tokenizer.json").unlink()
    with pytest.raises(SystemExit) as stopped:
        build_up.main()
    assert str(stopped.value).splitlines()[2] == "python 01_bpe.py"


def test_another_vocabulary_is_refused(small, bpe):
    path = small / "artifacts/01_bpe/tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    merges, ids = content["model"]["merges"], content["model"]["vocab"]
    smaller = bpe.Tokenizer([(ids[a], ids[b]) for a, b in merges[:-1]])
    path.write_text(smaller.to_json(), "utf-8")
    with pytest.raises(SystemExit, match="another tokenizer") as stopped:
        build_up.main()
    assert len(str(stopped.value).splitlines()) == 3


def test_a_truncated_file_is_refused(small):
    path = small / "artifacts/02_prepare/valid.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(SystemExit, match="damaged or too short") as stopped:
        build_up.main()
    assert len(str(stopped.value).splitlines()) == 3


@pytest.mark.parametrize("name, value", [
    ("TOKENS_EACH", 999), ("TOKENS_EACH", 1e6), ("LEARNING_RATE", 0),
    ("LEARNING_RATE", math.nan), ("SEED", -1),
])  # fmt: skip
def test_a_constant_out_of_range_is_refused_by_name(small, monkeypatch, name, value):
    monkeypatch.setattr(build_up, name, value)
    with pytest.raises(SystemExit, match=name) as stopped:
        build_up.main()
    lines = str(stopped.value).splitlines()
    assert len(lines) == 3 and lines[2].endswith("python lessons/build_up.py")


def test_a_model_that_sees_the_future_is_not_trained(small, monkeypatch):
    class Broken(build_up.Averaging):
        def mix(self, x):
            return x.mean(dim=1, keepdim=True) + x

    monkeypatch.setattr(build_up, "STEPS", [(Broken, "", "")])
    with pytest.raises(SystemExit, match="Broken sees the future"):
        build_up.main()


def test_a_loss_that_is_no_number_ends_the_run(small, monkeypatch):
    monkeypatch.setattr(stage4, "estimate_loss", lambda *arguments: math.nan)
    with pytest.raises(SystemExit, match="Training diverged") as stopped:
        build_up.main()
    lines = str(stopped.value).splitlines()
    assert len(lines) == 3 and "Lower LEARNING_RATE" in lines[2]


def test_ctrl_c_gives_three_lines_and_leaves_the_page_of_before(
    small, bpe, monkeypatch
):
    old = small / "artifacts/build_up/build_up.html"
    old.parent.mkdir()
    old.write_text("old")

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(build_up, "train_one", interrupted)
    monkeypatch.setattr(bpe, "HERE", small)  # where the lock is taken
    with pytest.raises(SystemExit) as stopped:
        bpe.run_stage(build_up.main, build_up.SCRIPT)
    lines = str(stopped.value).strip().splitlines()
    assert len(lines) == 3 and lines[2] == "Run again: python lessons/build_up.py"
    assert old.read_text() == "old" and len(list(old.parent.iterdir())) == 1


def page_of(bpe):
    """The page with seven models whose texts try to end its script."""
    rows = [[1024, 0.5, 7.0], [2048, 1.0, 5.0], [4096, 2.0, 3.0]]
    models = [{"name": f"M{i}", "added": f"thing {i} {NASTY}", "why": NASTY,
               "parameters": 1000 + i, "sample": "Once" + NASTY,
               "rows": [[t, s, loss - 0.1 * i] for t, s, loss in rows]}
              for i in range(7)]  # fmt: skip
    data = {"models": models, "prompt": "Once", "uniform": 7.6, "counted": 2.7}
    return bpe.fill_page("build_up.html", data), data


def test_the_page_is_one_file_and_escapes_what_it_shows(bpe):
    page, data = page_of(bpe)
    assert page.count("</script>") == 1, "no text can end the script"
    assert data_of(page) == data
    assert not re.search(r"(?:src|href)=|https?://(?!www\.w3\.org)", page)


# Reads the page as a person would, and clicks.
READ = """
const all = (what) => [...document.querySelectorAll(what)];
const chart = () => [all("#chart polyline").length,
  all("#chart text").map((node) => node.textContent)];
const found = {title: document.title, bold: all("blockquote b, p b").length};
found.curves = chart();
found.samples = all("#models blockquote").map((node) => node.textContent);
found.numbers = all("#models .numbers").map((node) => node.textContent);
document.getElementById("by-seconds").click();
found.seconds = chart();
document.querySelector("#keys button").click();
found.hidden = chart();
const svg = document.querySelector("#chart svg"), box = svg.getBoundingClientRect();
svg.dispatchEvent(new PointerEvent("pointermove", {clientX: box.right, clientY: 0}));
found.readout = document.getElementById("readout").textContent;
const page = document.documentElement;
found.fits = page.scrollWidth <= page.clientWidth;
return found;
"""


def test_the_page_draws_seven_curves_over_tokens_or_seconds(bpe, tmp_path):
    if not CHROMIUM:
        pytest.skip("no Chromium to open the page with")
    more = ("<script>const answer = (() => {" + READ + "})();\n"
            "document.body.append(Object.assign(document.createElement('pre'), "
            "{id: 'answer', textContent: JSON.stringify(answer)}));</script>")
    head, tail = page_of(bpe)[0].rsplit("</body>", 1)
    file = tmp_path / "page.html"
    file.write_text(head + more + "</body>" + tail, "utf-8")
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --dump-dom".split()
    flags += ["--virtual-time-budget=60000", "--window-size=400,800"]
    flags += ["--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [CHROMIUM, *flags, file.as_uri()], capture_output=True, timeout=120
    )
    said = done.stderr.decode("utf-8", "replace")
    assert "CONSOLE" not in said, said
    answer = re.search(r'<pre id="answer">(.*?)</pre>', done.stdout.decode(), re.DOTALL)
    found = json.loads(html.unescape(answer[1]))
    assert found["title"] == "From a bigram to a GPT in seven models"
    assert found["bold"] == 0 and found["samples"] == ["Once" + NASTY] * 7
    assert found["curves"][0] == 7 and "4,096 tokens" in found["curves"][1]
    assert found["seconds"][0] == 7 and "2.0 s" in found["seconds"][1]
    assert found["hidden"][0] == 6, "the first is hidden"
    assert found["readout"] == (
        "After 2.0 s: 2 2.90, 3 2.80, 4 2.70, 5 2.60, 6 2.50, 7 2.40"
    )
    assert "loss 2.900 (−0.100), 1,001 parameters, 2.0 s" in found["numbers"][1]
    assert found["fits"], "no sideways scrolling on a phone"
