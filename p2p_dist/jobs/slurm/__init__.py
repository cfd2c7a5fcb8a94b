"""Slurm from the submit host: job specifications, queries, submission, launch. No job calls this."""
