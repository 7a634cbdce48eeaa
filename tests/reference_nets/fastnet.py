"""FastNet (IEEE IoT J. 2023): Tables IV and VII, and the one-block networks of Tables V and VI."""

import torch
from torch import nn


class Down(nn.Module):
    """Halve the resolution: convolution, ReLU, then batch norm."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x):
        return self.bn(torch.relu(self.conv(x)))


class Unit(nn.Module):
    """A convolution, separable or not, batch norm and ReLU6."""

    def __init__(self, in_channels, out_channels, kernel, separable):
        super().__init__()
        padding = kernel // 2
        if separable:
            self.convs = nn.Sequential(
                nn.Conv2d(
                    in_channels,
                    in_channels,
                    kernel,
                    padding=padding,
                    groups=in_channels,
                    bias=False,
                ),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
            )
        else:
            self.convs = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x):
        return self.bn(self.convs(x)).clamp(0, 6)


class Block(nn.Module):
    """Expand, branch, merge, reduce."""

    def __init__(self, channels, ratio, branches, merged, merge, shortcut):
        super().__init__()
        self.expand = Unit(channels, channels * ratio, 1, separable=False)
        self.branches = nn.ModuleList(branches)
        self.reduce = nn.Conv2d(merged, channels, 1, bias=False)
        self.merge, self.shortcut = merge, shortcut

    def forward(self, x):
        wide = self.expand(x)
        branch_outputs = [branch(wide) for branch in self.branches]
        y = self.reduce(
            torch.cat(branch_outputs, 1) if self.merge == "concat" else sum(branch_outputs)
        )
        return x + y if self.shortcut else y


def scale(index, in_channels, out_channels, separable):
    """Return the branch of a scale: 1x1, then one, two, three 3x3 in a row."""
    units = [Unit(in_channels, out_channels, 3 if index else 1, separable)]
    units += [Unit(out_channels, out_channels, 3, separable) for _ in range(index - 1)]
    return nn.Sequential(*units)


def multi_scale(m, n, b, separable=True, shortcut=True, scales=3, merge="concat"):
    branches = [scale(i, m * n, b, separable) for i in range(scales)]
    merged = scales * b if merge == "concat" else b
    return Block(m, n, branches, merged, merge, shortcut)


def multi_branch(m, n, b, separable=True, shortcut=True):
    branches = [Unit(m * n, m * n, 3, separable) for _ in range(b)]
    return Block(m, n, branches, b * m * n, "concat", shortcut)


class Pooled(nn.Module):
    def __init__(self, *body, channels, classes):
        super().__init__()
        self.body = nn.Sequential(*body)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        return self.fc(self.body(x).mean(dim=(2, 3)))


def fastnet(classes=2, separable=True, shortcut=True):
    options = {"separable": separable, "shortcut": shortcut}
    return Pooled(
        Down(3, 64),
        Down(64, 8),
        multi_scale(8, 1, 4, **options),
        multi_branch(8, 1, 2, **options),
        Down(8, 16),
        multi_scale(16, 2, 8, **options),
        multi_branch(16, 2, 4, **options),
        Down(16, 32),
        multi_scale(32, 4, 16, **options),
        multi_branch(32, 4, 8, **options),
        channels=32,
        classes=classes,
    )


def one_block(block, classes=2):
    """Return the network of Tables V and VI around one block on 8 channels."""
    return Pooled(Down(3, 64), Down(64, 8), block, channels=8, classes=classes)
