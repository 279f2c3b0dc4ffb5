"""`python -m epigone` is the command line."""

from epigone.cli import main

if __name__ == "__main__":
    main()
