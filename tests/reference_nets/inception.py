"""Inception-v3 (Szegedy et al., CVPR 2016) in the common 299x299 form with an auxiliary head."""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Unit(nn.Module):
    def __init__(self, in_channels, out_channels, kernel=1, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)))


def row(in_channels, out_channels):
    return Unit(in_channels, out_channels, (1, 7), padding=(0, 3))


def column(in_channels, out_channels):
    return Unit(in_channels, out_channels, (7, 1), padding=(3, 0))


class Cell(nn.Module):
    """Parallel branches."""

    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def averaged(in_channels, out_channels):
    return nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1), Unit(in_channels, out_channels))


def grid35(in_channels, pool):
    return Cell(
        Unit(in_channels, 64),
        nn.Sequential(Unit(in_channels, 48), Unit(48, 64, 5, padding=2)),
        nn.Sequential(
            Unit(in_channels, 64), Unit(64, 96, 3, padding=1), Unit(96, 96, 3, padding=1)
        ),
        averaged(in_channels, pool),
    )


def to_grid17(in_channels):
    double = nn.Sequential(
        Unit(in_channels, 64), Unit(64, 96, 3, padding=1), Unit(96, 96, 3, stride=2)
    )
    return Cell(Unit(in_channels, 384, 3, stride=2), double, nn.MaxPool2d(3, 2))


def grid17(in_channels, n):
    return Cell(
        Unit(in_channels, 192),
        nn.Sequential(Unit(in_channels, n), row(n, n), column(n, 192)),
        nn.Sequential(Unit(in_channels, n), column(n, n), row(n, n), column(n, n), row(n, 192)),
        averaged(in_channels, 192),
    )


def to_grid8(in_channels):
    return Cell(
        nn.Sequential(Unit(in_channels, 192), Unit(192, 320, 3, stride=2)),
        nn.Sequential(
            Unit(in_channels, 192), row(192, 192), column(192, 192), Unit(192, 192, 3, stride=2)
        ),
        nn.MaxPool2d(3, 2),
    )


def forked(in_channels):
    return Cell(
        Unit(in_channels, 384, (1, 3), padding=(0, 1)),
        Unit(in_channels, 384, (3, 1), padding=(1, 0)),
    )


def grid8(in_channels):
    return Cell(
        Unit(in_channels, 320),
        nn.Sequential(Unit(in_channels, 384), forked(384)),
        nn.Sequential(Unit(in_channels, 448), Unit(448, 384, 3, padding=1), forked(384)),
        averaged(in_channels, 192),
    )


class InceptionV3(nn.Module):
    """Returns the class scores, and in training also those of the auxiliary head."""

    def __init__(self, classes=7):
        super().__init__()
        self.stem = nn.Sequential(
            Unit(3, 32, 3, stride=2),
            Unit(32, 32, 3),
            Unit(32, 64, 3, padding=1),
            nn.MaxPool2d(3, 2),
            Unit(64, 80),
            Unit(80, 192, 3),
            nn.MaxPool2d(3, 2),
        )
        self.fine = nn.Sequential(
            grid35(192, 32),
            grid35(256, 64),
            grid35(288, 64),
            to_grid17(288),
            *(grid17(768, n) for n in (128, 160, 160, 192)),
        )
        self.auxiliary = nn.Sequential(Unit(768, 128), Unit(128, 768, 5))
        self.auxiliary_fc = nn.Linear(768, classes)
        self.coarse = nn.Sequential(to_grid8(768), grid8(1280), grid8(2048))
        self.fc = nn.Linear(2048, classes)

    def forward(self, x):
        x = self.fine(self.stem(x))
        if self.training:
            side = self.auxiliary(F.avg_pool2d(x, 5, 3))
            side = self.auxiliary_fc(F.adaptive_avg_pool2d(side, 1).flatten(1))
        x = self.coarse(x)
        x = F.dropout(F.adaptive_avg_pool2d(x, 1).flatten(1), 0.5, self.training)
        return (self.fc(x), side) if self.training else self.fc(x)
