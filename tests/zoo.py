"""Small networks, one for each structure that tracing, cutting, fusing and compiling must handle.

`ZOO` maps a name to a factory ``() -> (module, example_inputs)``. Inputs are float32 ``(2, 3, 32, 32)`` unless the
structure needs otherwise; parameters are drawn from a fixed seed and batch-norm statistics are not the trivial ones,
so that folding them changes numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netcut_fx.graph import TracedModule
from netcut_fx.tracing import trace

Built = tuple[nn.Module, tuple[Tensor, ...]]
CLASSES = 5


class ConvBnRelu(nn.Sequential):
    """Convolution, batch-norm, activation: the unit of most networks here."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU() if activation is None else activation,
        )


class Classifier(nn.Module):
    """Pooling, flatten, linear."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.flatten(self.pool(x))))


class PlainChain(nn.Module):
    """Convolutions one after the other, no repetition of blocks, a view before the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(8, 12, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(12)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(12, 16, 1)
        self.relu3 = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.fc1 = nn.Linear(64, 16)
        self.relu4 = nn.ReLU()
        self.drop = nn.Dropout(0.1)
        self.fc2 = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        x = self.pool(self.relu3(self.conv3(x)))
        x = x.view(x.size(0), -1)
        return self.fc2(self.drop(self.relu4(self.fc1(x))))


class ResidualBlock(nn.Module):
    """Basic block of ResNet; the shortcut is a strided 1x1 convolution where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1, inplace: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=inplace)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.inplace = inplace
        same = stride == 1 and channels_in == channels_out
        self.shortcut = (
            None
            if same
            else nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.shortcut is None else self.shortcut(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.inplace:
            out += identity
        else:
            out = out + identity
        return self.relu(out)


class Residual(nn.Module):
    """Stem and three residual blocks; ``inplace`` uses in-place ReLU and ``+=`` as torchvision does."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.stem = ConvBnRelu(3, 8, stride=2, activation=nn.ReLU(inplace=inplace))
        self.layer1 = nn.Sequential(ResidualBlock(8, 8, 1, inplace), ResidualBlock(8, 8, 1, inplace))
        self.layer2 = nn.Sequential(ResidualBlock(8, 16, 2, inplace), ResidualBlock(16, 16, 1, inplace))
        self.head = Classifier(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer2(self.layer1(self.stem(x))))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, depthwise, project; added to its input where the shape stays."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = channels_in * expand
        layers: list[nn.Module] = [] if expand == 1 else [ConvBnRelu(channels_in, hidden, 1, activation=nn.ReLU6())]
        layers.append(ConvBnRelu(hidden, hidden, 3, stride, hidden, nn.ReLU6()))
        layers += [nn.Conv2d(hidden, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out)]
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNet(nn.Module):
    """MobileNetV2 in small."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBnRelu(3, 8, 3, 2, activation=nn.ReLU6())
        self.blocks = nn.Sequential(
            InvertedResidual(8, 8, 1, 1),
            InvertedResidual(8, 12, 2, 4),
            InvertedResidual(12, 12, 1, 4),
            InvertedResidual(12, 16, 2, 4),
        )
        self.last = ConvBnRelu(16, 32, 1, activation=nn.ReLU6())
        self.head = Classifier(32)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.blocks(self.stem(x))))


class DenseLayer(nn.Module):
    """Pre-activation bottleneck on the concatenation of all earlier features."""

    def __init__(self, channels_in: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, 2 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(2 * growth)
        self.conv2 = nn.Conv2d(2 * growth, growth, 3, 1, 1, bias=False)
        self.relu = nn.ReLU()

    def forward(self, features: list[Tensor]) -> Tensor:
        x = torch.cat(features, 1)
        x = self.conv1(self.relu(self.norm1(x)))
        return self.conv2(self.relu(self.norm2(x)))


class DenseBlock(nn.ModuleDict):
    """All earlier features go into every layer."""

    def __init__(self, layers: int, channels_in: int, growth: int) -> None:
        super().__init__()
        for i in range(layers):
            self.add_module(f"denselayer{i + 1}", DenseLayer(channels_in + i * growth, growth))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.values():
            features.append(layer(features))
        return torch.cat(features, 1)


class Dense(nn.Module):
    """DenseNet in small: two dense blocks with a transition between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBnRelu(3, 8, 3, 2)
        self.block1 = DenseBlock(3, 8, 4)
        self.transition = nn.Sequential(
            nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 10, 1, bias=False), nn.AvgPool2d(2)
        )
        self.block2 = DenseBlock(2, 10, 4)
        self.norm = nn.BatchNorm2d(18)
        self.head = Classifier(18)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block2(self.transition(self.block1(self.stem(x))))
        return self.head(F.relu(self.norm(x)))


