"""Diffusion inpainting on masked MNIST in one file. Run: python ddpm_inpainting.py --minutes 3 --out digits.png

A small U-Net learns to predict the noise in the missing pixels of a digit, given the observed pixels and the mask
(DDPM, Ho et al. 2020, arXiv:2006.11239). The reverse process then draws several samples of the missing pixels.
Images are float32 [B, 1, 28, 28] in [-1, 1]. Masks are bool, True = missing. Score and figure use test digits only.
"""

import argparse
import gzip
import itertools
import os
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

# ---- data ----
SHA256 = {"train-images-idx3-ubyte.gz": "440fcabf73cc546f", "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79"}  # prefixes


def load_digits(folder, name):
    """All digits of one MNIST file. A missing file is downloaded to the folder."""
    path = Path(folder, name)
    if not path.exists():  # torch.hub writes to a temporary name, checks the hash, then renames
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file("https://ossci-datasets.s3.amazonaws.com/mnist/" + name, str(path), SHA256[name])
    pixels = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16)  # after the IDX header
    return torch.from_numpy(pixels.reshape(-1, 1, 28, 28) / np.float32(127.5) - 1)


# ---- masks ----
y, x = np.mgrid[:28, :28]
FIXED = {"half:left": x < 14, "half:right": x >= 14, "half:top": y < 14, "half:bottom": y >= 14, "all": x >= 0}
FAMILIES = [*FIXED, "box", "pixels"]  # equally likely in training


def draw_masks(families, rng):
    """One mask for each name in ``families``, bool [B, 1, 28, 28]."""
    masks = []
    for family in families:
        (top, left), (height, width) = rng.integers(0, 18, size=2), rng.integers(6, 22, size=2)
        box = (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
        pixels = rng.random((28, 28)) < rng.uniform(0.3, 1.0)
        masks.append({**FIXED, "box": box, "pixels": pixels}[family])
    return torch.from_numpy(np.stack(masks))[:, None]


# ---- forward process, with the cosine schedule of Nichol and Dhariwal 2021, eq. 17 ----
T = 1000  # the noisiest timestep; t = 0 is the clean image
TIMESTEPS = torch.linspace(T, 0, 46).long()  # those of the reverse process
cosine = torch.cos((torch.arange(T + 1, dtype=torch.float64) / T + 0.008) / 1.008 * np.pi / 2) ** 2
betas = (1 - cosine[1:] / cosine[:-1]).clamp(max=0.999)
ALPHA_BAR = torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - betas, dim=0)])  # [T + 1]
SIGNAL, NOISE = (scale.float().view(-1, 1, 1, 1) for scale in (ALPHA_BAR.sqrt(), (1 - ALPHA_BAR).sqrt()))


def q_sample(x0, t, eps):
    """x_t from x_0 and noise eps ~ N(0, I), for timesteps t int64 [B]."""
    return SIGNAL[t] * x0 + NOISE[t] * eps  # Ho et al. 2020, eq. 4


# ---- network ----
def convolutions(width):
    """The residual branch of a block, [B, width, H, W] -> [B, width, H, W]."""
    first, second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
    return nn.Sequential(nn.GroupNorm(8, width), first, nn.SiLU(), second)


class UNet(nn.Module):
    """Predicts the noise. 2 x 2 pixels are folded into channels, so that it runs at 14 x 14 and 7 x 7: fast on CPUs."""

    def __init__(self, width=32, wide=128):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(64, wide), nn.SiLU(), nn.Linear(wide, width + wide))
        self.stem = nn.Conv2d(3 * 4, width, 3, padding=1)
        self.down, self.up = convolutions(width), convolutions(width)
        self.shrink = nn.Conv2d(width, wide, 2, stride=2)
        self.middle = nn.ModuleList([convolutions(wide), convolutions(wide)])
        self.norm, self.attention = nn.LayerNorm(wide), nn.MultiheadAttention(wide, 2, batch_first=True)
        self.grow = nn.ConvTranspose2d(wide, width, 2, stride=2)
        self.head = nn.Conv2d(width, 4, 3, padding=1)
        self.to(memory_format=torch.channels_last)

    def forward(self, x_t, observed, mask, t):
        """eps, like x_t. ``observed`` is 0 where pixels are missing; t is int64 [B]."""
        angle = t[:, None] * torch.exp(-np.log(10_000) * torch.arange(32) / 32)
        time = self.time(torch.cat([angle.sin(), angle.cos()], dim=1))[:, :, None, None]
        time_14, time_7 = time.split([self.stem.out_channels, self.shrink.out_channels], dim=1)
        planes = pixel_unshuffle(torch.cat([x_t * mask, observed, mask.float()], dim=1), 2)
        h = self.stem(planes.contiguous(memory_format=torch.channels_last)) + time_14
        skip = h + self.down(h)
        h = self.shrink(skip) + time_7
        h = h + self.middle[0](h)
        pixels = self.norm(h.flatten(2).transpose(1, 2))  # [B, 49, wide]
        h = h + self.attention(pixels, pixels, pixels)[0].transpose(1, 2).view_as(h)
        h = skip + self.grow(h + self.middle[1](h))
        v = pixel_shuffle(self.head(h + self.up(h)), 2)
        return NOISE[t] * x_t + SIGNAL[t] * v  # v has unit scale at all t (Salimans and Ho 2022, appendix D)


# ---- loss and training ----
def loss(net, x0, mask, t, eps):
    """Mean squared error of the predicted noise over missing pixels."""
    eps_hat = net(q_sample(x0, t, eps), x0 * ~mask, mask, t)
    return ((eps - eps_hat) ** 2 * mask).sum() / mask.sum()  # Ho et al. 2020, eq. 14


