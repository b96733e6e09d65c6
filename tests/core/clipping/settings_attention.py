"""Settings for attention and for the transformer layers of torch."""

from collections.abc import Callable
from typing import Any

import torch
from tests.core.clipping.settings import ROWS, Setting, floats, uneven
from tests.core.clipping.settings_operations import mixed
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, LENGTH = 8, 2, 4


class Attending(nn.Module):
    """Attention of a sequence on itself, or on another, in either layout."""

    def __init__(self, *, returns_weights: bool = False, average: bool = True, **how: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, **{"batch_first": True, **how})
        self.returns_weights, self.average = returns_weights, average
        for parameter in self.attention.parameters():
            nn.init.normal_(parameter, std=0.4)

    def forward(
        self,
        query: Tensor,
        memory: Tensor | None = None,
        padding: Tensor | None = None,
        values: Tensor | None = None,
    ) -> Tensor:
        key = query if memory is None else memory
        value = key if values is None else values
        if not self.attention.batch_first:
            query, key, value = (part.transpose(0, 1) for part in (query, key, value))
        y, weights = self.attention(
            query,
            key,
            value,
            key_padding_mask=padding,
            need_weights=self.returns_weights,
            attn_mask=self.mask(),
            average_attn_weights=self.average,
        )
        if not self.attention.batch_first:
            y = y.transpose(0, 1)
        return torch.cat([y.flatten(1), weights.flatten(1)], 1) if self.returns_weights else y

    def mask(self) -> Tensor | None:
        return None


class Masked(Attending):
    """Attention with a mask that is the same for all rows."""

    def __init__(self, mask: Callable[[], Tensor], **how: Any) -> None:
        super().__init__(**how)
        self.register_buffer("blocked", mask())

    def mask(self) -> Tensor:
        return self.blocked


def causal() -> Tensor:
    return torch.triu(torch.ones(LENGTH, LENGTH, dtype=torch.bool), 1)


def bias() -> Tensor:
    return torch.randn(LENGTH, LENGTH)


def bias_of_heads() -> Tensor:
    return torch.randn(HEADS, LENGTH, LENGTH)


def padding() -> Tensor:
    lengths = torch.tensor([4, 3, 2, 1, 4, 2])
    return torch.arange(LENGTH) >= lengths[:, None]


class Fused(nn.Module):
    """`scaled_dot_product_attention` with one projection for all three, and a mask that is trained."""

    def __init__(self, *, dropout: float = 0.0, biased: bool = False, **how: Any) -> None:
        super().__init__()
        self.project = nn.Linear(WIDTH, 3 * WIDTH)
        self.bias = nn.Parameter(torch.randn(HEADS, LENGTH, LENGTH)) if biased else None
        self.dropout, self.how = dropout, how

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        shape = (x.shape[0], LENGTH, HEADS, WIDTH // HEADS)
        q, k, v = (part.view(shape).transpose(1, 2) for part in self.project(x).chunk(3, -1))
        mask = self.bias if keep is None else keep[:, None, None, :]
        y = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0, **self.how
        )
        return y.transpose(1, 2).flatten(2)


class SingleHead(nn.Module):
    """`scaled_dot_product_attention` on (B, T, E), perhaps with queries that are trained."""

    def __init__(self, queries: int = 0) -> None:
        super().__init__()
        self.project = nn.Linear(WIDTH, 2 * WIDTH)
        self.queries = nn.Parameter(torch.randn(queries, WIDTH)) if queries else None

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        key, value = self.project(x).chunk(2, -1)
        query = x if self.queries is None else self.queries.expand(len(x), -1, -1)
        mask = None if keep is None else keep[:, None, :]
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


