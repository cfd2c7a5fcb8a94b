"""The list of torch names is complete, and the torch that is installed has them."""

from __future__ import annotations

import io
import re
import sys
import tokenize

from p2p_dist.checks.preflight import torch_names


def test_installed_torch_has_them():
    assert torch_names.missing(torch_names.used()) == []


def test_list_is_complete():
    """Read again in another way: tokens instead of a syntax tree, as far as that goes."""
    names = set(torch_names.used())
    for path in torch_names.PACKAGE.rglob("*.py"):
        text = path.read_text()
        aliases = {"torch": "torch"}
        for line in re.findall(r"^\s*import (torch\S*) as (\w+)", text, re.M):
            aliases[line[1]] = line[0]
        for module, imported in re.findall(r"^\s*from (torch\S*) import (.+)", text, re.M):
            for name in re.split(r",\s*", imported.split("#")[0].strip()):
                aliases[name] = f"{module}.{name}"
        if not re.search(r"^\s*(import|from) torch", text, re.M):
            continue
        words = [
            token.string
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
            if token.type in (tokenize.NAME, tokenize.OP)
        ]
        for position, word in enumerate(words):
            if word not in aliases or words[position - 1] in (".", "import", "from", "as") or words[position + 1] == "=":
                continue
            name, at = aliases[word], position
            while words[at + 1] == ".":
                name, at = f"{name}.{words[at + 2]}", at + 2
            assert name in names, f"{path}: {name}"
    assert len(names) > 60
    assert {"torch.nn.parallel.DistributedDataParallel", "torch.optim.Adam", "torch.distributed.all_reduce"} <= names


def test_a_missing_name_is_told(tmp_path):
    (tmp_path / "new.py").write_text(
        "import torch.nn.functional as F\nfrom torch import nn, optim as o\n"
        "F.of_tomorrow(1)\no.Adam([], lr=1, faster=True)\nnn.Linear(1, 2, bias=False)\n"
    )
    names = torch_names.used(tmp_path)
    assert names["torch.optim.Adam"] == {"lr", "faster"}
    assert torch_names.missing(names) == ["torch.nn.functional.of_tomorrow", "torch.optim.Adam(faster=)"]


def test_a_package_that_torch_wraps_may_be_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.delattr("torch.utils.tensorboard", raising=False)
    names = {"torch.utils.tensorboard.SummaryWriter": set()}
    assert torch_names.missing(names) == ["torch.utils.tensorboard.SummaryWriter"]
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard")
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard" or "torch.utils.tensorboard" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert torch_names.missing(names) == []


def test_newer_and_deprecated_names_stand_in_one_place():
    """What torch 2.9 calls otherwise than 2.13 is chosen where DDP is made, and nowhere else."""
    found = [
        path.name
        for path in torch_names.PACKAGE.rglob("*.py")
        if re.search(r"forward_sync_buffers|broadcast_buffers", path.read_text())
    ]
    assert found == ["distributed.py"]
