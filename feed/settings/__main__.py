"""`python -m feed.settings` prints the table of all settings, in Markdown."""

import sys

from feed.settings.table import table

if __name__ == "__main__":
    sys.stdout.write(table())
