"""Rotary positions: a key or query at position p is turned by the angles p * theta^(-2i / head_dim).

The two halves of a head are the two coordinates (element ``i`` turns with ``i + head_dim / 2``).
Rotations add up: turned by ``a`` and then by ``b`` is turned by ``a + b``. So what was rotated for one
place is moved to another by the difference alone (`Rotary.shift`), and a product of query and key depends on
their distance alone. Source: RoFormer, arXiv 2104.09864, §3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rotary:
    """The angles of one head width.

    theta   base of the frequencies
    """

    head_dim: int
    theta: float

    def __post_init__(self) -> None:
        assert self.head_dim % 2 == 0

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine, ``[tokens, head_dim / 2]`` float32, of integer positions (any sign).

        In float64 up to the last step, so that positions of a million lose nothing.
        """
        half = torch.arange(0, self.head_dim, 2, dtype=torch.float64, device=positions.device)
        frequency = self.theta ** (-half / self.head_dim)
        angle = positions.to(torch.float64)[:, None] * frequency
        return angle.cos().to(torch.float32), angle.sin().to(torch.float32)

    def rotate(self, vectors: Tensor, positions: Tensor) -> Tensor:
        """Turn ``[tokens, heads, head_dim]`` by the positions ``[tokens]``."""
        return turn(vectors, *self.angles(positions))

    def shift(self, rotated: Tensor, distance: int) -> Tensor:
        """Move what is already rotated ``distance`` positions onwards (back, where negative)."""
        offset = torch.tensor([distance], dtype=torch.int64, device=rotated.device)
        return turn(rotated, *self.angles(offset))


def turn(vectors: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn ``[..., tokens, heads, head_dim]`` by angles ``[tokens or 1, head_dim / 2]``."""
    left, right = vectors.chunk(2, dim=-1)
    cosine, sine = cosine[:, None], sine[:, None]
    turned = torch.cat((left * cosine - right * sine, right * cosine + left * sine), dim=-1)
    return turned.to(vectors.dtype)
