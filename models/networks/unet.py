"""Convolution blocks shared by all networks: plain 3x3, no normalisation, no attention.

Plain convolutions run near a processor's peak; at equal time they do 3 to 6 times the arithmetic of
depthwise or attention blocks.
"""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

Features = Float[Tensor, "batch channel height width"]


class ResidualBlock(nn.Module):
    """A residual block of two 3x3 convolutions: `x + conv(relu(conv(x)))`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Features) -> Features:
        """Add the learned correction to `x`."""
        return x + self.second(self.first(x).relu_())


class PlainUNet(nn.Module):
    """Residual blocks on a pyramid; skips are added, so widths need not double for them.

    Heights and widths must be divisible by `2 ** (len(widths) - 1)`.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], middle_blocks: int) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.enter = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.encoders = nn.ModuleList(ResidualBlock(width) for width, _ in pairs)
        self.downs = nn.ModuleList(nn.Conv2d(w, wider, 2, stride=2) for w, wider in pairs)
        self.middle = nn.Sequential(*(ResidualBlock(widths[-1]) for _ in range(middle_blocks)))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(wider, w, 2, stride=2) for w, wider in pairs)
        self.decoders = nn.ModuleList(ResidualBlock(width) for width, _ in pairs)

    def forward(
        self, image: Float[Tensor, "batch plane height width"]
    ) -> Float[Tensor, "batch feature height width"]:
        """Compute `widths[0]` features at the size of `image`."""
        x = self.enter(image)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle(x)
        for up, decoder in zip(reversed(self.ups), reversed(self.decoders), strict=True):
            x = decoder(up(x) + skips.pop())
        return x
