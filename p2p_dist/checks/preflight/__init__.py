"""The preflight: one short job that checks everything a training needs."""
