"""`epigone` and `python -m epigone`: the command line."""

import sys


def main() -> None:
    """Run the command line; exit code 130 where it is interrupted before it can act on it."""
    try:
        from epigone.cli import main as run
    except KeyboardInterrupt:
        print("epigone: interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
