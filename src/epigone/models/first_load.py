"""What the first model that a process loads builds and keeps: imported before a process forks."""

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

# The names of weights of all architectures, a thousand patterns to compile.
get_checkpoint_conversion_mapping("llama")
