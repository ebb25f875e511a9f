"""A small field of images: the norms and convolutions of the ODE-Net's, in any number and size."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from repro.ode.kernels import ConvolutionKernel, register_kernel


@register_kernel
class ImageField(nn.Module):
    """norm, and for each two neighbours of `channels` relu, conv with the time as first channel, norm."""

    def __init__(self, channels=(4, 6, 4), groups=2):
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(groups, n) for n in channels)
        self.convs = nn.ModuleList(nn.Conv2d(1 + a, b, 3, padding=1) for a, b in pairwise(channels))
        with torch.no_grad():
            for p in self.parameters():
                p.add_(0.1 * torch.randn_like(p))

    def forward(self, t, y):
        y = self.norms[0](y)
        for conv, norm in zip(self.convs, self.norms[1:], strict=True):
            time = torch.ones_like(y[:, :1]) * t
            y = norm(conv(torch.cat([time, F.relu(y)], 1)))
        return y

    def step_kernel(self, y):
        return ConvolutionKernel.of(list(self.norms), list(self.convs), y)
