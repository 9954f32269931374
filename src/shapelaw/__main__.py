"""`python -m shapelaw VERB [OPTION=VALUE ...]`."""

import sys

from shapelaw.verbs.replay import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
