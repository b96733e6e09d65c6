"""The larger modules that the engine is measured on."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with GroupNorm, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.first_norm = nn.GroupNorm(16, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.GroupNorm(16, outputs)
        self.shortcut = (
            nn.Identity()
            if inputs == outputs and stride == 1
            else nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.GroupNorm(16, outputs)
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        inner = functional.relu(self.first_norm(self.first(images)))
        return functional.relu(self.second_norm(self.second(inner)) + self.shortcut(images))


class ResNet18(nn.Module):
    """ResNet-18 in its form for 32x32 images, with GroupNorm(16) for BatchNorm (He et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.GroupNorm(16, 64), nn.ReLU())
        widths = (64, 64, 128, 256, 512)
        blocks: list[nn.Module] = []
        for stage, (before, width) in enumerate(pairwise(widths)):
            blocks += [ResidualBlock(before, width, 1 if stage == 0 else 2), ResidualBlock(width, width, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(512, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))


class Attention(nn.Module):
    """Self-attention with one projection for queries, keys and values."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        rows, length, width = tokens.shape
        heads = self.project(tokens).view(rows, length, 3, self.heads, width // self.heads)
        queries, keys, values = heads.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).reshape(rows, length, width))


class TransformerBlock(nn.Module):
    """Attention and a two-layer network, each after a LayerNorm."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal=causal)
        self.network_norm = nn.LayerNorm(width)
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.network(self.network_norm(tokens))


class Decoder(nn.Module):
    """A causal language model: (B, T) to (B, T, vocabulary)."""

    def __init__(
        self,
        *,
        tied: bool,
        vocabulary: int = 8192,
        length: int = 128,
        width: int = 256,
        heads: int = 4,
        layers: int = 4,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads, causal=True) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens).contiguous()
        hidden = self.tokens(tokens) + self.positions(places)
        return self.head(self.norm(self.blocks(hidden)))


class ClassToken(nn.Module):
    """Put a learned token before the others, and add learned positions."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, length + 1, width))

    def forward(self, patches: Tensor) -> Tensor:
        token = self.token.expand(patches.shape[0], -1, -1)
        return torch.cat([token, patches], dim=1) + self.positions


class VisionTransformer(nn.Module):
    """A classifier of 32x32 images in patches of 4x4 (Dosovitskiy et al. 2021)."""

    def __init__(self, *, width: int = 192, heads: int = 6, layers: int = 6) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.embedding = ClassToken(64, width)
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads, causal=False) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(self.embedding(patches)))[:, 0])


class RecurrentClassifier(nn.Module):
    """The last hidden state of a recurrent layer over embedded tokens, classified."""

    def __init__(self, layer: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.tokens = nn.Embedding(10_000, 128)
        self.recurrent = layer(128, 256, batch_first=True)
        self.head = nn.Linear(256, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden, _ = self.recurrent(self.tokens(tokens))
        return self.head(hidden[:, -1])


class Recommender(nn.Module):
    """A user's table and an item's, and a network on both rows: (B, 2) to (B, 2)."""

    def __init__(self, *, users: int = 100_000, items: int = 100_000, width: int = 64) -> None:
        super().__init__()
        self.users = nn.Embedding(users, width)
        self.items = nn.Embedding(items, width)
        self.network = nn.Sequential(
            nn.Linear(2 * width, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 2)
        )

    def forward(self, pairs: Tensor) -> Tensor:
        users, items = pairs.unbind(1)
        return self.network(torch.cat([self.users(users), self.items(items)], dim=1))


class PretrainedClassifier(nn.Module):
    """A classifier of `transformers`, called with the tokens alone and answering with its logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens).contiguous()
        return self.model(
            input_ids=tokens, position_ids=places, token_type_ids=torch.zeros_like(tokens)
        ).logits


def bert() -> nn.Module:
    """Return BERT as `transformers` has it, small and with random weights."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=8192,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=10,
    )
    return PretrainedClassifier(BertForSequenceClassification(config))
