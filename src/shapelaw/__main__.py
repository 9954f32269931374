"""`python -m shapelaw VERB [OPTION=VALUE ...]`."""

import sys

from shapelaw.verbs import migrate, replay

if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(migrate.main(words[1:]) if words[:1] == ["migrate"] else replay.main(words))
