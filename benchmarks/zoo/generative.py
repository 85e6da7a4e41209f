"""Generative networks of torch alone."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.measure import Maker

PACKAGE = "torch"


def load() -> None:
    """Nothing further is needed."""


class VAE(nn.Module):
    """Variational autoencoder; in evaluation it takes the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 32), nn.ReLU())
        self.mean, self.spread = nn.Linear(32, 6), nn.Linear(32, 6)
        self.decoder = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 64), nn.Sigmoid())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction, mean, logarithm of the variance."""
        code = self.encoder(x)
        mean, spread = self.mean(code), self.spread(code)
        z = mean + torch.randn_like(mean) * torch.exp(spread / 2) if self.training else mean
        return self.decoder(z), mean, spread


class VectorQuantised(nn.Module):
    """VQ-VAE: the nearest of a book of codes, gradients straight through."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 8, 4, 2, 1))
        self.book = nn.Embedding(20, 8)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(8, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruction."""
        code = self.encoder(x).movedim(1, -1)
        nearest = (code[..., None, :] - self.book.weight).square().sum(-1).argmin(-1)
        code = code + (self.book(nearest) - code).detach()
        return self.decoder(code.movedim(-1, 1))


class Coupling(nn.Module):
    """Affine coupling: half of the values scale and shift the other half (Dinh et al., 2017)."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(width // 2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transformed, halves swapped."""
        one, other = x.chunk(2, -1)
        scale, shift = self.net(one).chunk(2, -1)
        return torch.cat([other * torch.exp(torch.tanh(scale)) + shift, one], -1)


class Denoiser(nn.Module):
    """Network of a diffusion model: the time embedded, and added in the middle of every block (Ho et al., 2020)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.time = nn.Sequential(nn.Linear(8, 32), nn.SiLU())
        self.shift = nn.ModuleList(nn.Linear(32, width) for _ in range(2))
        self.first = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.norm = nn.ModuleList(nn.GroupNorm(4, width) for _ in range(2))
        self.second = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.out = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """The noise."""
        x, code = self.stem(x), self.time(time)
        for first, shift, norm, second in zip(self.first, self.shift, self.norm, self.second, strict=True):
            y = first(F.silu(norm(x))) + shift(code)[..., None, None]
            x = x + second(F.silu(y))
        return self.out(x)


def dcgan_generator() -> nn.Sequential:
    """DCGAN's generator (Radford et al., 2016)."""
    return nn.Sequential(
        nn.ConvTranspose2d(10, 32, 4), nn.BatchNorm2d(32), nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip


def dcgan_discriminator(spectral: bool) -> nn.Sequential:
    """Its discriminator, with spectral norm or batch norm."""

    def conv(features: int, units: int) -> nn.Module:
        layer = nn.Conv2d(features, units, 4, 2, 1)
        return nn.utils.parametrizations.spectral_norm(layer) if spectral else layer

    return nn.Sequential(
        conv(1, 16), nn.LeakyReLU(0.2), conv(16, 32), nn.Identity() if spectral else nn.BatchNorm2d(32),
        nn.LeakyReLU(0.2), nn.Conv2d(32, 1, 4),
    )  # fmt: skip


def autoencoder() -> nn.Sequential:
    """Down to four values and up again."""
    return nn.Sequential(
        nn.Linear(64, 32),
        nn.ReLU(),
        nn.Linear(32, 4),
        nn.ReLU(),
        nn.Linear(4, 32),
        nn.ReLU(),
        nn.Linear(32, 64),
    )


NETWORKS: dict[str, Maker] = {
    "autoencoder": lambda: (autoencoder(), (torch.rand(2, 64),)),
    "VAE": lambda: (VAE(), (torch.rand(2, 64),)),
    "VQ-VAE": lambda: (VectorQuantised(), (torch.rand(2, 1, 16, 16),)),
    "DCGAN generator": lambda: (dcgan_generator(), (torch.rand(2, 10, 1, 1),)),
    "DCGAN discriminator": lambda: (dcgan_discriminator(False), (torch.rand(2, 1, 16, 16),)),
    "discriminator with spectral norm": lambda: (dcgan_discriminator(True), (torch.rand(2, 1, 16, 16),)),
    "flow of couplings": lambda: (nn.Sequential(*(Coupling() for _ in range(3))), (torch.rand(4, 8),)),
    "denoiser of diffusion": lambda: (Denoiser(), (torch.rand(2, 1, 8, 8), torch.rand(2, 8))),
}