def train(net, digits, minutes, steps, rng, batch=32, rate=3e-3):
    """Train for some minutes, or for ``steps`` if given; returns the network with the EMA of the weights."""
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    optimiser = torch.optim.AdamW(net.parameters(), betas=(0.9, 0.99))
    began, step, done = time.monotonic(), 0, 0.0
    while done < 1:
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, 20 * done) * (1 - done)  # warm-up, then linear decay
        x0 = digits[rng.integers(len(digits), size=batch)]
        mask = draw_masks(rng.choice(FAMILIES, size=batch), rng)
        t = torch.from_numpy(np.ceil(T * np.sqrt(1 - rng.random(batch)))).long()  # p(t) proportional to t, not uniform
        error = loss(net, x0, mask, t, torch.randn_like(x0))
        optimiser.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        average.update_parameters(net)
        step += 1
        done = step / steps if steps else (time.monotonic() - began) / (60 * minutes)
        if step % 100 == 0:
            print(f"step {step}, {100 * done:.0f} %, loss {error.item():.3f}", flush=True)
    return average


# ---- reverse process ----
@torch.no_grad()
def sample(net, digits, mask):
    """Draw the missing pixels of digits; returns x_t at all TIMESTEPS, the last of which is the sample."""
    observed = digits * ~mask
    chain = [torch.where(mask, torch.randn_like(digits), observed)]
    for t, s in itertools.pairwise(TIMESTEPS):
        x_t, a_t, a_s, step = chain[-1], ALPHA_BAR[t], ALPHA_BAR[s], ALPHA_BAR[t] / ALPHA_BAR[s]
        eps_hat = net(x_t, observed, mask, t.expand(len(x_t)))
        x0_hat = ((x_t - NOISE[t] * eps_hat) / SIGNAL[t]).clamp(-1, 1)  # eq. 15
        mean = (a_s.sqrt() * (1 - step) * x0_hat + step.sqrt() * (1 - a_s) * x_t) / (1 - a_t)  # eq. 7, for any s < t
        variance = (1 - a_s) * (1 - step) / (1 - a_t)
        x_s = mean + variance.sqrt() * torch.randn_like(mean)  # a draw from q(x_s | x_t, x_0): eq. 6
        chain.append(torch.where(mask, x_s, observed))
    return chain


# ---- evaluation ----
def crps(samples, truth, mask):
    """CRPS of K samples [N, K, 28, 28] over missing pixels, unbiased in K, for intensities in [0, 1]; MAE if K = 1."""
    k = samples.shape[1]
    error = (samples - truth).abs().mean(1, keepdim=True)
    pairs = (samples[:, :, None] - samples[:, None]).abs().sum((1, 2)) / max(1, k * (k - 1))
    return (error - pairs[:, None] / 2)[mask].mean().item() / 2  # from [-1, 1] to [0, 1]


# ---- figure ----
def draw_figure(net, digits, families, path, rng):
    """A table of images: the forward process, the reverse process, then samples for each masked digit."""
    mask = draw_masks(families, rng)
    chain = sample(net, digits.repeat_interleave(7, dim=0), mask.repeat_interleave(7, dim=0))
    forward = q_sample(digits[:1], TIMESTEPS[::5].flip(0), torch.randn(1, 1, 28, 28)).view(1, 10, 28, 28)
    reverse = torch.cat([x_t[:1] for x_t in chain[::5]], dim=1)
    samples = chain[-1].view(-1, 7, 28, 28)
    answers = torch.cat([digits.masked_fill(mask, np.nan), samples, samples.mean(1, keepdim=True), digits], dim=1)
    table = pad(torch.cat([forward, reverse, answers]).clamp(-1, 1), (1, 1, 1, 1))  # [rows, 10 columns, 30, 30]
    plt.figure(figsize=(10, len(table)))
    plt.imshow(table.permute(0, 2, 1, 3).flatten(2).flatten(0, 1), plt.get_cmap("gray").with_extremes(bad="steelblue"))
    plt.xticks(15 + 30 * np.arange(10), ["masked"] + 7 * ["sample"] + ["mean", "original"])
    plt.yticks(15 + 30 * np.arange(len(table)), ["forward process", "reverse process", *families])
    plt.savefig(path, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "inkfill")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("INKFILL_DATA") or cache, help="folder of MNIST's .gz files")
    parser.add_argument("--out", type=Path, default="ddpm_inpainting.png", help="figure to write")
    parser.add_argument("--minutes", type=float, default=3.0, help="training time")
    parser.add_argument("--steps", type=int, help="training steps, instead of --minutes")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    train_digits = load_digits(options.data, "train-images-idx3-ubyte.gz")[:55_000]
    test_digits = load_digits(options.data, "t10k-images-idx3-ubyte.gz")[:200]
    net = train(UNet(), train_digits, options.minutes, options.steps, rng)
    draw_figure(net, test_digits[:6], ["half:left"] * 2 + ["half:top", "half:right", "box", "pixels"], options.out, rng)
    mask = draw_masks(["half:left"] * len(test_digits), rng)
    distances = torch.cdist((test_digits * ~mask).flatten(1), (train_digits * ~mask[:1]).flatten(1))
    nearest = train_digits[distances.topk(4, largest=False).indices, 0]
    samples = torch.cat([sample(net, test_digits, mask)[-1] for _ in range(4)], dim=1)
    scores = [crps(images, test_digits, mask) for images in (samples, train_digits.mean(0, keepdim=True), nearest)]
    print("half:left CRPS {:.4f} (training mean {:.4f}, nearest digits {:.4f})".format(*scores))
