"""Slurm from the submit host: specifications of jobs, sbatch, squeue, launches. Jobs do not use it, except batch.py."""
