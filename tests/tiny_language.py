"""The smallest language model of the known language that tests train."""

from sae_toolkit.activations import LanguageTrainConfig
from sae_toolkit.ground_truth import LanguageConfig

TINY = LanguageTrainConfig(
    language=LanguageConfig(n_classes=4, context_length=16, header_events=2),
    d_model=8,
    n_heads=2,
    n_layers=1,
    n_steps=40,
    documents_per_step=32,
    learning_rate=3e-2,
    eval_documents=256,
)
