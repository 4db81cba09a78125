"""`python -m adapt`, and `accelerate launch -m adapt`."""

from adapt.cli.main import run

if __name__ == "__main__":
    run()
