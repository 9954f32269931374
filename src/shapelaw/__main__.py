"""`python -m shapelaw VERB [GROUP=CHOICE ...] [KEY=VALUE ...]`: any door; without a verb, the list of them."""

from shapelaw.verbs.main import run_verb

if __name__ == "__main__":
    run_verb()
