import functools
import json
import tempfile
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from sae_toolkit import BatchTopKSAE, TrainConfig, evaluate, train
from sae_toolkit.activations import ModelConfig, Text, TextConfig, TransformerSource, load_model
from sae_toolkit.activations.example_language import write_example_model, write_example_text

HOOK = "blocks.1.hook_resid_pre"
CONTEXT = 16


@functools.cache
def example_folder() -> Path:
    folder = Path(tempfile.mkdtemp())
    write_example_text(folder, n_documents=120)
    return write_example_model(folder / "model")


@functools.cache
def model():
    return load_model(ModelConfig(name=str(example_folder()), device="cpu"))


@functools.cache
def independent_model():
    return AutoModelForCausalLM.from_pretrained(example_folder()).eval()


def text(documents=None, tokenizer=None, **changes):
    config = TextConfig(context_length=changes.pop("context_length", CONTEXT), **changes)
    tokenizer = model().tokenizer if tokenizer is None else tokenizer
    if documents is None:
        return Text.read(tokenizer, replace(config, path=str(example_folder().parent / "text.jsonl")))
    return Text(documents, tokenizer, config)


def source(documents=None, tokenizer=None, text_changes=None, **changes):
    chosen = {"hooks": (HOOK,), "rows_per_forward": 4, "shuffle_buffer": "512 tokens"} | changes
    return TransformerSource(
        model(), text(documents, tokenizer, **(text_changes or {})), TransformerSource.Config(**chosen)
    )


def small_source(folder):
    """For the contract tests: a tiny GPT-2 reading generated sentences."""
    return source(text_changes={"eval_share": 0.3})