class InceptionBlock(nn.Module):
    """Three branches, concatenated over channels."""

    def __init__(self, channels_in: int) -> None:
        super().__init__()
        self.branch1 = ConvBnRelu(channels_in, 4, 1)
        self.branch3 = nn.Sequential(ConvBnRelu(channels_in, 4, 1), ConvBnRelu(4, 6, 3))
        self.branch_pool = ConvBnRelu(channels_in, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.avg_pool2d(x, kernel_size=3, stride=1, padding=1)
        return torch.cat([self.branch1(x), self.branch3(x), self.branch_pool(pooled)], 1)


class Inception(nn.Module):
    """Stem and two inception blocks with a max-pool between."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBnRelu(3, 8, 3, 2)
        self.mixed1 = InceptionBlock(8)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.mixed2 = InceptionBlock(14)
        self.head = Classifier(14)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mixed2(self.pool(self.mixed1(self.stem(x)))))


class SqueezeExciteBlock(nn.Module):
    """Convolution whose channels are scaled by a gate computed from their mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.act = nn.Hardswish()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, 4, 1)
        self.expand = nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn(self.conv(x)))
        gate = torch.sigmoid(self.expand(F.relu(self.reduce(self.pool(x)))))
        return x * gate


class SqueezeExcite(nn.Module):
    """Stem and two squeeze-and-excitation blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBnRelu(3, 8, 3, 2)
        self.blocks = nn.Sequential(SqueezeExciteBlock(8), SqueezeExciteBlock(8))
        self.head = Classifier(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)))


class InplaceRelu(nn.Module):
    """Every ReLU in place, once on a view that shares memory with an earlier value."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(8, 8, 3, 1, 1)
        self.conv3 = nn.Conv2d(8, 8, 3, 1, 1)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.conv1(x))
        x = F.relu(self.conv2(x), inplace=True)
        x = self.conv3(x)
        rows = x.flatten(2)
        rows.relu_()
        return self.fc(x.mean((2, 3)) + rows.mean(2))


class Functional(nn.Module):
    """Functional calls, sizes and shapes as side paths, reshape back and forth, channel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1)
        self.conv2 = nn.Conv2d(8, 8, 3, 1, 1, groups=2)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 8).reshape(1, 8, 1, 1))
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.conv1(x))
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        x = x.view(batch, channels, height, width)
        x = F.gelu(self.conv2(x)) * self.scale
        x = F.adaptive_avg_pool2d(x, (1, 1))
        return self.fc(torch.flatten(x, 1).reshape(x.size(0), -1))


class TwoOutputs(nn.Module):
    """Two heads on one trunk."""

    def __init__(self, as_dict: bool = False) -> None:
        super().__init__()
        self.stem = ConvBnRelu(3, 8, 3, 2)
        self.body = ConvBnRelu(8, 8, 3)
        self.classes = Classifier(8)
        self.boxes = nn.Sequential(ConvBnRelu(8, 6, 3), nn.Conv2d(6, 4, 1))
        self.as_dict = as_dict

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor] | dict[str, Tensor]:
        x = self.body(self.stem(x))
        classes, boxes = self.classes(x), self.boxes(x)
        return {"classes": classes, "boxes": boxes} if self.as_dict else (classes, boxes)


class TwoInputs(nn.Module):
    """An image and a vector that joins late."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBnRelu(3, 8, 3, 2)
        self.body = ConvBnRelu(8, 8, 3)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.side = nn.Linear(6, 8)
        self.join = nn.Linear(16, 12)
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, image: Tensor, vector: Tensor) -> Tensor:
        x = torch.flatten(self.pool(self.body(self.stem(image))), 1)
        x = torch.cat([x, F.relu(self.side(vector))], dim=1)
        return self.fc(F.relu(self.join(x)))


class DeadBranch(nn.Module):
    """A branch with parameters whose result nobody uses."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBnRelu(3, 8, 3, 2)
        self.auxiliary = nn.Sequential(ConvBnRelu(8, 6, 3), nn.Conv2d(6, 4, 1))
        self.body = ConvBnRelu(8, 8, 3)
        self.head = Classifier(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        self.auxiliary(x)
        return self.head(self.body(x))


class Attention(nn.Module):
    """Self-attention by matmul and softmax."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv[0], qkv[1], qkv[2]
        weights = torch.softmax(torch.matmul(query, key.transpose(-2, -1)) * 0.5, dim=-1)
        mixed = torch.matmul(weights, value).transpose(1, 2).reshape(batch, tokens, width)
        return self.proj(mixed)


