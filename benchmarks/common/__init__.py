"""What the benchmarks share; no benchmark imports another."""
