"""A small field of images: the norms and convolutions of the ODE-Net's, in any number and size."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from repro.ode.kernels import ConvolutionKernel, ConvolutionLayer, timed


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
        last, image = self.norms[-1], tuple(y.shape[2:])
        reason = ConvolutionKernel.why_not(last.weight, last.num_channels, y)
        if reason is not None:
            return reason
        with torch.enable_grad():
            pairs = zip(self.convs, self.norms[:-1], strict=True)
            layers = [timed(conv.weight, conv.bias, norm.weight, norm.bias, image) for conv, norm in pairs]
        end = ConvolutionLayer(None, None, None, last.weight, last.bias)
        return ConvolutionKernel([*layers, end], last.num_groups, last.eps, image)