def sentences(n, words=40):
    return [" ".join(["The cat slept in the garden."] * (words // 6)) + f" {i}" for i in range(n)]


def whole_eval(src, batch_size=64):
    return list(src.stream(batch_size, seed=0, split="eval"))


# What the activations are


def test_every_sample_is_the_hidden_state_of_its_token():
    src = source()
    window = src.text.window("eval", 0)
    rows = window.rows(torch.arange(window.n_rows))
    with torch.no_grad():
        hidden = independent_model()(rows.tokens, output_hidden_states=True).hidden_states[1]
    known = {
        (tuple(tokens[: p + 1].tolist()), p): hidden[r, p]
        for r, tokens in enumerate(rows.tokens)
        for p in range(CONTEXT)
    }
    by_last = {}
    for (prefix, p), vector in known.items():
        by_last.setdefault((prefix[-1], p), []).append(vector)
    n = 0
    for batch in whole_eval(src):
        for x, token, position in zip(batch.activations, batch.token_ids, batch.positions, strict=True):
            candidates = torch.stack(by_last[int(token), int(position)])
            assert (candidates - x).abs().amax(1).min() < 1e-5
            n += 1
    assert n == window.n_rows * CONTEXT - sum(sum(b.excluded.values()) for b in whole_eval(src))


def test_several_hooks_stand_side_by_side_as_each_alone():
    hooks = ("blocks.0.hook_mlp_out", "blocks.1.mlp.hook_post", HOOK)
    together = next(source(hooks=hooks).stream(32, seed=3, split="eval")).activations
    assert list(source(hooks=hooks).sites) == list(hooks)
    for hook in hooks:
        alone = next(source(hooks=(hook,)).stream(32, seed=3, split="eval")).activations
        torch.testing.assert_close(together[:, source(hooks=hooks).columns(hook)], alone, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_bfloat16_and_float32_agree_in_explained_variance():
    low = load_model(ModelConfig(name=str(example_folder()), device="cpu", dtype="bfloat16"))
    config = TransformerSource.Config(hooks=(HOOK,), rows_per_forward=4, shuffle_buffer="2048 tokens")
    scores = []
    for each in (model(), low):
        src = TransformerSource(each, text(), config)
        sae = BatchTopKSAE(BatchTopKSAE.Config(d_in=src.d_in, d_sae=64, k=4))
        train(sae, src, TrainConfig(n_samples=10_000, batch_size=256, preparation_samples=1024))
        scores.append(evaluate(sae, src, n_samples=1000)["sae"]["explained_variance"].value)
    assert abs(scores[0] - scores[1]) < 0.005


# What is left out


def test_the_first_position_and_special_tokens_are_left_out_and_counted():
    src = source()
    window = src.text.window("eval", 0)
    tokens = window.rows(torch.arange(window.n_rows)).tokens
    end = model().tokenizer.eos_token_id
    batches = whole_eval(src)
    assert all((batch.token_ids != end).all() and (batch.positions > 0).all() for batch in batches)
    counts = {}
    for batch in batches:
        for reason, n in batch.excluded.items():
            counts[reason] = counts.get(reason, 0) + n
    special = int((tokens == end).sum())
    first = int((tokens[:, 0] != end).sum())
    assert {reason: n for reason, n in counts.items() if n} == {
        reason: n for reason, n in {"token_id": special, "position": first}.items() if n
    }
    assert sum(len(batch.activations) for batch in batches) == tokens.numel() - special - first


def test_exclusions_are_choices():
    src = source(exclude_positions=(), exclude_token_ids=())
    window = src.text.window("eval", 0)
    assert sum(len(batch.activations) for batch in whole_eval(src)) == window.n_rows * CONTEXT
    word = model().tokenizer(" cat", add_special_tokens=False)["input_ids"][0]
    kept = torch.cat([batch.token_ids for batch in whole_eval(source(exclude_token_ids=(word,)))])
    assert word not in kept.tolist()
    assert model().tokenizer.eos_token_id in kept.tolist()


def test_tokens_of_extreme_norm_can_be_left_out():
    everything = torch.cat([batch.activations for batch in whole_eval(source())]).norm(dim=1)
    batches = whole_eval(source(max_norm_ratio=1.05))
    kept = torch.cat([batch.activations for batch in batches]).norm(dim=1)
    dropped = sum(batch.excluded.get("norm", 0) for batch in batches)
    assert 0 < dropped == len(everything) - len(kept)
    torch.testing.assert_close(kept.sort().values, everything.sort().values[: len(kept)])


def word_tokenizer(*, bos, eos, pad=None):
    """Numbers as words; the special tokens get the ids they are given."""
    special = {name: token for name, token in {"bos": bos, "eos": eos, "pad": pad}.items() if token is not None}
    words = {f"w{i}": i for i in range(200) if i not in special.values()}
    vocabulary = words | {f"<{i}>": i for i in set(special.values())}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="w199"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, **{f"{name}_token": f"<{token}>" for name, token in special.items()}
    )


NUMBERS = [" ".join(f"w{(17 * i + j) % 150 + 10}" for j in range(30)) for i in range(60)]


def test_a_bos_of_id_0_is_a_special_token_like_any_other():
    src = source(NUMBERS, word_tokenizer(bos=0, eos=1), exclude_positions=())
    tokens = torch.cat([batch.token_ids for batch in whole_eval(src)])
    window = src.text.window("eval", 0)
    assert (window.rows(torch.arange(window.n_rows)).tokens[:, 0] == 0).all()
    assert not torch.isin(tokens, torch.tensor([0, 1])).any()


def test_without_bos_rows_begin_with_text_and_position_0_is_still_left_out():
    src = source(NUMBERS, word_tokenizer(bos=None, eos=1))
    window = src.text.window("eval", 0)
    assert (window.rows(torch.arange(window.n_rows)).tokens[:, 0] >= 10).any()
    batches = whole_eval(src)
    assert min(int(batch.positions.min()) for batch in batches) == 1


def test_a_pad_token_that_is_the_eos_changes_nothing_but_is_masked():
    plain = whole_eval(source(NUMBERS, word_tokenizer(bos=0, eos=1)))
    padded = whole_eval(source(NUMBERS, word_tokenizer(bos=0, eos=1, pad=1)))
    assert all(torch.equal(a.activations, b.activations) for a, b in zip(plain, padded, strict=True))


def test_a_special_token_in_the_middle_of_a_text_is_left_out_wherever_it_stands():
    documents = [document.replace(" w", " <0> w", 3) for document in NUMBERS]
    src = source(documents, word_tokenizer(bos=0, eos=1), exclude_positions=())
    window = src.text.window("eval", 0)
    assert (window.rows(torch.arange(window.n_rows)).tokens[:, 1:] == 0).any()
    assert not (torch.cat([batch.token_ids for batch in whole_eval(src)]) == 0).any()


# What cannot be


def test_a_corpus_of_three_words_says_that_it_is_too_small():
    with pytest.raises(ValueError, match="context_length"):
        source(["The cat slept"])


def test_a_corpus_that_ends_early_starts_over_in_training_and_ends_in_evaluation():
    src = source(sentences(30), text_changes={"eval_share": 0.4})
    n_train = sum(len(b.activations) for b in one_pass(src))
    stream = src.stream(50, seed=0, split="train")
    assert sum(len(next(stream).activations) for _ in range(3 * n_train // 50 + 1)) > 2 * n_train
    assert 0 < sum(len(batch.activations) for batch in whole_eval(src)) < n_train * 2


def one_pass(src):
    n_groups = src.extent("train", 0).n_groups
    return [src.read_group("train", 0, group) for group in range(n_groups)]


def test_an_unknown_hook_names_the_nearest():
    with pytest.raises(ValueError, match=r"blocks\.1\.hook_resid_pre"):
        source(hooks=("blocks.1.hook_residpre",))


def test_a_layer_out_of_range_says_how_many_there_are():
    with pytest.raises(ValueError, match="n_layers=2"):
        source(hooks=("blocks.7.hook_resid_pre",))


def test_rows_longer_than_the_model_reads_are_refused():
    with pytest.raises(ValueError, match="context_length <= 64"):
        source(text_changes={"context_length": 65})


def test_a_buffer_smaller_than_one_forward_pass_is_refused():
    with pytest.raises(ValueError, match="shuffle buffer of 10"):
        source(shuffle_buffer="10 tokens").stream(4, seed=0, split="train")


def test_a_tokenizer_of_another_model_is_refused():
    with pytest.raises(ValueError, match="Tokenizer and model do not match"):
        next(source([" ".join(["w5"] * 400)] * 40, big_tokenizer()).stream(4, seed=0, split="train"))


def big_tokenizer():
    inner = Tokenizer(models.WordLevel({f"w{i}": 100_000 + i for i in range(10)}, unk_token="w0"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner)


CHANGES = {
    "hooks": ("blocks.0.hook_mlp_out",),
    "rows_per_forward": 3,
    "shuffle_buffer": "256 tokens",
    "exclude_positions": (0, 1),  # position 0 alone is BOS here, left out by its id in any case
    "exclude_token_ids": (),
    "max_norm_ratio": 1.05,
}


def test_every_field_is_tried() -> None:
    assert set(CHANGES) == {field.name for field in fields(TransformerSource.Config)}


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_every_field_changes_what_is_given(name: str) -> None:
    streams = [source(**changes).stream(50, seed=0, split="train") for changes in ({}, {name: CHANGES[name]})]
    usual, changed = ([next(stream).activations for _ in range(20)] for stream in streams)
    assert not all(torch.equal(a, b) for a, b in zip(usual, changed, strict=True))


# Splicing


def losses(src, replacements, n_tokens=300):
    parts = list(src.losses_with(replacements, n_tokens=n_tokens))
    return {name: torch.cat([part[name].nll for part in parts]) for name in parts[0]}


def test_losses_are_those_of_the_model_on_the_tokens_that_count():
    src = source()
    found = losses(src, {"same": lambda x: x}, n_tokens=10**9)
    window = src.text.window("eval", 0)
    tokens = window.rows(torch.arange(window.n_rows)).tokens
    with torch.no_grad():
        logits = independent_model()(tokens).logits
    nll = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    counted = (tokens[:, :-1] != model().tokenizer.eos_token_id).clone()
    counted[:, 0] = False
    expected = nll.view(tokens.shape[0], -1)[counted]
    torch.testing.assert_close(found["clean"].sort().values, expected.sort().values, atol=1e-4, rtol=0)
    assert torch.equal(found["same"], found["clean"])


def test_a_replacement_sees_the_kept_tokens_and_changes_the_loss():
    seen = []

    def zero(x):
        seen.append(x)
        return torch.zeros_like(x)

    found = losses(source(), {"zero": zero})
    assert not torch.equal(found["zero"], found["clean"])
    assert all(x.ndim == 2 and x.shape[1] == 32 for x in seen)


def test_which_site_is_replaced_must_be_said_where_there_are_several():
    src = source(hooks=(HOOK, "blocks.0.hook_mlp_out"))
    with pytest.raises(ValueError, match="site"):
        next(src.losses_with({}, n_tokens=10))
    assert "clean" in next(src.losses_with({}, n_tokens=10, site=HOOK))


# Provenance


def test_the_description_tells_model_text_hooks_and_fingerprint():
    described = source().describe()
    assert json.loads(json.dumps(described)) == described
    assert described["fingerprints"][HOOK]["weights_sha256"] == described["model"]["weights_sha256"]
    assert described["hooks"] == {HOOK: 32}


def test_the_state_of_a_stream_on_another_text_is_refused():
    state = source().stream(4, seed=0, split="train").state_dict()
    with pytest.raises(ValueError, match="content_sha256"):
        source(sentences(100)).stream(4, seed=0, split="train").load_state_dict(state)


def test_what_is_read_before_the_mlp_may_take_the_place_of_what_it_writes():
    """Against a plain hook on the MLP; the order of the two places is checked."""
    middle, written = "blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out"
    src = source(hooks=(middle, written))
    kept = {}

    def read_twice(x):
        kept["read"] = x
        return 2 * x

    (chunk,) = src.losses_with(
        {"twice": read_twice, "silent": torch.zeros_like}, n_tokens=10, site=middle, target=written
    )
    (alone,) = src.losses_with({"silent": torch.zeros_like}, n_tokens=10, site=written)
    assert torch.equal(chunk["silent"].nll, alone["silent"].nll)

    hf, block = independent_model(), independent_model().transformer.h[1]
    window = src.text.window("eval", 0)
    n_rows = -(-len(kept["read"]) // (CONTEXT - 1))
    n_chunks = -(-window.n_rows // 64)
    tokens = window.rows(torch.arange(0, window.n_rows, n_chunks)).tokens
    assert len(tokens) >= n_rows
    seen = {}
    inside = (tokens != model().tokenizer.eos_token_id) & (torch.arange(CONTEXT) > 0)
    handles = [
        block.ln_2.register_forward_pre_hook(lambda _m, args: seen.update(middle=args[0])),
        block.mlp.register_forward_hook(lambda _m, _a, out: torch.where(inside[..., None], 2 * seen["middle"], out)),
    ]
    with torch.no_grad():
        logits = hf(tokens).logits
    for handle in handles:
        handle.remove()
    losses = -logits[:, :-1].log_softmax(-1).gather(2, tokens[:, 1:, None])[..., 0]
    torch.testing.assert_close(chunk["twice"].nll, losses[inside[:, :-1]], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(kept["read"], seen["middle"][inside], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="must come after what is read"):
        next(src.losses_with({"x": torch.zeros_like}, n_tokens=10, site=written, target=middle))
