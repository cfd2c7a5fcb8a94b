"""What tests/benchmarks/gpu.py measures, a module a part."""
