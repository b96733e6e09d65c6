"""The block of `ResidualMLP`; imported only where a model is built, because it needs torch."""

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """`x + W2 relu(W1 norm(x))`, with the mean and deviation of each row alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output (B, W) for (B, W)."""
        return x + self.inner(x)
