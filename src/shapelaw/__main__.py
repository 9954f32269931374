"""`python -m shapelaw VERB [GROUP=CHOICE ...] [KEY=VALUE ...]`: runs a verb; without one, it lists them."""

from shapelaw.verbs.main import run_verb

if __name__ == "__main__":
    run_verb()
