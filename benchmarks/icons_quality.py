"""How good is `icons`: does it draw what it is asked for, and can an adapter change it?

    python training_scripts/icons/prepare.py DATA --size 64
    python training_scripts/icons/prepare.py OPENMOJI --size 64 --packages openmoji@1.2.29 --plain
    python benchmarks/icons_quality.py DATA --openmoji OPENMOJI --out runs/icons_quality
    python benchmarks/icons_quality.py DATA --only retrieval pairs --captions 20           # a quick try

Every drawing is made by plain diffusers (20 steps, guidance 3, fixed seeds) and looked at by a judge that is trained on the
training renderings alone, never on a drawing; the first run trains it. OUT gets `quality.json`, one PNG a measure, `sheet.png`.
A run with other measures adds them to `quality.json` if pipeline and judge are the same. Needs the extra `icons`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "training_scripts" / "icons"), str(ROOT / "benchmarks")]

import pictures  # noqa: E402
from icons import bench, drawing  # noqa: E402
from icons.critic import Critic  # noqa: E402
from icons.lessons import obtain  # noqa: E402
from icons.measures import Mean  # noqa: E402
from icons.sheet import Block, page, save  # noqa: E402

WANTED = {
    ("retrieval", "first"): "≥ 85 %, with an accelerator ≥ 90 %",
    ("border", "white"): "≥ 90 %, with an accelerator ≥ 95 %",
    ("pairs", "both"): "≥ 50 %, with an accelerator ≥ 70 %",
    ("styles", "set"): "≥ 90 %, with an accelerator ≥ 95 %",
    ("autoencoder", "training sets, unseen"): "≥ 26 dB, with an accelerator ≥ 30 dB",
    ("autoencoder", "OpenMoji"): "≥ 23 dB, with an accelerator ≥ 27 dB",
    ("cost", "seconds"): "≤ 4 s on two cores",
    ("cost", "MB"): "≤ 80 MB",
    ("cost", "largest file MB"): "≤ 45 MB",
    ("adaptation", "KID ratio"): "≤ 0.6, with an accelerator ≤ 0.5",
    ("adaptation", "retrieval lost"): "≤ 15 points, with an accelerator ≤ 10",
}
"""What weights trained without and with an accelerator should reach, by measure and figure."""

MEASURES: dict[str, Callable[[bench.Bench], bench.Result]] = {
    **{"judge": bench.judge, "retrieval": bench.retrieval, "border": bench.border, "pairs": bench.pairs},
    **{"styles": bench.styles, "autoencoder": bench.autoencoder, "cost": bench.cost, "adaptation": bench.adapted},
}


def plain(value: Any) -> Any:
    """Figures as JSON has them."""
    if is_dataclass(value) and not isinstance(value, type):
        return {key: plain(v) for key, v in asdict(value).items()}
    return {key: plain(v) for key, v in value.items()} if isinstance(value, dict) else value


def told(value: Any, name: str) -> str:
    """One figure for people: decibels as they are, other means in percent."""
    if isinstance(value, Mean):
        return f"{value.value:.2f} ± {value.error:.2f} dB" if name == "autoencoder" else value.percent
    if isinstance(value, dict):
        return "; ".join(f"{key} {told(v, name)}" for key, v in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def lines(name: str, figures: dict[str, Any]) -> list[str]:
    """A measure's figures, one a line, with what is wanted of them."""
    wanted = {key: f"   wanted: {words}" for (measure, key), words in WANTED.items() if measure == name}
    return [f"{name:12} {key:36} {told(value, name)}{wanted.get(key, '')}" for key, value in figures.items()]


def record(file: Path, facts: dict[str, str], figures: dict[str, Any]) -> None:
    """Writes `figures` by measure; those of an earlier run with the same facts stay."""
    before = json.loads(file.read_text("utf-8")) if file.exists() else {}
    kept = before.get("measures", {}) if all(before.get(key) == value for key, value in facts.items()) else {}
    whole = {**facts, "measures": {**kept, **plain(figures)}}
    file.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that prepare.py wrote")
    parser.add_argument(
        "--pipeline", type=Path, default=drawing.BUNDLED, help="diffusers folder; default: the bundled icons"
    )
    parser.add_argument("--openmoji", type=Path, help="folder of prepare.py --plain, never trained on")
    parser.add_argument(
        "--judge", type=Path, help="its weights; trained and written there if missing. Default: the cache"
    )
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=[*MEASURES], help="these measures")
    parser.add_argument("--no-adaptation", action="store_true", help="leave the adaptation test out")
    parser.add_argument("--captions", type=int, default=200, help="nouns asked for; fewer for a quick try")
    parser.add_argument("--each", type=int, default=4, help="pictures a noun and a new pair")
    parser.add_argument("--out", type=Path, default=Path("runs/icons_quality"))
    parser.add_argument("--threads", type=int, default=2)
    words = parser.parse_args()
    chosen = [name for name in MEASURES if name in words.only and not (name == "adaptation" and words.no_adaptation)]
    if "adaptation" in chosen and words.openmoji is None:
        raise SystemExit("the adaptation test needs --openmoji FOLDER; --no-adaptation leaves it out")
    torch.set_num_threads(words.threads)
    words.out.mkdir(parents=True, exist_ok=True)
    drawn = pictures.read(words.data)
    model, key = obtain(drawn, drawing.BUNDLED / "vae", words.judge)
    openmoji = pictures.read(words.openmoji) if words.openmoji else None
    on = bench.Bench(
        words.pipeline, drawn, openmoji, Critic(model, drawn), words.out, words.captions, words.each, words.threads
    )
    blocks = list[Block]()
    for name in chosen:
        result = MEASURES[name](on)
        print("\n".join(lines(name, result.figures)), flush=True)
        record(words.out / "quality.json", {"pipeline": on.digest, "judge": key}, {name: result.figures})
        for block in result.blocks:
            save(page([block]), words.out / f"{name}.png")
        blocks += result.blocks
    if blocks:
        save(page(blocks), words.out / "sheet.png")


if __name__ == "__main__":
    main()
