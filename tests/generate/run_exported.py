"""Run an exported generator with torch and safetensors alone; p2p_dist is not needed.

python run_exported.py FOLDER IN.safetensors OUT.safetensors [SEED]

IN holds `input`, dB over the reference (windows, pictures, mels, frames), and `noise` where the network has noise channels.
"""

import json
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

folder, source, target, *seed = sys.argv[1:]
config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
network, scaling = config["network"], config["scaling"]
weights = {name: tensor.float() for name, tensor in load_file(f"{folder}/model.safetensors").items()}


def norm(x, name):
    weight, bias, epsilon = weights[f"{name}.norm.weight"], weights[f"{name}.norm.bias"], network["norm_epsilon"]
    if network["norm"] == "group":
        return F.group_norm(x, math.gcd(network["norm_groups"], x.shape[1]), weight, bias, epsilon)
    variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
    return (x - mean) / torch.sqrt(variance + epsilon) * weight[:, None, None] + bias[:, None, None]


def double(x, name):
    if network["upsample"] == "transposed":
        return F.conv_transpose2d(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), 2, 1)
    return F.conv2d(F.interpolate(x, scale_factor=2), weights[f"{name}.1.weight"], weights.get(f"{name}.1.bias"), padding=1)


def generate(x):
    skips = []
    for level in range(network["depth"]):
        x = F.conv2d(x, weights[f"down.{level}.convolution.weight"], stride=2, padding=1)
        x = F.leaky_relu(norm(x, f"down.{level}") if level else x, network["leaky_slope"])
        skips.append(x)
    for level in range(network["depth"] - 1):
        x = norm(double(x, f"up.{level}.doubling"), f"up.{level}")
        if network["dropout"] and f"up.{level}" in network["dropout_layers"]:
            x = F.dropout(x, network["dropout"])
        x = torch.cat((F.relu(x), skips[-2 - level]), dim=1)
    return torch.tanh(double(x, "last"))


given = load_file(source)
low, high = scaling["floor_db"], scaling["ceiling_db"]
x = (given["input"].float() - low) * 2 / (high - low) - 1
if network["noise_channels"]:
    x = torch.cat((x, given["noise"]), dim=1)
torch.manual_seed(int(seed[0]) if seed else 0)
output = torch.cat([generate(window) for window in x.split(1)])  # one window after the other
save_file({"output": (output + 1) * (high - low) / 2 + low}, target)
