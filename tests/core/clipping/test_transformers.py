"""Models of `transformers`, built from small random configurations: unmodified, exact, by rules."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from tests import reference
from tests.core.clipping.settings import ROWS, Setting
from tests.core.clipping.test_engine import KEY, made
from torch import Tensor, nn
from torch.nn import functional

from clipwise.clipping import ClippingEngine, FlatClip
from clipwise.clipping.batch import as_rows

LENGTH, WORDS = 6, 19
SIZES = {
    "vocab_size": WORDS,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
}
UNDROPPED = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def perturbed(model: Any) -> nn.Module:
    """Return a model none of whose parameters is zero or one."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def gpt2(dropout: float = 0.0, **more: Any) -> nn.Module:
    config = transformers.GPT2Config(
        vocab_size=WORDS,
        n_positions=16,
        n_embd=8,
        n_layer=2,
        n_head=2,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=1,
        eos_token_id=1,
        **more,
    )
    return perturbed(transformers.GPT2LMHeadModel(config))


def checkpointed_gpt2() -> nn.Module:
    model: Any = gpt2()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def bert(**more: Any) -> nn.Module:
    config = transformers.BertConfig(**SIZES, **UNDROPPED, num_labels=3, **more)
    return perturbed(transformers.BertForSequenceClassification(config))


def masked_bert(**more: Any) -> nn.Module:
    return perturbed(transformers.BertForMaskedLM(transformers.BertConfig(**SIZES, **UNDROPPED, **more)))


def vit() -> nn.Module:
    sizes = {name: SIZES[name] for name in SIZES if name not in ("vocab_size", "max_position_embeddings")}
    config = transformers.ViTConfig(**sizes, **UNDROPPED, image_size=8, patch_size=4, num_labels=3)
    return perturbed(transformers.ViTForImageClassification(config))


def llama(**more: Any) -> nn.Module:
    config = transformers.LlamaConfig(**SIZES, num_key_value_heads=1, **more)
    return perturbed(transformers.LlamaForCausalLM(config))


def t5() -> nn.Module:
    config = transformers.T5Config(
        vocab_size=WORDS,
        d_model=8,
        d_kv=4,
        d_ff=12,
        num_layers=2,
        num_heads=2,
        dropout_rate=0.0,
        decoder_start_token_id=0,
        pad_token_id=0,
    )
    return perturbed(transformers.T5ForConditionalGeneration(config))


def words() -> Tensor:
    return torch.randint(1, WORDS, (ROWS, LENGTH))


def lengths() -> Tensor:
    """Return a mask of rows of different lengths, some of them whole."""
    return (torch.arange(LENGTH) < torch.tensor([6, 4, 6, 3, 5, 6])[:, None]).long()


def next_word(outputs: Any, targets: Tensor) -> Tensor:
    logits = outputs.logits[:, :-1].transpose(1, 2)
    return functional.cross_entropy(logits, targets[:, 1:], reduction="none").mean(1)


def every_word(outputs: Any, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs.logits.transpose(1, 2), targets, reduction="none").mean(1)


def label(outputs: Any, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs.logits, targets, reduction="none")


def own_loss(outputs: Any, targets: Tensor) -> Tensor:
    """Return what the model computed from labels among its inputs; a row is a batch of one."""
    return outputs.loss.reshape(1)


def classes() -> Tensor:
    return torch.randint(3, (ROWS,))


def model(
    name: str,
    module: Callable[[], nn.Module],
    inputs: Callable[[], dict[str, Tensor]],
    loss: Callable[..., Tensor] = next_word,
    targets: Callable[[], Tensor] = words,
    *,
    training: bool = True,
) -> Setting:
    return Setting(name=name, module=module, inputs=inputs, loss=loss, targets=targets, training=training)


