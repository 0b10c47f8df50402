"""The quest that takes the model home: 8 bits are enough, and other programs agree."""
import contextlib
import dataclasses
import doctest
import errno
import functools
import importlib
import json
import random
import struct
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT

ME = "lessons/quests/take_home.py"
SIZES = {"block_size": 64, "n_layer": 2, "n_head": 2, "n_embd": 64}
PIECES = [  # what tokenizers have been seen to disagree about
    " ", "  ", "\n", "\n\n", "\t", "\r\n", "\x0b", "\x1c", "\x85", "\xa0", "\u2028",
    "\u3000", "\ufeff", "\u200d", "\x00", "\x7f", "'s", "'ll", "'VE", "don't", "12345",
    "½", "²", "Ⅷ", "é", "e\u0301", "naïve", "ß", "ſ", "İ", "日本語", "한국어", "עברית",
    "عربى", "हिन्दी", "😀", "👩‍👩‍👧", "...", "!?", '"Hi," she said', "_", "§", "€",
    "<PAD>", "<UNK>", "<BOS>", "<EOS>", "<|endoftext|>", "Once upon a time", " there",
]  # fmt: skip


# What rounding may change; a weight in the wrong place changes logits by tenths.
alike = functools.partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def quest():
    """The quest as a module."""
    sys.path.append(str(ROOT / "lessons" / "quests"))
    return importlib.import_module("take_home")


@pytest.fixture(scope="module")
def containers(quest):
    """lessons/quests/containers.py as a module."""
    return quest.containers


