"""What runs in the sandbox: text that is sent there, of the standard library alone."""
