"""MobileNetV2 (Sandler et al., CVPR 2018), Table 2, with a width multiplier."""

from torch import nn

# t, c, n, s
TABLE = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def scaled(channels, width):
    """Return a multiple of 8 that is at least 90 % of the product."""
    exact_width = channels * width
    rounded_width = max(8, int(exact_width + 4) // 8 * 8)
    return rounded_width + 8 if rounded_width < 0.9 * exact_width else rounded_width


def unit(in_channels, out_channels, kernel, stride=1, groups=1, act=True):
    layers = [
        nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(out_channels),
    ]
    return nn.Sequential(*layers, *([nn.ReLU6()] if act else []))


class InvertedResidual(nn.Module):
    def __init__(self, in_channels, out_channels, stride, t):
        super().__init__()
        wide = in_channels * t
        self.layers = nn.Sequential(
            unit(in_channels, wide, 1) if t > 1 else nn.Identity(),
            unit(wide, wide, 3, stride, groups=wide),
            unit(wide, out_channels, 1, act=False),
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x):
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileNetV2(nn.Module):
    def __init__(self, classes=2, width=0.5):
        super().__init__()
        in_channels = scaled(32, width)
        layers = [unit(3, in_channels, 3, stride=2)]
        for t, c, n, s in TABLE:
            out_channels = scaled(c, width)
            for index in range(n):
                layers.append(InvertedResidual(in_channels, out_channels, 1 if index else s, t))
                in_channels = out_channels
        head_width = scaled(1280, max(1.0, width))
        layers.append(unit(in_channels, head_width, 1))
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(head_width, classes))

    def forward(self, x):
        return self.head(self.layers(x).mean(dim=(2, 3)))
