"""What reads and measures benchmarks' items, a second of imports, before a process forks."""

import importlib
import os

# A thread of Arrow's allocator would not be in the forks.
os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
importlib.import_module("lm_eval.evaluator")
