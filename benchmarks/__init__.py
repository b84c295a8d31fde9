"""What the farm costs, beside named baselines measured in the same run. `python -m benchmarks --help`."""
