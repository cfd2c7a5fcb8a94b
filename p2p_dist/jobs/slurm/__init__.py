"""Slurm from the submit host: what jobs ask for (specs), sbatch, squeue, whole launches. No job calls this."""
