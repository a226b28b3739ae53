"""Tokens per second of an activation source: ours, the bare Hugging Face forward pass, and SAELens' ActivationsStore.

    python benchmarks/activation_speed.py --model FOLDER --text FILES --hook blocks.2.hook_resid_pre \
        [--saelens_python PEER_ENVIRONMENT/bin/python] [--saelens_model CONFIG_JSON] [--dtype bfloat16]

Every round times each of them once, one after the other, on the same rows of text; printed are medians over rounds and
the median of the ratios within a round. The bare pass is what nobody can beat: the same model, the same rows, stopped
by an exception at the same place, nothing copied, masked or shuffled. SAELens needs an environment of its own (it pins
TransformerLens below 4), where this file is started as a worker; it reads a HookedTransformer of the same shape with
random weights, because speed does not depend on them.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROWS, CONTEXT = 32, 128


class Stop(Exception):
    pass


def bare_forward(folder, layer, dtype):
    """Seconds to run rows of tokens to the input of a block of a plain Hugging Face model."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    blocks = next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))

    def stop(module, args, kwargs):
        raise Stop

    blocks[layer].register_forward_pre_hook(stop, with_kwargs=True)

    @torch.no_grad()
    def run(batches):
        started = time.perf_counter()
        for tokens in batches:
            with contextlib.suppress(Stop):
                model(tokens, use_cache=False)
        return time.perf_counter() - started

    return run


class Ours:
    """Our source, with a stream past its first small blocks."""

    def __init__(self, folder, text, hook, dtype):
        from sae_toolkit.activations import ModelConfig, Text, TextConfig, TransformerSource, load_model

        model = load_model(ModelConfig(name=folder, dtype=dtype, device="cpu"))
        packed = Text.read(model.tokenizer, TextConfig(path=text, context_length=CONTEXT))
        config = TransformerSource.Config(
            hooks=(hook,), rows_per_forward=ROWS, shuffle_buffer=f"{ROWS * CONTEXT} tokens"
        )
        self.source = TransformerSource(model, packed, config)  # a block is one group: time follows the forward passes
        self.stream = self.source.stream(ROWS * CONTEXT // 2, seed=0, split="train")
        self.groups_read = 0
        read = self.source.read_group_rows

        def counted(*args):
            self.groups_read += 1
            return read(*args)

        self.source.read_group_rows = counted

    def rows(self, n):
        window = self.source.text.window("train", 0)
        import torch

        return [window.rows(torch.arange(i * ROWS, (i + 1) * ROWS) % window.n_rows).tokens for i in range(n)]

    def run(self, n_groups):
        """Seconds per group over n groups."""
        first = self.groups_read
        started = time.perf_counter()
        while self.groups_read < first + n_groups:
            next(self.stream)
        return (time.perf_counter() - started) / (self.groups_read - first)


def serve_saelens(shape, text, layer):
    """In SAELens' environment: for each line with a number of batches of ROWS rows, answer seconds per batch."""
    import torch
    from datasets import Dataset
    from sae_lens.training.activations_store import ActivationsStore
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformers import AutoTokenizer

    torch.set_num_threads(shape.pop("threads"))
    tokenizer = AutoTokenizer.from_pretrained(shape.pop("tokenizer"))
    dtype = shape.pop("dtype")
    config = HookedTransformerConfig(**shape, act_fn="gelu_new", normalization_type="LN", device="cpu", seed=0)
    model = HookedTransformer(config, tokenizer=tokenizer).to(getattr(torch, dtype)).eval()
    ids = tokenizer(Path(text).read_text(encoding="utf-8"), verbose=False)["input_ids"]
    bos, length = tokenizer.bos_token_id, CONTEXT - 1
    packed = [[bos, *ids[i : i + length]] for i in range(0, len(ids) - length, length)]
    store = ActivationsStore(
        model=model,
        dataset=Dataset.from_dict({"tokens": packed * 20}),  # tokenised before, as SAELens advises
        streaming=False,
        hook_name=f"blocks.{layer}.hook_resid_pre",
        hook_head_index=None,
        context_size=CONTEXT,
        d_in=shape["d_model"],
        n_batches_in_buffer=4 * ROWS,  # counted in contexts, whatever its name says
        total_training_tokens=10**8,
        store_batch_size_prompts=ROWS,
        train_batch_size_tokens=ROWS * CONTEXT // 2,
        prepend_bos=True,
        normalize_activations="none",
        device=torch.device("cpu"),
        dtype="float32",
        exclude_special_tokens=torch.tensor(sorted({tokenizer.eos_token_id, tokenizer.bos_token_id})),
    )
    read = 0
    get = store.get_activations

    def counted(*args, **kwargs):
        nonlocal read
        read += 1
        return get(*args, **kwargs)

    store.get_activations = counted
    for _ in range(8):
        store.next_batch()
    print("ready", flush=True)
    for line in sys.stdin:
        first, started = read, time.perf_counter()
        while read < first + int(line):
            store.next_batch()
        print((time.perf_counter() - started) / (read - first), flush=True)


def start_saelens(python, model_folder, text, layer, dtype, threads):
    """The worker process, ready to be asked."""
    config = json.loads((Path(model_folder) / "config.json").read_text())
    shape = {
        "n_layers": config["n_layer"],
        "d_model": config["n_embd"],
        "n_heads": config["n_head"],
        "d_head": config["n_embd"] // config["n_head"],
        "d_mlp": 4 * config["n_embd"],
        "n_ctx": config["n_positions"],
        "d_vocab": config["vocab_size"],
        "tokenizer": model_folder,
        "dtype": dtype,
        "threads": threads,
    }
    command = [python, __file__, "--serve_saelens", json.dumps(shape), "--text", text, "--hook", f"blocks.{layer}.x"]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while (line := worker.stdout.readline()).strip() != "ready":
        if not line:
            raise SystemExit("the SAELens worker died")

    def run(n):
        worker.stdin.write(f"{n}\n")
        worker.stdin.flush()
        return float(worker.stdout.readline())

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model")
    parser.add_argument("--text", required=True)
    parser.add_argument("--hook", default="blocks.2.hook_resid_pre", help="a hook_resid_pre")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--groups", type=int, default=4, help="forward passes per measurement")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--saelens_python")
    parser.add_argument("--serve_saelens")
    options = parser.parse_args()
    layer = int(options.hook.split(".")[1])
    if options.serve_saelens:
        serve_saelens(json.loads(options.serve_saelens), options.text, layer)
        return
    import torch

    torch.set_num_threads(options.threads)
    ours = Ours(options.model, options.text, options.hook, options.dtype)
    bare, rows = bare_forward(options.model, layer, options.dtype), ours.rows(options.groups)
    ways = {"bare forward": lambda: bare(rows) / options.groups, "ours": lambda: ours.run(options.groups)}
    if options.saelens_python:
        peer = start_saelens(options.saelens_python, options.model, options.text, layer, options.dtype, options.threads)
        ways["SAELens"] = lambda: peer(options.groups)
    measure(ways, options.rounds)


def measure(ways, rounds):
    seconds = {name: [] for name in ways}
    for name in ways:
        ways[name]()
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(way())
    for name, values in seconds.items():
        rate = ROWS * CONTEXT / statistics.median(values)
        ratio = statistics.median(b / v for b, v in zip(seconds["bare forward"], values, strict=True))
        print(f"{name:<14} {rate:>10,.0f} tokens/s   {ratio:.2f} of the bare forward pass")


if __name__ == "__main__":
    main()
