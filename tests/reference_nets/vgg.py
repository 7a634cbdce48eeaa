"""VGG (Simonyan, Zisserman, 2014): configuration A, and D with batch norm and global pooling."""

from torch import nn

A = (1, 1, 2, 2, 2)
D = (2, 2, 3, 3, 3)
WIDTHS = (64, 128, 256, 512, 512)


def features(depths, norm, last_pool):
    layers, in_channels = [], 3
    for width, depth in zip(WIDTHS, depths, strict=True):
        for _ in range(depth):
            layers += [nn.Conv2d(in_channels, width, 3, padding=1)]
            layers += [nn.BatchNorm2d(width)] if norm else []
            layers += [nn.ReLU()]
            in_channels = width
        layers += [nn.MaxPool2d(2, 2)]
    return nn.Sequential(*(layers if last_pool else layers[:-1]))


class Vgg11(nn.Module):
    def __init__(self, classes=7):
        super().__init__()
        self.features = features(A, norm=False, last_pool=True)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, classes),
        )

    def forward(self, x):
        return self.classifier(self.features(x))


class Vgg16Gap(nn.Module):
    """VGG16 without the last pooling. `cam`: filters of a class-activation convolution, if any."""

    def __init__(self, classes=2, cam=0):
        super().__init__()
        self.features = features(D, norm=True, last_pool=False)
        self.cam = nn.Sequential(nn.Conv2d(512, cam, 3, padding=1), nn.ReLU()) if cam else None
        self.fc = nn.Linear(cam or 512, classes)

    def forward(self, x):
        x = self.features(x)
        x = self.cam(x) if self.cam else x
        return self.fc(x.mean(dim=(2, 3)))
