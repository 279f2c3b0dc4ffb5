"""``facts``: open questions with short answers, scored by normalised exact match."""
