"""``choices``: four-way questions in seven subjects, scored by the likeliest letter."""
