"""Preprocess songs to shards without a run: what the first stage of launch/submit.py does.

python launch/preprocess.py --data DIR --out DIR --task drums,bass
"""

from start import command

if __name__ == "__main__":
    command("preprocess")
