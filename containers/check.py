"""Check whether jobs can run in an image. Run it inside the image, with the image's Python. Exit code 1 if a check fails.

    python check.py [--version VERSION]

VERSION: version of p2p_dist on the machine that queues the jobs.
"""

import argparse
import importlib.metadata
import json
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE if (HERE / "p2p_dist").is_dir() else HERE.parent))


def labels():
    """Return the labels of the image that this process runs in; empty outside an image."""
    path = Path("/.singularity.d/labels.json")
    return json.loads(path.read_text()) if path.is_file() else {}


def check_torch():
    """Check that torch is built for ROCm. The tests' image, which has a label, does not need it."""
    import numpy
    import torch

    if torch.version.hip is None and labels().get("p2p.standin") != "1":
        raise ValueError(
            f"torch {torch.__version__} is not built for ROCm (torch.version.hip is None): the base is the wrong one"
        )
    return f"torch {torch.__version__}, HIP {torch.version.hip}, numpy {numpy.__version__}"


def check_versions(version):
    """Check that p2p_dist has the same version as on the machine that queues the jobs, if that is known."""
    import p2p_dist

    if version not in (None, "unknown", p2p_dist.__version__):
        raise ValueError(f"p2p_dist {p2p_dist.__version__} is here, {version} there")
    return f"p2p_dist {p2p_dist.__version__}, submitit {importlib.metadata.version('submitit')}"


def check_sound():
    """Check that one second of audio survives AAC (the codec of MUSDB18), FLAC and resampling."""
    import av
    import numpy as np
    import soundfile
    import soxr

    sine = 0.5 * np.sin(2 * np.pi * 440 * np.arange(44100) / 44100).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mp4"
        with av.open(path, "w") as container:
            stream = container.add_stream("aac", rate=44100, layout="mono")
            frame = av.AudioFrame.from_ndarray(sine[None], format="fltp", layout="mono")
            frame.sample_rate = 44100
            for packet in (*stream.encode(frame), *stream.encode(None)):
                container.mux(packet)
        with av.open(path) as container:
            decoded = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        soundfile.write(Path(folder) / "a.flac", decoded, 44100)
        read, rate = soundfile.read(Path(folder) / "a.flac", dtype="float32")
    half = soxr.resample(read, rate, 22050)
    loudness = float(np.sqrt(np.mean(half[2000:-2000] ** 2)))
    if abs(loudness - 0.5 / np.sqrt(2)) > 0.02:
        raise ValueError(f"a tone of 0.354 came back as {loudness:.3f}")
    return f"AAC and FLAC come back as they were ({loudness:.3f} of 0.354)"


def check_step():
    """Check that one training step of small networks works."""
    from p2p_dist.checks.preflight.training_step import one_step
    from p2p_dist.train.distributed import start

    return one_step(start()[0])


def main():
    """Run all checks; return exit code 0 if none fails."""
    parser = argparse.ArgumentParser(description="Check an image from inside.")
    parser.add_argument("--version")
    asked = parser.parse_args()
    checks = {
        "torch": check_torch,
        "versions": lambda: check_versions(asked.version),
        "sound": check_sound,
        "step": check_step,
    }
    bad = 0
    for name, check in checks.items():
        try:
            print(f"{name}: {check()}", flush=True)
        except Exception as error:  # a broken image may raise anything; run the other checks, too
            bad += 1
            print(f"{name}: FAILED: {type(error).__name__}: {error}", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
