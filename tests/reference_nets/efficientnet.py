"""EfficientNet-B0 (Tan, Le, ICML 2019), Table 1."""

import torch
from torch import nn

# expansion, kernel, stride, channels, layers
TABLE = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def unit(in_channels, out_channels, kernel, stride=1, groups=1, act=True):
    layers = [
        nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(out_channels),
    ]
    return nn.Sequential(*layers, *([nn.SiLU()] if act else []))


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self, channels, squeezed):
        super().__init__()
        self.down = nn.Conv2d(channels, squeezed, 1)
        self.up = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x):
        gate = x.mean(dim=(2, 3), keepdim=True)
        gate = nn.functional.silu(self.down(gate))
        return x * torch.sigmoid(self.up(gate))


class MBConv(nn.Module):
    """An inverted bottleneck with a gate of a quarter of its input channels."""

    def __init__(self, in_channels, out_channels, expand, kernel, stride, drop):
        super().__init__()
        wide = in_channels * expand
        self.layers = nn.Sequential(
            unit(in_channels, wide, 1) if expand > 1 else nn.Identity(),
            unit(wide, wide, kernel, stride, groups=wide),
            Gate(wide, in_channels // 4),
            unit(wide, out_channels, 1, act=False),
        )
        self.residual = stride == 1 and in_channels == out_channels
        self.drop = drop

    def forward(self, x):
        y = self.layers(x)
        if not self.residual:
            return y
        if self.training:
            keep_mask = torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= self.drop
            y = y * keep_mask / (1 - self.drop)
        return x + y


class EfficientNetB0(nn.Module):
    def __init__(self, classes=2, drop=0.2):
        super().__init__()
        total = sum(layers for *_, layers in TABLE)
        stages = [unit(3, 32, 3, stride=2)]
        in_channels, index = 32, 0
        for expand, kernel, stride, out_channels, layers in TABLE:
            for repeat_index in range(layers):
                step = 1 if repeat_index else stride
                stages.append(
                    MBConv(in_channels, out_channels, expand, kernel, step, drop * index / total)
                )
                in_channels, index = out_channels, index + 1
        self.layers = nn.Sequential(*stages, unit(in_channels, 1280, 1))
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x):
        return self.head(self.layers(x).mean(dim=(2, 3)))
