"""Two small lm-eval benchmarks: give this directory to ``TaskManager(include_path=...)``."""
