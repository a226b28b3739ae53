import pytest
import torch
from tiny_models import blocks_of, hugging_face, random_tokens, tiny_model_folder

from sae_toolkit.activations.current_reading import CurrentReading


class Watched(CurrentReading):
    def __init__(self):
        super().__init__()
        self.seen = []

    def begin(self, module, args, kwargs):
        super().begin(module, args, kwargs)
        self.seen.append((self.now.tokens.shape[1], self.now.first_position))


@pytest.fixture(scope="module")
def hf():
    return hugging_face(tiny_model_folder())


def test_positions_go_on_with_a_key_value_cache(hf):
    reading, tokens = Watched(), random_tokens(50, rows=2, context=5)
    with torch.no_grad(), reading.of(hf):
        hf.generate(
            tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=3, eos_token_id=None
        )
    assert reading.seen == [(5, 0), (1, 5), (1, 6)]


def test_a_finished_call_is_forgotten_also_after_an_error(hf):
    reading, tokens = CurrentReading(), random_tokens(50, rows=1, context=5)

    def fails(*_):
        raise RuntimeError("inside")

    broken = blocks_of(hf)[1].register_forward_hook(fails)
    with reading.of(hf):
        with pytest.raises(RuntimeError, match="inside"):
            hf(tokens)
        assert reading.reading is None
        broken.remove()
        hf(input_ids=tokens)
        assert reading.reading is None
        with pytest.raises(ValueError, match="Call the whole model"):
            _ = reading.now
    assert not hf._forward_hooks
    assert not hf._forward_pre_hooks


def test_a_call_without_token_ids_is_refused(hf):
    with CurrentReading().of(hf):
        for given in ({"inputs_embeds": torch.zeros(1, 3, 32)}, {"input_ids": torch.zeros(3, dtype=torch.long)}):
            with pytest.raises(ValueError, match=r"token ids of shape \[rows context\]"):
                hf(**given)