class Transposed(nn.Module):
    """A module of the layout (T, B, E) for rows (B, T, E)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *parts: Tensor) -> Tensor:
        y: Tensor = self.inner(*(part.transpose(0, 1) for part in parts))
        return y.transpose(0, 1)


class Padded(nn.Module):
    """An encoder whose rows have lengths of their own, and look at what is before them."""

    def __init__(self, **how: Any) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 12, batch_first=True, dropout=0.0, **how)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        return self.encoder(x, mask=causal(), src_key_padding_mask=padding, is_causal=True)


def attention(name: str, module: Callable[[], nn.Module], inputs: Callable[[], Any], **more: Any) -> Setting:
    return Setting(name=name, module=module, inputs=inputs, loss=uneven, **more)


def encoder(**how: Any) -> nn.Module:
    return nn.TransformerEncoderLayer(WIDTH, HEADS, 12, **{"batch_first": True, **how})


def decoder(**how: Any) -> nn.Module:
    return nn.TransformerDecoderLayer(WIDTH, HEADS, 12, **{"batch_first": True, **how})


SEQUENCE = floats(LENGTH, WIDTH)
PAIR = mixed(floats(LENGTH, WIDTH), floats(3, WIDTH))

ATTENTION = (
    attention("attention_to_itself", Attending, SEQUENCE),
    attention("attention_weights", lambda: Attending(returns_weights=True), SEQUENCE),
    attention("attention_weights_of_heads", lambda: Attending(returns_weights=True, average=False), SEQUENCE),
    attention("attention_length_first", lambda: Attending(batch_first=False), SEQUENCE),
    attention("attention_to_memory", Attending, PAIR),
    attention("attention_to_memory_length_first", lambda: Attending(batch_first=False), PAIR),
    attention("attention_without_bias", lambda: Attending(bias=False), SEQUENCE),
    attention("attention_with_bias_kv", lambda: Attending(add_bias_kv=True), SEQUENCE),
    attention("attention_with_zero", lambda: Attending(add_zero_attn=True), SEQUENCE),
    attention(
        "attention_projected_apart",
        lambda: Attending(kdim=5, vdim=3),
        lambda: {
            "query": torch.randn(ROWS, LENGTH, WIDTH),
            "memory": torch.randn(ROWS, 3, 5),
            "values": torch.randn(ROWS, 3, 3),
        },
    ),
    attention("attention_causal", lambda: Masked(causal), SEQUENCE),
    attention("attention_causal_weights", lambda: Masked(causal, returns_weights=True), SEQUENCE),
    attention("attention_biased", lambda: Masked(bias), SEQUENCE),
    attention("attention_biased_by_head", lambda: Masked(bias_of_heads), SEQUENCE),
    attention(
        "attention_padded",
        Attending,
        lambda: {"query": torch.randn(ROWS, LENGTH, WIDTH), "padding": padding()},
    ),
    attention(
        "attention_padded_everything",
        lambda: Masked(causal, returns_weights=True, add_bias_kv=True, add_zero_attn=True, batch_first=False),
        lambda: {"query": torch.randn(ROWS, LENGTH, WIDTH), "padding": padding()},
    ),
    attention("attention_dropout", lambda: Attending(dropout=0.4), SEQUENCE),
    attention("attention_dropout_weights", lambda: Attending(dropout=0.4, returns_weights=True), SEQUENCE),
    attention("fused", Fused, SEQUENCE),
    attention("fused_causal", lambda: Fused(is_causal=True), SEQUENCE),
    attention("fused_scaled", lambda: Fused(scale=0.3), SEQUENCE),
    attention("fused_padded", Fused, lambda: (torch.randn(ROWS, LENGTH, WIDTH), ~padding())),
    attention("fused_biased", lambda: Fused(biased=True), SEQUENCE),
    attention("fused_without_heads", SingleHead, SEQUENCE),
    attention(
        "fused_without_heads_padded", SingleHead, lambda: (torch.randn(ROWS, LENGTH, WIDTH), ~padding())
    ),
    attention("fused_learned_queries", lambda: SingleHead(queries=3), SEQUENCE),
    attention("fused_dropout", lambda: Fused(dropout=0.4), SEQUENCE),
    attention("fused_dropout_causal", lambda: Fused(dropout=0.4, is_causal=True), SEQUENCE),
    attention(
        "fused_dropout_padded",
        lambda: Fused(dropout=0.4),
        lambda: (torch.randn(ROWS, LENGTH, WIDTH), ~padding()),
    ),
    attention("encoder", encoder, SEQUENCE),
    attention("encoder_without_dropout", lambda: encoder(dropout=0.0), SEQUENCE),
    attention("encoder_evaluated", encoder, SEQUENCE, training=False),
    attention("encoder_norm_first", lambda: encoder(norm_first=True, activation="gelu"), SEQUENCE),
    attention("encoder_without_bias", lambda: encoder(bias=False, dropout=0.0), SEQUENCE),
    attention("encoder_length_first", lambda: Transposed(encoder(batch_first=False)), SEQUENCE),
    attention("encoder_padded", Padded, mixed(floats(LENGTH, WIDTH), padding)),
    attention("encoder_padded_evaluated", Padded, mixed(floats(LENGTH, WIDTH), padding), training=False),
    attention("decoder", decoder, PAIR),
    attention("decoder_evaluated", decoder, PAIR, training=False),
    attention("decoder_norm_first", lambda: decoder(norm_first=True, activation="gelu"), PAIR),
    attention("decoder_length_first", lambda: Transposed(decoder(batch_first=False, dropout=0.0)), PAIR),
    attention("encoders", lambda: nn.TransformerEncoder(encoder(), 2, nn.LayerNorm(WIDTH)), SEQUENCE),
    attention("encoders_evaluated", lambda: nn.TransformerEncoder(encoder(), 2), SEQUENCE, training=False),
    attention("decoders", lambda: nn.TransformerDecoder(decoder(), 2, nn.LayerNorm(WIDTH)), PAIR),
    attention("transformer", lambda: nn.Transformer(WIDTH, HEADS, 1, 1, 12, batch_first=True), PAIR),
    attention(
        "transformer_length_first",
        lambda: Transposed(nn.Transformer(WIDTH, HEADS, 1, 1, 12, norm_first=True)),
        PAIR,
    ),
)