MODELS = (
    model("gpt2", gpt2, lambda: {"input_ids": words()}),
    model("gpt2_evaluated", gpt2, lambda: {"input_ids": words()}, training=False),
    model("gpt2_padded", gpt2, lambda: {"input_ids": words(), "attention_mask": lengths()}),
    model("gpt2_dropout", lambda: gpt2(0.2), lambda: {"input_ids": words(), "attention_mask": lengths()}),
    model("gpt2_own_loss", gpt2, lambda: {"input_ids": words(), "labels": words()}, own_loss),
    model("gpt2_checkpointed", checkpointed_gpt2, lambda: {"input_ids": words()}),
    model(
        "gpt2_eager",
        lambda: gpt2(attn_implementation="eager"),
        lambda: {"input_ids": words(), "attention_mask": lengths()},
    ),
    model(
        "bert",
        bert,
        lambda: {
            "input_ids": words(),
            "attention_mask": lengths(),
            "token_type_ids": torch.randint(2, (ROWS, LENGTH)),
        },
        label,
        classes,
    ),
    model("bert_evaluated", bert, lambda: {"input_ids": words()}, label, classes, training=False),
    model(
        "masked_bert", masked_bert, lambda: {"input_ids": words(), "attention_mask": lengths()}, every_word
    ),
    model(
        "masked_bert_eager",
        lambda: masked_bert(attn_implementation="eager"),
        lambda: {"input_ids": words(), "attention_mask": lengths()},
        every_word,
    ),
    model("vit", vit, lambda: {"pixel_values": torch.randn(ROWS, 3, 8, 8)}, label, classes),
    model(
        "vit_evaluated",
        vit,
        lambda: {"pixel_values": torch.randn(ROWS, 3, 8, 8)},
        label,
        classes,
        training=False,
    ),
    model("llama", llama, lambda: {"input_ids": words(), "attention_mask": lengths()}),
    model("llama_evaluated", llama, lambda: {"input_ids": words()}, training=False),
    model(
        "t5", t5, lambda: {"input_ids": words(), "attention_mask": lengths(), "labels": words()}, every_word
    ),
    model(
        "t5_decoder_inputs",
        t5,
        lambda: {"input_ids": words(), "decoder_input_ids": words(), "decoder_attention_mask": lengths()},
        every_word,
        training=False,
    ),
)

models = pytest.mark.parametrize("setting", MODELS, ids=lambda setting: setting.name)


def assert_exact(setting: Setting, module: nn.Module, batch: Any, tolerance: float, **more: Any) -> None:
    """Compare with the oracle. Biases of keys have no gradient but rounding errors: all else is compared."""
    group = more.pop("group", 1)
    _, norms = reference.clipped_sum(module, setting.loss, batch, None, group=group, key=KEY)
    bound = float(norms.median())
    expected, norms = reference.clipped_sum(module, setting.loss, batch, bound, group=group, key=KEY)
    engine = ClippingEngine(module, setting.loss, **more)
    found = engine.clipped_sum(as_rows(batch), FlatClip(max_norm=bound), group=group, key=KEY)
    assert engine.whole_model == {}
    joint = float(torch.stack([value.double().norm() for value in expected.values()]).norm())
    for name, value in expected.items():
        rounding = joint * torch.finfo(value.dtype).eps
        if float(value.double().norm()) < rounding * 10:
            assert float(found.values[name].double().norm()) < rounding * 100, name
        else:
            assert reference.relative_error(found.values[name], value) <= tolerance, name
    assert reference.relative_error(found.norms, norms) <= tolerance


@models
def test_exact(setting: Setting) -> None:
    module, batch = made(setting, torch.float64)
    assert_exact(setting, module, batch, 1e-10)


@models
def test_exact_in_float32(setting: Setting) -> None:
    module, batch = made(setting, torch.float32)
    assert_exact(setting, module, batch, 1e-5)


@models
def test_exact_in_microbatches_and_for_groups_of_rows(setting: Setting) -> None:
    module, batch = made(setting, torch.float64, torch.tensor([1.0, 0.5, 2.0, 1.0, 1.0, 0.0]))
    assert_exact(setting, module, batch, 1e-10, microbatch_size=4)
    assert_exact(setting, module, batch, 1e-10, group=3, microbatch_size=3)


@models
def test_exact_with_all_but_matrices_frozen(setting: Setting) -> None:
    module, batch = made(setting, torch.float64)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(parameter.dim() == 2 and "embed" not in name)
    assert_exact(setting, module, batch, 1e-10)
