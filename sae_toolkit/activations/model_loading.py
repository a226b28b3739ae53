"""Language models by hub name or local folder: weights, tokenizer and TransformerLens names, also without a network."""

import copy
import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn

from sae_toolkit.activations.hooks import Tap
from sae_toolkit.activations.language_model import (
    ROUNDING,
    LanguageModel,
    relative_difference,
    standard_points,
)
from sae_toolkit.activations.memory import WeighsBeforeLoading
from sae_toolkit.activations.model_hash import hash_weights

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tokenizer_config.json",
)
WEIGHT_FILES = ("*.safetensors", "*.bin")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(WeighsBeforeLoading):
    """Which language model is read."""

    name: str | None = "gpt2"
    """A name on the Hugging Face hub, or a folder with config, weights and tokenizer."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the model computes in: bfloat16 halves memory and, on many machines, time, at about 1 % rounding."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    reinitialise_seed: int | None = None
    """With a seed all weights are drawn anew: an untrained model of the same architecture, as a control."""

    def weight_bytes(self) -> int:
        """Bytes of the weights, from the architecture's description alone; 0 for a model without a name."""
        if self.name is None:
            return 0
        transformers = import_transformers("weight_bytes")
        try:
            architecture = transformers.AutoConfig.from_pretrained(self.name, trust_remote_code=False)
            with torch.device("meta"), quiet():
                module = transformers.AutoModelForCausalLM.from_config(architecture, trust_remote_code=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(not_loaded("model", self.name, False, error)) from error
        bytes_each: int = getattr(torch, self.dtype).itemsize
        return int(module.num_parameters()) * bytes_each


def load_model(config: ModelConfig, *, offline: bool = False) -> LanguageModel:
    """The model with its tokenizer, checked on 64 tokens: the activations are those that TransformerLens names.

    The plain Hugging Face model computes (TransformerLens is half as fast on small models); a bridge around a second
    skeleton of the same weights says where each name lies in it. `offline` never asks the network.
    """
    if config.name is None:
        raise ValueError("load_model: name=None given. Give a name on the Hugging Face hub or a local folder.")
    import_transformers("load_model")
    offline = offline or bool(importlib.import_module("huggingface_hub.constants").HF_HUB_OFFLINE)
    device = chosen_device(config.device)
    check_folder(config)
    with quiet(), torch.random.fork_rng(devices=[]):
        module = load_module(config, offline).to(device).eval().requires_grad_(False)
        tokenizer = load_tokenizer(config.name, offline)
        check_vocabulary(tokenizer, module, config.name)
        model = named(config, module, tokenizer)
    return model


def named(config: ModelConfig, module: Any, tokenizer: Any) -> LanguageModel:
    """The plain model with TransformerLens names, after a check that both compute the same."""
    from sae_toolkit.activations.transformer import boot_bridge  # noqa: PLC0415 - that file may import this one

    assert config.name is not None
    # The bridge wraps modules in place and changes the tokenizer: it gets a skeleton of its own around the same
    # weights, and a copy of the tokenizer.
    skeleton = copy.deepcopy(module, {id(tensor): tensor for tensor in [*module.parameters(), *module.buffers()]})
    norms = parameter_norms(module)
    bridge = boot_bridge(
        config.name, skeleton, copy.deepcopy(tokenizer), device=module.device, dtype=getattr(torch, config.dtype)
    )
    if parameter_norms(module) != norms:
        raise ValueError(
            f"load_model: TransformerLens changes the weights of {config.name} when it boots them, but SAEs read raw "
            "activations. This architecture cannot be read."
        )
    model = LanguageModel(
        name=config.name,
        tokenizer=tokenizer,
        bridge=bridge,
        module=module,
        taps=plain_taps(bridge, module),
        sha256=hash_weights(module.state_dict()),
        origin={"loaded_by": "load_model", "reinitialise_seed": config.reinitialise_seed},
    )
    compare_with_bridge(model)
    module.config.pad_token_id = None  # rows hold no padding; otherwise transformers looks for it in every batch
    return model


def parameter_norms(module: nn.Module) -> list[float]:
    """One number per parameter that changes when the parameter does."""
    return [float(torch.linalg.vector_norm(parameter, dtype=torch.float64)) for parameter in module.parameters()]


def plain_taps(bridge: Any, module: nn.Module) -> dict[str, Tap]:
    """Where each standard name lies in the plain model.

    TransformerLens calls a HookPoint `<component>.hook_in` or `.hook_out` and knows the Hugging Face path of each
    component. What it computes between modules (attention's output times a residual multiplier, in Granite) has no
    place in the plain model.
    """
    taps = {}
    for hook, point in standard_points(bridge).items():
        component, _, side = point.name.rpartition(".hook_")
        if side in ("in", "out"):
            path = bridge.adapter.translate_transformer_lens_path(component)
            taps[hook] = Tap(module.get_submodule(path), side)
    return taps


@torch.no_grad()
def compare_with_bridge(model: LanguageModel) -> None:
    """Refuses a model whose activations or logits differ from those of the bridge that names them, on the probe."""
    points = standard_points(model.bridge)
    ends = ("blocks.0.", f"blocks.{model.n_layers - 1}.")
    hooks = [hook for hook in model.hooks if hook.startswith(ends)]
    expected: dict[str, torch.Tensor] = {}
    handles = [
        Tap(points[hook], "out").attach(lambda given, hook=hook: expected.update({hook: given.clone()}))  # type: ignore[misc]
        for hook in hooks
    ]
    try:
        expected["logits"] = model.bridge(model.probe().to(model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    found = model.capture(model.probe(), hooks) | {"logits": model.logits(model.probe())}
    for hook, activations in found.items():
        if hook not in expected:
            raise ValueError(f"load_model: TransformerLens did not pass {hook} of {model.name}; it cannot be read.")
        apart = relative_difference(activations, expected[hook].reshape(activations.shape))
        if not apart <= ROUNDING[model.dtype]:
            raise ValueError(
                f"load_model: {hook} of {model.name} differs by {apart:.2g} (relative) between Hugging Face and "
                f"TransformerLens; {ROUNDING[model.dtype]:g} would be rounding. Load a bridge yourself and use "
                "LanguageModel.from_bridge."
            )


def load_module(config: ModelConfig, offline: bool) -> Any:
    """The plain causal language model on the CPU: its saved weights, or new ones from the seed."""
    transformers = import_transformers("load_model")
    name, dtype = config.name, getattr(torch, config.dtype)
    where = {"local_files_only": offline, "trust_remote_code": False}
    try:
        if config.reinitialise_seed is not None:
            architecture = transformers.AutoConfig.from_pretrained(name, **where)
            torch.default_generator.manual_seed(config.reinitialise_seed)
            module = transformers.AutoModelForCausalLM.from_config(
                architecture, dtype=torch.float32, trust_remote_code=False
            )
            for parameter in module.parameters():  # buffers stay as they are, as when weights are loaded
                parameter.data = parameter.data.to(dtype)
            return module
        module, report = transformers.AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, output_loading_info=True, **where
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(not_loaded("model", str(name), offline, error)) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ValueError(
            f"load_model: {name} has no weights for {len(missing)} parameters ({', '.join(missing[:3])}, ...), which "
            "would be random. Give a complete model, or ask for an untrained one with reinitialise_seed."
        )
    return module


def load_tokenizer(name: str, offline: bool) -> Any:
    """The tokenizer that lies beside the weights."""
    transformers = import_transformers("load_model")
    try:
        return transformers.AutoTokenizer.from_pretrained(name, local_files_only=offline, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises nothing narrower for a file it cannot read
        raise ValueError(not_loaded("tokenizer", name, offline, error)) from error


def not_loaded(what: str, name: str, offline: bool, error: Exception) -> str:
    """What to do when Hugging Face cannot load something, with the first line of its own reason."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if Path(name).is_dir():
        return f"load_model: the {what} in the folder {name} cannot be loaded: {reason}"
    if offline:
        return (
            f"load_model: the network is off and the {what} of {name!r} is not in the local Hugging Face cache. "
            "Load it once with the network, or give a folder that holds config, weights and tokenizer."
        )
    return (
        f"load_model: the {what} of {name!r} cannot be loaded from the Hugging Face hub: {reason} Check the name and "
        "the network, or give a local folder, which needs neither."
    )


def check_folder(config: ModelConfig) -> None:
    """For a local folder: says what it lacks, before Hugging Face says it less clearly."""
    assert config.name is not None
    folder = Path(config.name)
    if not folder.is_dir():
        if folder.is_absolute() or config.name.startswith((".", "~")) or len(folder.parts) > 2:
            raise ValueError(f"load_model: the folder {config.name} does not exist. Give a folder or a hub name.")
        return
    lacks = []
    if not (folder / "config.json").is_file():
        lacks.append("config.json")
    if config.reinitialise_seed is None and not any(any(folder.glob(pattern)) for pattern in WEIGHT_FILES):
        lacks.append("weights (model.safetensors)")
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        lacks.append("tokenizer (tokenizer.json)")
    if lacks:
        raise ValueError(f"load_model: the folder {config.name} has no {', no '.join(lacks)}. Save them there.")


def check_vocabulary(tokenizer: Any, module: Any, name: str) -> None:
    """Refuses a tokenizer that cannot be this model's: ids it does not know, or less than half of what it knows."""
    n_ids, d_vocab = len(tokenizer), module.get_input_embeddings().weight.shape[0]
    if not d_vocab / 2 <= n_ids <= d_vocab:
        raise ValueError(
            f"load_model: the tokenizer of {name} has {n_ids} tokens, the model d_vocab={d_vocab}. They do not belong "
            "together: put the model's own tokenizer files beside its weights."
        )


def chosen_device(asked: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device to compute on; a GPU that is not there is a ValueError."""
    if asked == "cuda" and not torch.cuda.is_available():
        raise ValueError("load_model: device='cuda' asked, but torch sees no GPU. Choose 'auto' or 'cpu'.")
    return torch.device("cuda" if asked == "cuda" or (asked == "auto" and torch.cuda.is_available()) else "cpu")


def import_transformers(asker: str) -> Any:
    """The transformers library, or a ValueError of one line that names the missing extra."""
    try:
        import transformers  # noqa: PLC0415 - optional, and slow to import
    except ImportError:
        raise ValueError(f"{asker} needs transformers: pip install 'sae-toolkit[lm]'.") from None
    return transformers


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, log lines or warnings of transformers inside; all its settings as before afterwards."""
    hub: Any = importlib.import_module("huggingface_hub.utils")
    logging: Any = importlib.import_module("transformers.utils.logging")
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_bars = not hub.are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            logging.set_verbosity(logging.CRITICAL)
            logging.disable_progress_bar()
            yield
        finally:
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()
            if hub_bars:
                hub.enable_progress_bars()
            else:
                hub.disable_progress_bars()
