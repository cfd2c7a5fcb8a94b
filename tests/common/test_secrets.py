"""Secrets whose shape is known are masked, and nothing else is."""

import time

import pytest

from p2p_dist.common import secrets

KEY = "q7Rz2Lw9Xc4Vb8Nm1Kd5"


@pytest.mark.parametrize(
    "text",
    [
        f"hf_{KEY}",
        f"AKIA{KEY.upper()}",
        f"ghp_{KEY}",
        f"github_pat_{KEY}",
        f"glpat-{KEY}",
        f"https://me:{KEY}@host/x.git",
        f"https://host/x?part=1&X-Amz-Signature={KEY}",
        f"https://host/x?sig={KEY}",
        f"https://{KEY}@host/x.git",
        f"+HF_TOKEN = '{KEY}'",
        f"+export WANDB_API_KEY={KEY}",
        f'+    "password": "{KEY}",',
        f"+aws_secret_access_key = {KEY}",
        f"+curl --auth-token {KEY} x",
        f"+curl --token={KEY}",
        f"Authorization: Bearer {KEY}",
        f"Authorization: Basic {KEY}",
        f"-----BEGIN RSA PRIVATE KEY-----\n{KEY}\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_a_secret_is_masked(text):
    masked = secrets.mask(f"+before = 1\n{text}\n+after = 2")
    assert KEY.lower() not in masked.lower()
    assert masked.startswith("+before = 1\n") and masked.endswith("\n+after = 2") and secrets.MASK in masked


def test_a_long_word_is_searched_once():
    """From each of its letters anew, this took three minutes."""
    begun = time.process_time()
    assert secrets.mask("a-" * 30_000) == "a-" * 30_000
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    "text",
    [
        "+learning_rate = 2e-4",
        "https://host/x?signed=no&design=a",
        "+# half_done, see https://host/a@b",
        "runs/hf_x",
        "--train.steps 100",
        "tokens per second",
        "Basic instructions",
    ],
)
def test_what_is_no_secret_stays(text):
    assert secrets.mask(text) == text