def lively(gpt, seed=1, **sizes):
    """A random model with weights so large that its tokens differ in probability."""
    torch.manual_seed(seed)
    model = gpt.GPT(gpt.GPTConfig(**sizes)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(3)
            else:
                weight.normal_(1, 0.1)  # norms that are all 1 would hide a swap
    return model


def write_best(path, gpt, bpe, tokenizer, model):
    """best.pt as stage 4 writes it."""
    content = {"format": "04_train/3", "config": dataclasses.asdict(model.config)}
    content |= {"weights": model.state_dict(), "tokenizer": bpe.sha256_of(tokenizer)}
    gpt.save_checkpoint(path, content | {"step": 1, "loss": 1.0})


@pytest.fixture(scope="module")
def tokenizer(prepared, bpe):
    """The tokenizer of the small text, 400 tokens."""
    return bpe.Tokenizer.load(prepared / "artifacts/01_bpe/tokenizer.json")


@pytest.fixture(scope="module")
def model(gpt, tokenizer):
    """A small model for it."""
    return lively(gpt, vocab_size=len(tokenizer), **SIZES)


@pytest.fixture(scope="module")
def small(quest, model):
    """The same in int8."""
    return quest.to_int8(model)


@pytest.fixture(scope="module")
def ids(prepared):
    """16 rows of 64 validation tokens: 1,024 positions."""
    valid = np.fromfile(prepared / "artifacts/02_prepare/valid.bin", dtype="<u2")
    return torch.from_numpy(valid[:1024].astype(np.int64)).view(16, 64)


@pytest.fixture(scope="module")
def home(tmp_path_factory, bpe, quest, model, small, tokenizer):
    """A folder with all that the quest writes."""
    folder = tmp_path_factory.mktemp("home")
    files = quest.hugging_face(model, tokenizer)
    files = {folder / "hugging-face" / name: data for name, data in files.items()}
    files[folder / "f32.gguf"] = quest.gguf(model, tokenizer)
    files[folder / "q8.gguf"] = quest.gguf(small, tokenizer)
    bpe.write_all(files)
    return folder


@pytest.fixture(scope="module")
def texts(prepared, tokenizer):
    """1,000 texts: stories cut anywhere, random Unicode, and known trouble."""
    rng = random.Random(5)
    valid = np.fromfile(prepared / "artifacts/02_prepare/valid.bin", dtype="<u2")
    found = ["", *PIECES]
    while len(found) < 1000:
        kind = len(found) % 3
        if kind == 0:
            begin = rng.randrange(len(valid) - 40)
            found.append(tokenizer.decode(valid[begin : begin + 40].tolist()))
        elif kind == 1:
            found.append("".join(rng.choices(PIECES, k=rng.randrange(2, 12))))
        else:
            ranges = [(1, 0x80), (1, 0x3000), (0xE000, 0x11000), (0x10000, 0x1FFFF)]
            places = [rng.randrange(*rng.choice(ranges)) for _ in range(12)]
            found.append("".join(map(chr, places)))
    return found


def test_the_examples_in_the_docstrings_are_true(quest, containers):
    for module in (quest, containers):
        failed, tried = doctest.testmod(module)
        assert tried > 0 and failed == 0, module.__name__


# -------------------------------------------------------------------------- int8


def test_a_weight_moves_by_half_a_step_at_most(quest):
    torch.manual_seed(2)
    weight = torch.randn(50, 96) * torch.logspace(-2, 3, 50)[:, None]
    packed = quest.Int8.of(weight)
    assert packed.numbers.dtype == torch.int8 and packed.shape == weight.shape
    assert packed.numbers.abs().max() == 127
    step = packed.scales.expand(50, 3, 32).flatten(1)
    # A little over a half: the scale itself is rounded, to 11 bits.
    assert ((packed.float() - weight).abs() <= 0.57 * step).all()
    assert (packed.scales == packed.scales.half().float()).all()  # two bytes do say it


def test_each_group_is_what_the_rule_in_plain_python_says(quest):
    torch.manual_seed(3)
    weight = torch.randn(4, 64)
    packed = quest.Int8.of(weight)
    different = 0
    for row in range(4):
        for group in range(2):
            part = weight[row, 32 * group : 32 * group + 32].tolist()
            numbers, scale = quest.quantize_by_hand(part)
            assert packed.scales[row, group].item() == pytest.approx(scale, rel=1e-3)
            pairs = zip(packed.numbers[row, group].tolist(), numbers)
            gaps = [abs(a - b) for a, b in pairs]
            assert max(gaps) <= 1  # the scale of two bytes can tip one over
            different += sum(gaps)
    assert different <= 10


def test_zeros_and_a_lonely_giant_survive(quest):
    weight = torch.zeros(2, 64)
    weight[1, 40] = 1000.0
    packed = quest.Int8.of(weight)
    assert (packed.float()[0] == 0).all()
    assert packed.float()[1, 40] == pytest.approx(1000, rel=1e-3)
    tiny = quest.Int8.of(torch.full((1, 32), 1e-12))  # too small for a scale
    assert (tiny.float() == 0).all()


def test_a_model_in_int8_is_the_float_model_of_its_rounded_weights(
    quest, gpt, model, small, ids
):
    plain = gpt.GPT(model.config).eval()
    rounded = {
        name: weight.float()
        for name, weight in quest.tensors(small).items()
        if name.endswith("weight")
    }
    plain.load_state_dict(rounded)
    with torch.no_grad():
        # Many rows: torch does it, with the same numbers at other places in memory.
        alike(small(ids)[0], plain(ids)[0])
        row, cache, twin = ids[:1], plain.new_cache(), small.new_cache()
        for t in range(8):  # one row: C does it, if there is a compiler
            here, _ = plain(row[:, t : t + 1], cache=cache)
            there, _ = small(row[:, t : t + 1], cache=twin)
            alike(there, here)
        x, y = ids[:2, :-1], ids[:2, 1:]
        alike(small(x, y)[1], plain(x, y)[1])


def test_the_original_stays_float_and_the_tie_stays_tied(quest, model, small):
    assert not any(isinstance(w, quest.Int8) for w in quest.tensors(model).values())
    matrices = [n for n, w in quest.tensors(small).items() if isinstance(w, quest.Int8)]
    assert len(matrices) == 2 + 4 * SIZES["n_layer"]
    assert "lm_head.weight" not in quest.tensors(small)
    # What is left are the norms.
    assert all(weight.dim() == 1 for weight in small.parameters())


def test_int8_takes_less_than_three_tenths(quest, model, small):
    before = sum(len(quest.packed(w)[2]) for w in quest.tensors(model).values())
    after = sum(len(quest.packed(w)[2]) for w in quest.tensors(small).values())
    assert after / before < 0.3
    assert len(quest.packed(small.wte.weight)[2]) == small.wte.weight.shape[0] * 2 * 34


@pytest.mark.parametrize("rows", [1, 3, 4, 6, 33])
@pytest.mark.parametrize("shape", [(1, 32), (7, 64), (33, 320)])
def test_c_and_torch_multiply_alike(quest, rows, shape):
    if quest.kernel() is None:
        pytest.skip("there is no C compiler")
    torch.manual_seed(4)
    packed = quest.Int8.of(torch.randn(shape))
    x = torch.randn(3, rows, shape[1])[1]  # not at the beginning of its memory
    for some in (x, torch.randn(shape[1], rows).T):  # the second not in one piece
        expected = some.double() @ packed.float().double().T
        found = packed.linear(some).double()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert packed.linear(x[None]).shape == (1, rows, shape[0])


def test_the_compiled_function_leaves_the_arithmetic_of_the_process_alone(quest):
    if quest.kernel() is None:
        pytest.skip("there is no C compiler")
    # gcc's -ffast-math would have turned the smallest numbers into zeros, everywhere.
    assert np.float32(1e-40) * np.float32(0.5) > 0


def test_without_a_compiler_the_numbers_are_the_same(quest, monkeypatch, small, ids):
    with torch.no_grad():
        before, _ = small(ids[:1, :1])
        monkeypatch.setattr(quest, "C_COMPILER", "no-such-compiler")
        quest.kernel.cache_clear()
        try:
            assert quest.kernel() is None
            after, _ = small(ids[:1, :1])
        finally:
            quest.kernel.cache_clear()
    alike(before, after)


def test_rows_that_are_no_whole_groups_stay_float(quest, gpt, tokenizer, tmp_path):
    # 40 is no multiple of 32, 160 is.
    sizes = {"block_size": 32, "n_layer": 1, "n_head": 2, "n_embd": 40}
    small = quest.to_int8(lively(gpt, vocab_size=len(tokenizer), **sizes))
    kinds = {n: type(w).__name__ for n, w in quest.tensors(small).items()}
    assert [n for n in kinds if kinds[n] == "Int8"] == ["h.0.mlp.c_proj.weight"]
    path = tmp_path / "odd.gguf"
    path.write_bytes(quest.gguf(small, tokenizer))
    ids = torch.arange(4, 36).repeat(2, 1)
    quest.read_back(path, small, tokenizer, ids)  # or SystemExit


def test_a_model_with_biases_keeps_them(quest, gpt, tokenizer, tmp_path, ids):
    model = lively(gpt, vocab_size=len(tokenizer), **SIZES, bias=True)
    small = quest.to_int8(model)
    path = tmp_path / "bias.gguf"
    for its_model in (model, small):
        path.write_bytes(quest.gguf(its_model, tokenizer))
        quest.read_back(path, its_model, tokenizer, ids[:1])  # or SystemExit
    assert (quest.tensors(small)["h.0.attn.c_attn.bias"] != 0).all()


def test_an_int8_model_generates(small):
    idx = small.generate(torch.tensor([[2, 10, 11]]), 80, temperature=0)  # past T, too
    assert idx.shape == (1, 83)


def test_bits_per_byte_are_those_of_plain_arithmetic(quest, model, tokenizer):
    lengths = torch.tensor([0] * 4 + [len(t) for t in tokenizer.token_bytes[4:]])
    story = torch.tensor([2, *tokenizer.encode("Tom saw a dog."), 3])
    with torch.no_grad():
        probs = model(story[None])[0][0].softmax(dim=-1)
    bits = sum(-probs[t, story[t + 1]].log2().item() for t in range(len(story) - 1))
    found = quest.bits_per_byte(model, [story], lengths)
    assert found == pytest.approx(bits / len("Tom saw a dog."), rel=1e-4)


def test_stories_come_from_all_over_the_file_and_long_documents_are_cut(quest):
    # Four stories; the second has 70,000 tokens, more than any buffer of 2 ** 16.
    parts = [[2, 5, 3], [2, *[6] * 70_000, 3], [2, 7, 3], [2, 8, 9, 3]]
    valid = np.concatenate([np.array(part, dtype="<u2") for part in parts])
    found = quest.some_stories(valid, 200, 65)
    assert [len(story) for story in found] == [3, 65, 3, 4]
    assert [story[1].item() for story in quest.some_stories(valid, 2, 65)] == [5, 7]


# ------------------------------------------------------------------------- files


def test_a_container_gives_back_what_was_put_in(containers):
    tensors = {
        "a.weight": ([2, 3], containers.FLOATS, bytes(range(24))),
        "b": ([1, 32], containers.Q8_0, bytes(range(34))),
        "naïve": ([1], containers.FLOATS, b"abcd"),
    }
    facts = {"x": 7, "y": 0.5, "t": True, "s": "é", "l": [-1, 2], "w": ["a b", ""]}
    data = containers.write_gguf(facts, tensors)
    assert containers.read_gguf(data) == ({"general.alignment": 32} | facts, tensors)
    assert data[:8] == b"GGUF\x03\x00\x00\x00"
    tensors = {name: (shape, "F32", data) for name, (shape, _, data) in tensors.items()}
    data = containers.write_safetensors(tensors)
    assert containers.read_safetensors(data) == tensors
    (length,) = struct.unpack_from("<Q", data)
    assert length % 8 == 0 and json.loads(data[8 : 8 + length])
    with pytest.raises(ValueError, match="not a GGUF"):
        containers.read_gguf(b"PK\x03\x04" + bytes(40))


def test_every_file_read_back_is_the_model(quest, home, model, small, tokenizer, ids):
    for name in ("hugging-face", "f32.gguf"):
        quest.read_back(home / name, model, tokenizer, ids)  # or SystemExit
    quest.read_back(home / "q8.gguf", small, tokenizer, ids)  # or SystemExit


def test_a_file_that_says_something_else_is_found_out(
    quest, containers, home, model, tokenizer, ids, tmp_path
):
    facts, tensors = containers.read_gguf((home / "f32.gguf").read_bytes())
    swapped = dict(tensors)
    pair = "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"
    swapped[pair[0]], swapped[pair[1]] = tensors[pair[1]], tensors[pair[0]]
    biased = dict(tensors)
    shape, kind, data = tensors["output_norm.bias"]
    biased["output_norm.bias"] = shape, kind, b"\x00\x00\x80\x3f" + data[4:]  # 1.0
    nan = dict(tensors)
    shape, kind, data = tensors["output_norm.weight"]
    nan["output_norm.weight"] = shape, kind, b"\x00\x00\xc0\x7f" + data[4:]
    merges = facts["tokenizer.ggml.merges"]
    other = facts | {"tokenizer.ggml.merges": [*merges[1:], merges[0]]}
    for its_facts, its_tensors in [
        (facts, swapped), (facts, biased), (facts, nan), (other, tensors),
    ]:  # fmt: skip
        path = tmp_path / "wrong.gguf"
        path.write_bytes(containers.write_gguf(its_facts, its_tensors))
        with pytest.raises(SystemExit, match="is not the model") as stopped:
            quest.read_back(path, model, tokenizer, ids)
        assert len(str(stopped.value).split("\n")) == 3


def test_no_file_holds_a_separate_last_layer(containers, home):
    _, tensors = containers.read_gguf((home / "q8.gguf").read_bytes())
    assert "output.weight" not in tensors
    data = (home / "hugging-face/model.safetensors").read_bytes()
    names = containers.read_safetensors(data)
    assert "lm_head.weight" not in names
    config = json.loads((home / "hugging-face/config.json").read_text())
    assert config["tie_word_embeddings"] is True
    # mlx-lm reads names without this prefix only.
    assert not any(name.startswith("transformer.") for name in names)


# --------------------------------------------------------------- the whole script


@pytest.fixture(scope="module")
def best(tmp_path_factory, gpt, bpe, prepared, model):
    """best.pt of the small model."""
    path = tmp_path_factory.mktemp("04_train") / "best.pt"
    write_best(path, gpt, bpe, prepared / "artifacts/01_bpe/tokenizer.json", model)
    return path


@pytest.fixture
def world(quest, bpe, prepared, best, tmp_path, monkeypatch):
    """The quest pointed at small artifacts; -> the folder it writes."""
    monkeypatch.setattr(bpe, "OUT", prepared / "artifacts/01_bpe")
    monkeypatch.setattr(quest, "DATA", prepared / "artifacts/02_prepare")
    monkeypatch.setattr(quest, "MODEL", best)
    monkeypatch.setattr(quest, "OUT", tmp_path / "take_home")
    monkeypatch.setattr(quest, "STORIES", 5)
    monkeypatch.setattr(quest, "TOKENS", 5)
    return tmp_path / "take_home"


def test_a_run_writes_all_files_and_says_how_to_use_them(
    workshop, small_tokenizer, best
):
    shop = small_tokenizer(workshop)  # as learners run it
    (shop.folder / "artifacts/04_train").mkdir()
    (shop.folder / "artifacts/04_train/best.pt").write_bytes(best.read_bytes())
    shop.edit(ME, STORIES=5, TOKENS=5)
    done = shop.run(ME)
    assert done.returncode == 0, done.stderr
    out = shop.folder / "artifacts/take_home"
    files = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    folder = ["config.json", "generation_config.json", "model.safetensors",
              "tokenizer.json", "tokenizer_config.json"]  # fmt: skip
    single = ["Modelfile", "story-f32.gguf", "story-q8.gguf"]
    assert files == sorted([f"hugging-face/{name}" for name in folder] + single)
    assert done.stdout.count("logits differ by ") == 3
    assert done.stdout.count(", the tokenizer is the same") == 3
    assert "bits per byte" in done.stdout and "tokens per second" in done.stdout
    for tool in ("transformers", "mlx_lm", "llama-completion", "ollama", "lms import"):
        assert tool in done.stdout, tool
    assert "cd artifacts/take_home\n" in done.stdout
    assert "FROM ./story-q8.gguf\n" in (out / "Modelfile").read_text()


def test_documents_longer_than_65536_tokens_are_no_trouble(
    quest, world, prepared, tmp_path, monkeypatch, capsys
):
    valid = np.fromfile(prepared / "artifacts/02_prepare/valid.bin", dtype="<u2")
    words = np.resize(valid[valid > 3], 70_000)
    np.array([2, *words, 3], dtype="<u2").tofile(tmp_path / "valid.bin")
    meta = (prepared / "artifacts/02_prepare/meta.json").read_text()
    (tmp_path / "meta.json").write_text(meta)
    monkeypatch.setattr(quest, "DATA", tmp_path)
    quest.main()
    assert "loss on 1 held-out stories" in capsys.readouterr().out


def test_a_path_with_spaces_is_quoted_in_the_commands(
    quest, world, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(quest, "OUT", tmp_path / "my models")
    quest.main()
    assert f"cd '{tmp_path}/my models'\n" in capsys.readouterr().out


def test_a_full_disk_leaves_the_files_of_the_run_before(
    quest, bpe, world, monkeypatch, capsys
):
    bpe.run_stage(quest.main, ME, lock=False)
    before = {p: p.read_bytes() for p in world.rglob("*") if p.is_file()}
    assert len(before) == 8
    monkeypatch.setattr(quest, "TEMPERATURE", 0.5)  # would change two of the files
    sync, calls = bpe.os.fsync, []

    def full(file):
        calls.append(file)
        if len(calls) == 8:  # the last of them does not fit
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    monkeypatch.setattr(bpe.os, "fsync", full)
    with pytest.raises(SystemExit, match="The disk is full"):
        bpe.run_stage(quest.main, ME, lock=False)
    assert {p: p.read_bytes() for p in world.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    "constants, words",
    [
        ({"STORIES": 0}, "STORIES = 0"), ({"TOKENS": 1.5}, "TOKENS = 1.5"),
        ({"TOP_P": 0.0}, "TOP_P = 0.0"), ({"TEMPERATURE": -1}, "TEMPERATURE = -1"),
        ({"NAME": "my/model"}, "NAME = 'my/model'"), ({"NAME": ""}, "NAME = ''"),
    ],
)  # fmt: skip
def test_a_constant_that_cannot_be_used_is_named(quest, monkeypatch, constants, words):
    for name, value in constants.items():
        monkeypatch.setattr(quest, name, value)
    with pytest.raises(SystemExit, match=words) as stopped:
        quest.check_inputs()
    assert len(str(stopped.value).split("\n")) == 3


def test_what_is_missing_or_does_not_fit_stops_it_in_three_lines(
    quest, world, best, prepared, tmp_path, monkeypatch
):
    data = prepared / "artifacts/02_prepare"
    meta = json.loads((data / "meta.json").read_text())
    monkeypatch.setattr(quest, "DATA", tmp_path)
    monkeypatch.setattr(quest, "MODEL", tmp_path / "best.pt")

    def refused(*words):
        with pytest.raises(SystemExit) as stopped:
            quest.main()
        lines = str(stopped.value).split("\n")
        assert len(lines) == 3 and all(word in str(stopped.value) for word in words)

    refused("best.pt is missing", "python 04_train.py")
    (tmp_path / "best.pt").write_bytes(b"PK")
    refused("best.pt cannot be read", "python 04_train.py")
    (tmp_path / "best.pt").write_bytes(best.read_bytes())
    other = json.dumps(meta | {"tokenizer": "another"})
    (tmp_path / "meta.json").write_text(other)
    refused("valid.bin was made with another tokenizer", "python 02_prepare.py")
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    refused("valid.bin is missing", "python 02_prepare.py")
    for damaged in (b"", b"\x07", np.array([2, 5000, 3], dtype="<u2").tobytes()):
        (tmp_path / "valid.bin").write_bytes(damaged)
        refused("valid.bin is damaged", "python 02_prepare.py")
    assert not world.exists()


# ------------------------------------------------- other programs, where installed


def test_safetensors_reads_our_file(containers, home):
    library = pytest.importorskip("safetensors.torch")
    path = home / "hugging-face/model.safetensors"
    theirs = library.load_file(path)
    ours = containers.read_safetensors(path.read_bytes())
    assert theirs.keys() == ours.keys()
    for name, tensor in theirs.items():
        assert tensor.numpy().tobytes() == ours[name][2], name


def test_transformers_gives_the_same_logits(home, model, ids):
    transformers = pytest.importorskip("transformers")
    folder = str(home / "hugging-face")
    peer = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    assert type(peer).__name__ == "GPT2LMHeadModel" and peer.dtype == torch.float32
    with torch.no_grad():
        theirs, ours = peer(ids).logits, model(ids)[0]
    alike(theirs, ours)  # at 1,024 positions


def test_transformers_cuts_a_thousand_texts_as_we_do(home, tokenizer, texts):
    transformers = pytest.importorskip("transformers")
    peer = transformers.AutoTokenizer.from_pretrained(str(home / "hugging-face"))
    for text in texts:
        ids = tokenizer.encode(text)
        assert peer.encode(text, add_special_tokens=False) == ids, repr(text)
        assert peer(text)["input_ids"] == [2, *ids], repr(text)
        assert peer.decode(ids) == tokenizer.decode(ids), repr(text)
    assert (peer.bos_token_id, peer.eos_token_id, peer.pad_token_id) == (2, 3, 0)


def test_the_gguf_library_reads_our_files(quest, home, model, small):
    gguf = pytest.importorskip("gguf")
    for name, its_model in [("f32.gguf", model), ("q8.gguf", small)]:
        reader = gguf.GGUFReader(home / name)
        assert reader.get_field("general.architecture").contents() == "gpt2"
        assert reader.get_field("gpt2.context_length").contents() == 64
        theirs = {tensor.name: tensor for tensor in reader.tensors}
        for ours, weight in quest.tensors(its_model).items():
            tensor = theirs.pop(quest.gguf_name(ours))
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            expected = weight.float().detach().numpy()
            assert np.array_equal(values.reshape(expected.shape), expected), ours
        assert not theirs
    # Their own rounding to Q8_0 is ours, but for weights in the middle of two steps.
    weight = model.wte.weight.detach().numpy()
    rounded = gguf.quants.quantize(weight, gguf.GGMLQuantizationType.Q8_0)
    rounded = gguf.quants.dequantize(rounded, gguf.GGMLQuantizationType.Q8_0)
    gaps = np.abs(rounded - small.wte.weight.float().numpy())
    assert (gaps > 1e-6).mean() < 0.03 and gaps.max() < np.abs(weight).max() / 60


@contextlib.contextmanager
def in_llama(path, context):
    """llama.cpp with this file, giving the logits at all positions."""
    llama_cpp = pytest.importorskip("llama_cpp")
    peer = llama_cpp.Llama(
        str(path), n_ctx=context, n_batch=context, logits_all=True, verbose=False,
        n_threads=1,
    )  # fmt: skip
    yield peer
    peer.close()


def test_llama_cpp_chooses_the_same_tokens(home, model, ids):
    with in_llama(home / "f32.gguf", SIZES["block_size"]) as peer, torch.no_grad():
        agree = 0
        for row in ids:
            peer.reset()
            peer.eval(row.tolist())
            best = np.array(peer.scores[: len(row)]).argmax(axis=-1)
            agree += (best == model(row[None])[0][0].argmax(dim=-1).numpy()).sum()
    assert agree >= 0.995 * ids.numel()  # its tables for GELU have 16 bits


def test_llama_cpp_reads_the_8_bits_as_we_do(home, small, ids):
    # It rounds what flows through the model to 8 bits, too: not the same logits, then,
    # but their errors must be small beside what the logits say.
    with in_llama(home / "q8.gguf", SIZES["block_size"]) as peer, torch.no_grad():
        for row in ids[:4]:
            peer.reset()
            peer.eval(row.tolist())
            theirs = torch.tensor(np.array(peer.scores[: len(row)]))
            ours = small(row[None])[0][0]
            cosine = F.cosine_similarity(theirs, ours)
            assert cosine.mean() > 0.999 and cosine.min() > 0.99


def test_llama_cpp_cuts_a_thousand_texts_as_we_do(home, tokenizer, texts):
    with in_llama(home / "q8.gguf", SIZES["block_size"]) as peer:
        for text in texts:
            theirs = peer.tokenize(text.encode(), add_bos=False, special=False)
            assert theirs == tokenizer.encode(text), repr(text)
        assert peer.tokenize(b"Once", special=False) == [2, *tokenizer.encode("Once")]
