"""Trains an adapter in one call: 48 pictures of another artist's style, on the bundled backbone.

    python examples/01_train.py                              # 20 steps, about half a minute on two cores
    python examples/01_train.py --steps 160 --output runs/openmoji

Twenty steps only show the way; `adapt demo` trains 160 and compares the result with its base. The adapter is in
OUTPUT/adapter: the weights file, `adapter.json`, samples and a model card.
"""

import argparse
from pathlib import Path

import adapt

PICTURES = Path(__file__).parent / "data" / "openmoji"


def parser() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps")
    parser.add_argument("--output", type=Path, default=Path("runs/example-01"), help="the run's folder")
    return parser


def main() -> None:
    """Trains, then says what was learned."""
    words = parser().parse_args()
    settings = adapt.TrainSettings(
        steps=words.steps,
        learning_rate=1e-3,
        rank=16,
        validation=str(PICTURES / "held-out"),  # nouns that are not trained on: they choose the step that is kept
        validate_every=10,
        validation_times=4,
        previews=("penguin", "red apple"),
        sampling_steps=10,
    )
    # `fresh`: this example may be run again. Without it a folder that holds a run is refused, never overwritten.
    result = adapt.train(PICTURES / "train", output=words.output, settings=settings, existing="fresh")

    measured = result.held_out
    assert measured is not None, "pictures were held out"
    print(f"adapter   {result.folder / 'adapter'}, step {result.chosen_step}")
    print(f"held-out  {measured.ratio:.3f} of the base's loss, standard error {measured.standard_error:.3f}")
    print(f"proof     diffusers takes all {result.proof.layers} layers and agrees to {result.proof.difference:.0e}")


if __name__ == "__main__":
    main()
