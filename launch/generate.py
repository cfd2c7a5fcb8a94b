"""Generate a new stem for songs with a trained model: drums for a song without drums.

python launch/generate.py SONG
"""

from start import command

if __name__ == "__main__":
    command("generate")
