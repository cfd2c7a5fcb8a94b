"""Write a trained generator into a folder that anybody can use and publish: weights, settings, model card.

python launch/export.py RUN --out DIR
"""

from start import command

if __name__ == "__main__":
    command("export")
