"""Shows what a push to the Hub would send, and sends it when asked.

    python examples/05_share.py --adapter runs/example-01/adapter --repository me/my-style
    python examples/05_share.py --adapter runs/example-01/adapter --repository me/my-style --send

Without `--send` nothing leaves the machine, and neither a login nor a network is needed.
"""

import argparse
from pathlib import Path

import adapt


def parser() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, default=Path("runs/example-01/adapter"), help="an adapter's folder")
    parser.add_argument("--repository", default="me/my-style", help="user/name on the Hub")
    parser.add_argument("--data-license", default="cc-by-sa-4.0", help="licence of the training pictures")
    parser.add_argument("--send", action="store_true", help="push it; asks for a login")
    return parser


def main() -> None:
    """Prints every file with its size and what should be known; then the page's address where it was sent."""
    words = parser().parse_args()
    done = adapt.push(
        words.adapter,
        words.repository,
        data_license=words.data_license,
        data_source="OpenMoji",
        dry_run=not words.send,
    )
    print("\n".join(done.plan.lines()))
    print(f"sent: {done.url}" if done.commit else "nothing was sent; --send does it")


if __name__ == "__main__":
    main()
