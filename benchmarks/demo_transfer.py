"""Does the demo's adapter carry over to nouns that nothing was chosen by?

    python benchmarks/demo_transfer.py NOTO.tgz OPENMOJI.tgz --adapter runs/demo/adapter --json transfer.json

The 16 held-out pictures chose the step, and the recipe was tuned while looking at them: they are no test. Here 100 other
OpenMoji pictures are drawn by lot from the nouns that `icons` knows. The loss is the plain one, over all times and against
the pictures, also where an anchored adapter was told to follow the base. The packages come from
`npm pack @iconify-json/noto@1.2.9 @iconify-json/openmoji@1.2.29`; needs the extra `icons`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np
import torch

import adapt
from adapt.data import decode, find, fit, pixels
from adapt.evaluation.held_out import HeldOut, Measurement, compare

ROOT = Path(__file__).parents[1]
DATA = ROOT / "examples" / "data" / "openmoji"
LEFT_OUT = re.compile(r"face|clock")


def measure(adapter: adapt.Adapter, pictures: list[np.ndarray], captions: list[str]) -> Measurement:
    """Plain loss of the base and of the adapter on these pictures, each (64, 64, 3) uint8."""
    backbone = adapt.Backbone.load("icons")
    x = torch.cat([backbone.encode_media(pixels(picture)[None])[0] for picture in pictures])
    held_out, objective = HeldOut(x, backbone.condition(captions), times=8, batch=16), backbone.objective()
    base = held_out.losses(backbone, objective)
    with adapter.apply(backbone):
        return compare(0, held_out.losses(backbone, objective), base)


def shipped() -> tuple[list[np.ndarray], list[str]]:
    """The 16 pictures that chose the step."""
    found = find(DATA / "held-out").pictures
    return [fit(decode(p.read()), 64, 64) for p in found], [p.captions[0] for p in found]


def fresh(noto: Path, openmoji: Path, count: int) -> tuple[list[np.ndarray], list[str]]:
    """Other nouns, by lot: known to `icons`, drawn by OpenMoji, in neither folder of the example data."""
    sys.path.insert(0, str(ROOT / "training_scripts" / "icons"))
    import iconify
    from prepare import on_white

    known, drawn = iconify.read(noto), iconify.read(openmoji)
    categories = set(iconify.CATEGORIES) - {"Smileys & Emotion"}
    used = {caption for part in ("train", "held-out") for p in find(DATA / part).pictures for caption in p.captions}
    names = [n for n in sorted(known.names()) if known.categories.get(n) in categories and n in drawn.names()]
    names = [n for n in names if iconify.caption(n) not in used and not LEFT_OUT.search(n)]
    chosen = np.random.default_rng(0).permutation(names)[:count].tolist()
    return [on_white(drawn.render(n, 256), 64) for n in chosen], [iconify.caption(n) for n in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("noto", type=Path, help="the package's .tgz")
    parser.add_argument("openmoji", type=Path, help="the package's .tgz")
    parser.add_argument("--adapter", type=Path, default=Path("runs/demo/adapter"))
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    words = parser.parse_args()
    adapter = adapt.Adapter.load(words.adapter)
    sets = {"chose the step": shipped(), "drawn by lot": fresh(words.noto, words.openmoji, words.count)}
    results = {name: measure(adapter, *pictures).as_dict() for name, pictures in sets.items()}
    for name, m in results.items():
        figures = f"{m['base']:.4f} → {m['loss']:.4f}  ratio {m['ratio']:.3f}  {m['change']:.1f} SE"
        print(f"{name:15} {m['pictures']:4} pictures  {figures}")
    if words.json:
        words.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