class TransformerBlock(nn.Module):
    """Pre-norm attention and perceptron, both added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, 2)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Patches to tokens, a class token, positions, two blocks."""

    def __init__(self) -> None:
        super().__init__()
        width = 8
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.class_token = nn.Parameter(torch.full((1, 1, width), 0.1))
        self.positions = nn.Parameter(torch.linspace(-0.2, 0.2, 17 * width).reshape(1, 17, width))
        self.blocks = nn.Sequential(TransformerBlock(width), TransformerBlock(width))
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        token = self.class_token.expand(x.shape[0], -1, -1)
        x = torch.cat([token, x], dim=1) + self.positions
        return self.fc(self.norm(self.blocks(x))[:, 0])


class WindowBlock(nn.Module):
    """Pre-norm attention inside windows of a map ``(N, H, W, C)``, then a perceptron."""

    def __init__(self, width: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, 2)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        side, rows, columns = self.window, height // self.window, width // self.window
        y = self.norm1(x).view(batch, rows, side, columns, side, channels).permute(0, 1, 3, 2, 4, 5)
        y = self.attention(y.reshape(batch * rows * columns, side * side, channels))
        y = y.view(batch, rows, columns, side, side, channels).permute(0, 1, 3, 2, 4, 5)
        x = x + y.reshape(batch, height, width, channels)
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Four neighbours of ``(N, H, W, C)`` become one position."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels_in)
        self.reduce = nn.Linear(4 * channels_in, channels_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[:, 0::2, 0::2, :], x[:, 1::2, 0::2, :], x[:, 0::2, 1::2, :], x[:, 1::2, 1::2, :]]
        return self.reduce(self.norm(torch.cat(parts, -1)))


class Windows(nn.Module):
    """Channels last from the first layer to the mean over positions, as in Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.norm1 = nn.LayerNorm(8)
        self.stage1 = nn.Sequential(WindowBlock(8, 4))
        self.merge = PatchMerging(8, 12)
        self.stage2 = nn.Sequential(WindowBlock(12, 2))
        self.norm2 = nn.LayerNorm(12)
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.patches(x).permute(0, 2, 3, 1))
        x = self.stage2(self.merge(self.stage1(x)))
        return self.fc(self.norm2(x).mean((1, 2)))


class Sequence(nn.Module):
    """Channels first on a sequence ``(N, C, T)``: linear layers mix its positions, as in MLP-Mixer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBnRelu(3, 8, 3, 4)
        self.mix1 = nn.Linear(64, 24)
        self.relu1 = nn.ReLU()
        self.mix2 = nn.Linear(24, 24)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.mix1(self.stem(x).flatten(2)))
        return self.fc((x + self.mix2(x)).mean(2))


def seeded(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every batch-norm statistic and scale anew, so that folding is not the identity; eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            size = part.weight.shape
            part.running_mean = torch.randn(size, generator=generator) * 0.1
            part.running_var = torch.rand(size, generator=generator) + 0.5
            part.weight.data = torch.rand(size, generator=generator) + 0.5
            part.bias.data = torch.randn(size, generator=generator) * 0.1
    return module.eval()


def image(size: int = 32, batch: int = 2, seed: int = 0) -> Tensor:
    """A float32 batch of noise, ``(batch, 3, size, size)``."""
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def _build(make: Callable[[], nn.Module], *more_inputs: Tensor) -> Callable[[], Built]:
    def factory() -> Built:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = make()
        return seeded(module), (image(), *more_inputs)

    return factory


ZOO: dict[str, Callable[[], Built]] = {
    "plain_chain": _build(PlainChain),
    "residual": _build(Residual),
    "residual_inplace": _build(lambda: Residual(inplace=True)),
    "inverted_residual": _build(MobileNet),
    "dense": _build(Dense),
    "inception": _build(Inception),
    "squeeze_excite": _build(SqueezeExcite),
    "inplace_relu": _build(InplaceRelu),
    "functional": _build(Functional),
    "two_outputs": _build(TwoOutputs),
    "dict_output": _build(lambda: TwoOutputs(as_dict=True)),
    "two_inputs": _build(TwoInputs, torch.linspace(-1, 1, 12).reshape(2, 6)),
    "dead_branch": _build(DeadBranch),
    "transformer": _build(Transformer),
    "windows": _build(Windows),
    "sequence": _build(Sequence),
}


def traced_zoo(name: str) -> TracedModule:
    """A network of the zoo, traced under its own name."""
    module, inputs = ZOO[name]()
    return trace(module, inputs, name=name)
