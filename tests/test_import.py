"""Importing the package stays cheap, and the toy side needs none of the optional packages."""

import subprocess
import sys

HEAVY = ("scipy", "sklearn", "matplotlib", "jinja2", "rich", "transformer_lens", "datasets", "wandb")


def in_a_new_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_nothing_heavy() -> None:
    code = f"""
import sys, torch
before = set(sys.modules)
import sae_toolkit
print([name for name in {HEAVY} if name in set(sys.modules) - before])
"""
    assert in_a_new_process(code).strip() == "[]"


def test_a_toy_run_works_where_the_extras_are_missing() -> None:
    code = """
import sys
for name in ("transformer_lens", "datasets", "wandb", "transformers"):
    sys.modules[name] = None  # any import of it raises
from sae_toolkit import SuperpositionSource, TopKSAE, TrainConfig, evaluate, train
from sae_toolkit.ground_truth import hierarchical_world
source = SuperpositionSource(hierarchical_world(0, n_parents=3, n_independent=3, d_in=8))
sae = TopKSAE(TopKSAE.Config(d_in=8, d_sae=16, k=2))
train(sae, source, TrainConfig(n_samples=2000, batch_size=100, preparation_samples=200))
print(evaluate(sae, source, n_samples=200)["sae"]["mean_matched_cosine"].value > 0)
"""
    assert in_a_new_process(code).strip() == "True"


def test_an_absent_extra_is_named_in_one_line() -> None:
    code = """
import sys
sys.modules["wandb"] = None
from sae_toolkit.loggers import WandbLog
try:
    WandbLog(project="x")
except ValueError as error:
    print(error)
"""
    assert in_a_new_process(code).strip() == "WandbLog needs wandb: pip install 'sae-toolkit[wandb]'."
