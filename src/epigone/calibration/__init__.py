"""A study of an invented world whose truth is known: a control of the instrument."""
