"""`benchmarks/icons_quality.py`: its measures on made-up inputs."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
for folder in ("training_scripts/icons", "benchmarks"):
    sys.path.insert(0, str(ROOT / folder))

import icons_quality  # noqa: E402
import pictures as drawn_pictures  # noqa: E402  (training_scripts/icons/pictures.py)
from colours import COLOURS  # noqa: E402
from icons import adaptation, bench, critic, drawing, judge, lessons, measures, sheet  # noqa: E402
from prepare import NEW_PAIRS, Row  # noqa: E402

HUES = {"red": (224, 45, 45), "green": (59, 168, 68), "blue": (59, 141, 235), "yellow": (255, 219, 64)}
CATEGORY = "Food & Drink"


def disc(colour, side=64, radius=0.4, inner=None):
    """uint8 (3, side, side): a filled circle on white, with a smaller one of colour `inner` inside."""
    y, x = np.mgrid[:side, :side] / (side - 1) - 0.5
    picture = np.full((side, side, 3), 255, np.uint8)
    picture[np.hypot(x, y) < radius] = colour
    if inner is not None:
        picture[np.hypot(x, y) < radius / 2] = inner
    return torch.from_numpy(picture).permute(2, 0, 1).contiguous()


def units(count, width=16, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, width, generator=random), dim=1)


# ------------------------------------------------------------------------------------------------------- arithmetic
def test_perfect_copies_are_all_found_and_shuffled_ones_by_chance():
    nouns = torch.arange(50).repeat_interleave(3)
    gallery = units(150)
    assert measures.ranks(gallery, gallery, nouns, nouns).eq(0).all()
    many = units(4000, seed=1)
    own = torch.arange(4000) % 50
    hits = measures.ranks(many, gallery, nouns, own)
    for k in (1, 5):
        found = measures.mean(hits < k)
        assert abs(found.value - k / 50) < 3 * found.error


def test_a_noun_is_as_near_as_its_nearest_picture():
    gallery = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.8, 0.6]])
    nouns, one = torch.tensor([0, 0, 1]), torch.tensor([[1.0, 0.0]])
    assert measures.ranks(one, gallery, nouns, torch.tensor([0])).tolist() == [0]
    allowed = torch.tensor([[False, True, True]])
    assert measures.ranks(one, gallery, nouns, torch.tensor([0]), allowed).tolist() == [1]


def test_pictures_of_one_caption_count_once_in_the_error():
    values = torch.tensor([0.0, 1, 1, 0, 1, 1, 1])
    alone = measures.mean(values)
    assert alone.error == pytest.approx(float(values.std() / 7**0.5))
    four = measures.mean(values.repeat_interleave(4), [i for i in range(7) for _ in range(4)])
    assert (four.value, four.error) == pytest.approx((alone.value, alone.error))
    assert (four.pictures, four.groups) == (28, 7)
    assert measures.mean(values.repeat_interleave(4)).error < alone.error / 1.9


def test_kid_is_the_unbiased_estimate_written_out():
    x, y = units(5, 3), units(5, 3, seed=1)
    k = lambda a, b: (float(a @ b) / 3 + 1) ** 3  # noqa: E731
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    expected = sum(k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(x[j], y[i]) for i, j in pairs) / 20
    assert measures.kid(measures.pairwise(x, y)) == pytest.approx(expected, rel=1e-5)


def test_kid_of_two_halves_is_zero_and_of_a_shifted_half_is_not():
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 200, 12, generator=random)
    same, other = bench.distance(measures.pairwise(x, y)), bench.distance(measures.pairwise(x, y + 0.5))
    assert abs(same.value) < 2.5 * same.error
    assert other.value > 5 * other.error


def test_the_content_of_a_pair_is_not_its_likeness():
    """A drawing and the real picture of one noun are not compared; out of order they would be, and seem too near."""
    x = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    assert measures.kid(measures.pairwise(x, x)) == pytest.approx(0, abs=1e-9)
    noisy = x + 0.1 * torch.randn(60, 8, generator=torch.Generator().manual_seed(1))
    matched = measures.kid(measures.pairwise(x, noisy))
    shuffled = measures.kid(measures.pairwise(x, noisy[torch.randperm(60, generator=torch.Generator().manual_seed(2))]))
    assert abs(matched) < 0.01 and shuffled < -0.2


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = torch.tensor([1.0, 4, 2, 8, 5, 7])
    found = measures.jackknife(6, lambda i: float(values[i].mean()), groups=6)
    assert (found.value, found.error) == pytest.approx((4.5, float(values.std() / 6**0.5)))


# --------------------------------------------------------------------------------------------- pictures, colours, rows
@dataclass(frozen=True)
class Said:
    name: str
    colour: str


def test_new_pairs_are_shown_by_no_row():
    rows = [Said("fish", "red"), Said("fish", "green"), Said("dress", "blue"), Said("dress", ""), Said("gem", "orange")]
    found = measures.new_pairs(rows, ["fish", "dress"])
    assert len(found) == 12 and not {(r.name, r.colour) for r in rows} & set(found)
    assert [colour for name, colour in found if name == "fish"] == [c for c in COLOURS if c not in ("red", "green")][:6]
    with pytest.raises(ValueError, match="fish"):
        measures.new_pairs([*rows, Said("fish", "pink")], ["fish"])


@pytest.mark.parametrize("colour", HUES)
def test_the_colour_of_a_disc(colour):
    assert measures.colour_of(disc(HUES[colour])) == colour
    assert measures.colour_of(disc(HUES[colour], side=128)) == colour


def test_grey_has_no_colour_and_white_inside_is_drawn():
    assert measures.colour_of(disc((90, 90, 90))) == ""
    assert measures.colour_of(torch.full((3, 64, 64), 255, dtype=torch.uint8)) == ""
    ring = disc(HUES["red"], inner=(255, 255, 255))
    alpha = np.asarray(measures.cut_out(ring))[..., 3] > 0
    assert (alpha == (np.asarray(disc((0, 0, 0)).permute(1, 2, 0))[..., 0] == 0)).all()
    assert measures.colour_of(disc(HUES["red"], radius=0.45, inner=(128, 128, 128))) == "red"
    almost_white_page = disc(HUES["red"]).clamp(max=240)
    assert measures.colour_of(almost_white_page) == "red"
    assert not (np.asarray(measures.cut_out(almost_white_page))[0, :, 3]).any()


def test_white_border():
    clean, touching, grey, noisy = (disc(HUES["red"]) for _ in range(4))
    touching[:, 10:50, :2] = 0
    grey[:, :2], grey[:, -2:], grey[..., :2], grey[..., -2:] = 235, 235, 235, 235
    noisy[:, ::2, :] = noisy[:, ::2, :].clamp(max=253)
    page, average = measures.white_border(torch.stack([clean, touching, grey, noisy]))
    assert page.tolist() == [True, True, False, True]
    assert average.tolist() == [True, False, False, True]


def test_a_picture_repainted_has_the_new_colour_on_the_same_white():
    painted = critic.painted(disc(HUES["red"]), "green")
    assert measures.colour_of(painted) == "green" and (painted[:, 0] == 255).all()
    assert critic.painted(disc((90, 90, 90)), "green") is None


# ---------------------------------------------------------------------------------------------------------- the judge
def test_the_palette_is_the_shares_of_colours():
    corner = judge.inked(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 64)
    assert judge.palette(corner)[0, -1] == pytest.approx(1)  # all black: ink (1, 1, 1)
    small, large = (judge.palette(judge.inked(disc(HUES["red"], radius=r)[None], 64)) for r in (0.2, 0.45))
    assert (small - large).abs().max() < 0.05
    assert judge.palette(judge.inked(disc(HUES["red"])[None], 64)).square().sum() == pytest.approx(1, abs=0.02)
    other = judge.palette(judge.inked(disc(HUES["blue"])[None], 64))
    assert float((large * other).sum()) < 0.5 < float((large * small).sum())


def test_framing_says_where_a_drawing_ends():
    full, small = (judge.framing(judge.inked(disc((0, 0, 0), radius=r)[None], 64))[0] for r in (0.5, 0.2))
    assert full[:16].min() > 0.5 and small[0] == 0 and small[7] == 1 and torch.equal(small[:16], small[16:])


def test_turning_hues():
    x = judge.inked(torch.stack([disc(HUES["red"])] * 2), 64)
    none, third = lessons.turned(x, torch.tensor([0.0, 120.0]))
    assert torch.allclose(none, x[0], atol=1e-6)
    assert torch.allclose(third, x[0].roll(1, 0), atol=1e-5)  # red becomes green becomes blue
    assert (third[:, 0] == 0).all()


def made_up(folder, side=64):
    """A data folder: two shapes, three sets (how dark), drawn large and small."""
    rows, painted = [], []
    for name in ("apple", "pear"):
        for set_, dark in zip(judge.SETS, (1, 0.7, 0.4), strict=True):
            for kind, radius in (("plain", 0.4), ("mirrored", 0.3)):
                colour = [int(255 - dark * (255 - c)) for c in HUES["red" if name == "apple" else "blue"]]
                picture = disc(colour, side, radius)
                if name == "pear":
                    picture[:, : side // 2] = 255
                rows.append(Row(set_, name, kind, "", CATEGORY, False))
                painted.append(picture.permute(1, 2, 0).numpy())
    folder.mkdir()
    np.save(folder / "pictures.npy", np.stack(painted))
    rows_as_dicts = [vars(row) for row in rows]
    (folder / "rows.json").write_text(json.dumps({"size": side, "sources": [], "rows": rows_as_dicts}))
    return drawn_pictures.read(folder)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A made-up data folder and the judge of it."""
    drawn = made_up(tmp_path_factory.mktemp("judge") / "data")
    lesson = lessons.Lesson(drawn.pictures([*range(len(drawn.rows))]), drawn.rows, ["apple", "fig", "pear"])
    return drawn, lesson, lessons.train(lesson, samples=1000, look_steps=40)


