"""GoogLeNet (Szegedy et al., CVPR 2015) with batch norm, without auxiliary heads."""

import torch
from torch import nn

# 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection
TABLE = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def unit(in_channels, out_channels, kernel=1, stride=1):
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels, eps=0.001),
        nn.ReLU(),
    )


class Inception(nn.Module):
    def __init__(self, in_channels, row, large):
        super().__init__()
        width1, reduce3, width3, reduce5, width5, pool = row
        self.one = unit(in_channels, width1)
        self.three = nn.Sequential(unit(in_channels, reduce3), unit(reduce3, width3, 3))
        self.five = nn.Sequential(unit(in_channels, reduce5), unit(reduce5, width5, large))
        self.pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), unit(in_channels, pool))
        self.width = width1 + width3 + width5 + pool

    def forward(self, x):
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], dim=1)


class GoogLeNet(nn.Module):
    """`large`: kernel of the 5x5 branches. `cam`: filters of a class-activation convolution."""

    def __init__(self, classes=2, large=5, cam=0):
        super().__init__()
        layers = [
            unit(3, 64, 7, stride=2),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            unit(64, 64),
            unit(64, 192, 3),
            nn.MaxPool2d(3, 2, ceil_mode=True),
        ]
        in_channels = 192
        for name, row in TABLE.items():
            if name == "4a":
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            if name == "5a":
                layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
            cell = Inception(in_channels, row, large)
            layers.append(cell)
            in_channels = cell.width
        if cam:
            layers += [nn.Conv2d(in_channels, cam, 3, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(cam or in_channels, classes)

    def forward(self, x):
        return self.fc(self.dropout(self.layers(x).mean(dim=(2, 3))))
