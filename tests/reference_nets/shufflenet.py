"""ShuffleNetV2 (Ma et al., ECCV 2018), Table 5; 1.0x by default."""

import torch
from torch import nn


def pointwise(in_channels, out_channels):
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())


def depthwise(channels, stride):
    conv = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels))


def shuffled(x):
    """Interleave the channels of both halves."""
    first, second = x.chunk(2, dim=1)
    return torch.stack([first, second], dim=2).flatten(1, 2)


class Basic(nn.Module):
    """Figure 3(c)."""

    def __init__(self, channels):
        super().__init__()
        half = channels // 2
        self.right = nn.Sequential(pointwise(half, half), depthwise(half, 1), pointwise(half, half))

    def forward(self, x):
        kept_half, convolved_half = x.chunk(2, dim=1)
        return shuffled(torch.cat([kept_half, self.right(convolved_half)], dim=1))


class Down(nn.Module):
    """Figure 3(d)."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        half = out_channels // 2
        self.left = nn.Sequential(depthwise(in_channels, 2), pointwise(in_channels, half))
        self.right = nn.Sequential(
            pointwise(in_channels, half), depthwise(half, 2), pointwise(half, half)
        )

    def forward(self, x):
        return shuffled(torch.cat([self.left(x), self.right(x)], dim=1))


class ShuffleNetV2(nn.Module):
    def __init__(self, classes=2, widths=(116, 232, 464), depths=(4, 8, 4), head_width=1024):
        super().__init__()
        layers = [
            nn.Conv2d(3, 24, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        ]
        in_channels = 24
        for width, depth in zip(widths, depths, strict=True):
            layers.append(Down(in_channels, width))
            layers += [Basic(width) for _ in range(depth - 1)]
            in_channels = width
        self.layers = nn.Sequential(*layers, pointwise(in_channels, head_width))
        self.fc = nn.Linear(head_width, classes)

    def forward(self, x):
        return self.fc(self.layers(x).mean(dim=(2, 3)))