def test_a_judge_knows_what_it_learned(taught):
    drawn, lesson, model = taught
    looks = critic.Critic(model, drawn)
    seen = looks.see(lesson.pictures)
    assert looks.ranks(seen, [row.name for row in drawn.rows], other_than=looks.set).eq(0).all()
    assert torch.equal(seen.sets, looks.set)
    assert seen.colours == [""] * len(drawn.rows)


def test_a_judge_is_made_the_same_again_and_kept(taught, tmp_path):
    drawn, lesson, model = taught
    again = lessons.train(lesson, samples=1000, look_steps=40)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    file = tmp_path / "judge.safetensors"
    facts = {"data": lessons.digest(drawn.folder / "rows.json")[:16], "samples": "1000"}
    model.save(file, facts)
    loaded, said = judge.Judge.load(file)
    assert said == facts and loaded.names == ["apple", "fig", "pear"]
    assert all(map(torch.equal, loaded(lesson.pictures), model(lesson.pictures)))
    found, key = lessons.obtain(drawn, tmp_path, file)
    assert torch.equal(found.nouns, model.nouns) and len(key) == 16


def test_the_judge_of_other_pictures_is_refused(taught, tmp_path):
    drawn, _, model = taught
    model.save(tmp_path / "judge.safetensors", {"data": "0" * 16, "samples": "1"})
    with pytest.raises(ValueError, match="other pictures"):
        lessons.obtain(drawn, tmp_path, tmp_path / "judge.safetensors")


