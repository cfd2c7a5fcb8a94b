"""The settings of a run as frozen dataclasses, their presets, and YAML in and out. Nothing here reads a run or a song."""
