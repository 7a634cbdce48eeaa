"""DDSNet (Huang, Son, Xiong, SAC 2025): DenseNet connections with separable convolutions."""

import torch
from torch import nn


class Layer(nn.Module):
    """A separable convolution whose output is concatenated with its input."""

    def __init__(self, channels, growth):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, growth, 1)
        self.bn2 = nn.BatchNorm2d(growth)
        self.relu = nn.ReLU()

    def forward(self, x):
        y = self.relu(self.bn1(self.depthwise(x)))
        y = self.relu(self.bn2(self.pointwise(y)))
        return torch.cat([x, y], dim=1)


def transition(channels):
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels // 2, 1),
        nn.AvgPool2d(2),
    )


class DDSNet(nn.Module):
    def __init__(self, classes=6, growth=32, blocks=4, layers=4):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        channels, body = 64, []
        for block in range(blocks):
            for _ in range(layers):
                body.append(Layer(channels, growth))
                channels += growth
            if block < blocks - 1:
                body.append(transition(channels))
                channels //= 2
        self.body = nn.Sequential(*body)
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.body(self.stem(x))
        x = torch.relu(self.bn(x)).mean(dim=(2, 3))
        return self.fc(x)