def test_what_is_held_out_is_not_in_the_lesson(tmp_path, monkeypatch):
    monkeypatch.setattr(lessons, "decoded", lambda vae, pictures, inexact: pictures)
    monkeypatch.setattr(lessons, "held_out", lambda row: (row.set, row.name) == ("noto", "apple"))
    drawn = made_up(tmp_path / "data")
    drawn.rows[-1] = replace(drawn.rows[-1], category="Flags")
    lesson = lessons.lesson(drawn, None)
    assert len(lesson.rows) == len(lesson.pictures) == 9 + 9 + 3  # clean, JPEG, decoded
    assert not [row for row in lesson.rows if (row.set, row.name) == ("noto", "apple") or row.category == "Flags"]
    assert lesson.names == ["apple", "pear"]
    shares = [lessons.held_out.__module__, lessons.HELD_OUT]
    assert shares[1] < 0.1


# ------------------------------------------------------------------------------------------- drawings, sheets, records
def test_a_drawing_does_not_depend_on_its_neighbours(tiny_base, monkeypatch):
    pipeline = drawing.load(tiny_base)
    monkeypatch.setattr(drawing, "STEPS", 2)
    monkeypatch.setattr(drawing, "BATCH", 2)
    captions = ["one", "two", "three"]
    together = drawing.draw(pipeline, captions, [5, 6, 7])
    assert together.dtype == torch.uint8 and together.shape == (3, 3, 16, 16)
    alone = drawing.draw(pipeline, ["three"], [7])
    assert (together[2].int() - alone[0].int()).abs().max() <= 1
    assert not torch.equal(together[2], drawing.draw(pipeline, ["three"], [8])[0])


