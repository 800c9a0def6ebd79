"""``python -m nucpro``."""

from nucpro.cli import entry

if __name__ == "__main__":
    entry()
