"""How the tables of a rating database came to be, version by version."""