def test_a_pipelines_digest_is_of_its_weights(tiny_base, tmp_path):
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"a" * 2_000_000)
    before = drawing.digest(tmp_path)
    (tmp_path / "README.md").write_text("words")
    assert drawing.digest(tmp_path) == before
    assert drawing.megabytes(tmp_path) == pytest.approx((2.000005, 2.0))
    file.write_bytes(b"b")
    assert drawing.digest(tmp_path) != before


def test_pairs_stand_in_their_row_and_column():
    wanted = [(NEW_PAIRS[0], "red"), (NEW_PAIRS[0], "blue"), (NEW_PAIRS[2], "blue")]
    drawn = torch.tensor([0, 4, 8], dtype=torch.uint8)[:, None, None, None].expand(3, 3, 4, 4)
    block = bench.pair_block(wanted, drawn)
    assert block.columns == ["red", "blue"] and len(block.rows) == len(NEW_PAIRS)
    first = [int(picture[0, 0, 0]) for picture in block.pictures[:6]]
    assert first == [0, 4, 255, 255, 255, 8]


def test_a_sheet_has_every_picture_in_its_cell():
    colours = [*HUES.values()]
    squares = torch.tensor(colours, dtype=torch.uint8)[:, :, None, None].expand(4, 3, 64, 64)
    block = sheet.Block("title", squares, ["first", "second"], ["left", "right"])
    page, one = sheet.page([block, block], cell=64), sheet.page([block], cell=64)
    assert page.size == (one.width, 2 * one.height)
    step = 64 + sheet.GAP
    corners = [(one.width - step * (2 - i % 2), one.height - step * (2 - i // 2)) for i in range(4)]
    for corner in (0, 63):
        assert [one.getpixel((x + corner, y + corner)) for x, y in corners] == colours
        assert [page.getpixel((x + corner, y + corner + one.height)) for x, y in corners] == colours


def test_figures_are_kept_while_pipeline_and_judge_are_the_same(tmp_path):
    file, facts = tmp_path / "quality.json", {"pipeline": "p", "judge": "j"}
    icons_quality.record(file, facts, {"border": {"white": measures.mean(torch.ones(4))}})
    icons_quality.record(file, facts, {"cost": {"MB": 1.5}})
    kept = json.loads(file.read_text("utf-8"))
    assert kept["measures"]["border"]["white"] == {"value": 1.0, "error": 0.0, "pictures": 4, "groups": 4}
    assert kept["measures"]["cost"] == {"MB": 1.5}
    icons_quality.record(file, {**facts, "pipeline": "q"}, {"cost": {"MB": 2.0}})
    assert json.loads(file.read_text("utf-8"))["measures"] == {"cost": {"MB": 2.0}}


def test_figures_are_told_with_their_spread_and_what_is_wanted():
    half = measures.mean(torch.tensor([0.0, 1, 0, 1]))
    figures = {"both": half, "chance": {"both": 0.25}}
    first, second = icons_quality.lines("pairs", figures)
    assert "50.0 ± 28.9 %" in first and "wanted: ≥ 50 %" in first
    assert "both 0.25" in second and "wanted" not in second
    assert "0.50 ± 0.29 dB" in icons_quality.lines("autoencoder", {"OpenMoji": half})[0]
    assert "0.512 ± 0.020" in icons_quality.lines("adaptation", {"KID ratio": measures.Estimate(0.512, 0.02)})[0]


def test_the_adaptation_is_asked_as_it_was_taught():
    bare = adaptation.Adapted(Path(), None, 80)
    assert bare.captions(["red apple"]) == ["red apple"]
    assert replace(bare, trigger="zqx style").captions(["red apple"]) == ["zqx style, red apple"]
    assert len(adaptation.used()) == 64 and {"fox", "red apple"} & adaptation.used()
    assert Path(adaptation.settings().validation).name == "held-out"


def test_real_pictures_of_the_adaptation_are_new_to_it(tmp_path):
    drawn = made_up(tmp_path / "data")
    names = ["fox", "apple", "pear", "kiwi"]
    drawn.rows[0] = replace(drawn.rows[0], name="fox")
    real, chosen = bench._openmoji(drawn, names, 4)
    assert chosen == ["apple", "pear"] and len(real) == 2
    last = max(i for i, row in enumerate(drawn.rows) if row.kind == "plain" and row.name == "apple")
    assert torch.equal(real[0], drawn.pictures([last])[0])
