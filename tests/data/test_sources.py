"""Several sources in one list: each as often as it says, each fault named with its source."""

import json
from math import isclose

import pytest

from adapt.data import find
from adapt.data.find import folders_of
from adapt.data.folders import Reading
from adapt.errors import DataError, SettingsError


@pytest.fixture
def place(tmp_path, png, write):
    """Three folders: two dogs, six other dogs, a style of one picture in kohya's layout."""
    write(tmp_path, **{f"dog__{i}_png": png(i) for i in range(2)}, dog__0_txt="my dog")
    write(tmp_path, **{f"dogs__{i}_png": png(10 + i) for i in range(6)})
    write(tmp_path, **{"style__7_ink__a_png": png(30)})
    return tmp_path


def listed(place, text, name="all.yaml"):
    (place / name).write_text(text if isinstance(text, str) else json.dumps(text), "utf-8")
    return place / name


def sources(*entries):
    return {"sources": list(entries)}


def draws(found):
    """Share of the draws of each source."""
    total = sum(p.repeats for p in found.pictures)
    names = dict.fromkeys(p.name.split("/")[0] for p in found.pictures)
    return {n: round(sum(p.repeats for p in found.pictures if p.name.split("/")[0] == n) / total, 9) for n in names}


def test_a_list_of_folders_is_all_their_pictures(place):
    found = find(listed(place, "sources:\n  - path: dog\n  - path: ./dogs\n"))
    assert [p.name for p in found.pictures] == ["dog/0.png", "dog/1.png", *(f"dogs/{i}.png" for i in range(6))]
    assert {p.repeats for p in found.pictures} == {1.0} and found.kind == "sources"
    assert found.pictures[0].captions == ("my dog",)
    assert "dog: Pictures without a caption, trained with an empty one (1): 1.png" in found.warnings


@pytest.mark.parametrize("ending", ["yaml", "yml", "json"])
def test_paths_are_relative_to_the_list_wherever_one_stands(place, ending, monkeypatch):
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    file = listed(place, sources({"path": "dog"}, {"path": str(place / "dogs")}), f"all.{ending}")
    assert len(find(file).pictures) == 8


def test_repeats_are_those_of_each_picture(place):
    found = find(listed(place, sources({"path": "dog", "repeats": 10}, {"path": "dogs", "repeats": 0.5})))
    assert {p.name.split("/")[0]: p.repeats for p in found.pictures} == {"dog": 10.0, "dogs": 0.5}


def test_weights_are_shares_of_the_draws_whatever_the_numbers_of_pictures(place):
    found = find(listed(place, sources({"path": "dog", "weight": 3}, {"path": "dogs", "weight": 1})))
    assert draws(found) == {"dog": 0.75, "dogs": 0.25}
    assert isclose(sum(p.repeats for p in found.pictures), 8)  # an epoch has as many draws as there are pictures


def test_weights_and_counts_of_folders_go_together(place, png, write):
    write(place, **{"style__1_pen__b_png": png(31)})
    entries = [{"path": "style", "weight": 1, "repeats": "folders"}, {"path": "dogs", "weight": 1}]
    found = find(listed(place, sources(*entries)))
    assert draws(found) == {"style": 0.5, "dogs": 0.5}
    a, b = (p.repeats for p in found.pictures[:2])
    assert isclose(b, 7 * a) or isclose(a, 7 * b)


def test_counts_of_folders_are_obeyed_where_a_source_or_the_run_says_so(place):
    for entry, reading, expected in (
        ({"path": "style"}, Reading(), 1.0),
        ({"path": "style"}, Reading(repeats="folders"), 7.0),
        ({"path": "style", "repeats": "folders"}, Reading(), 7.0),
        ({"path": "style", "repeats": 2}, Reading(repeats="folders"), 2.0),
    ):
        assert [p.repeats for p in find(listed(place, sources(entry)), reading).pictures] == [expected]


def test_prior_pictures_are_drawn_as_often_as_all_that_is_taught(place):
    entries = [{"path": "dog", "repeats": 9}, {"path": "dogs", "prior": True}, {"path": "style", "prior": True}]
    found = find(listed(place, sources(*entries)))
    assert draws(found)["dog"] == 0.5
    assert [p.prior for p in found.pictures] == [False] * 2 + [True] * 7
    assert len({p.repeats for p in found.pictures if p.prior}) == 1  # each prior picture as often as another
    own = find(listed(place, sources({"path": "dog"}, {"path": "dogs", "prior": True, "repeats": 2})))
    assert {p.repeats for p in own.pictures if p.prior} == {2.0}
    weighed = find(listed(place, sources({"path": "dog", "weight": 3}, {"path": "dogs", "prior": True, "weight": 1})))
    assert draws(weighed) == {"dog": 0.75, "dogs": 0.25}


def test_trigger_and_kept_tags_go_with_their_source(place):
    found = find(listed(place, sources({"path": "dog", "trigger": " zxc\ndog ", "keep_tags": 2}, {"path": "dogs"})))
    told = {(p.name.split("/")[0], p.trigger, p.keep_tags) for p in found.pictures}
    assert told == {("dog", "zxc dog", 2), ("dogs", None, None)}


def test_sources_of_one_name_keep_their_pictures_apart(place, png, write):
    write(place, **{"more__dog__0_png": png(50), "most__dog__0_png": png(51)})
    found = find(listed(place, sources({"path": "dog"}, {"path": "more/dog"}, {"path": "most/dog"})))
    assert [p.name for p in found.pictures] == ["dog/0.png", "dog/1.png", "dog-2/0.png", "dog-3/0.png"]


def test_masks_are_read_in_every_source(place, png, write):
    write(place, **{"dog__0-masklabel_png": png(0)})
    found = find(listed(place, sources({"path": "dog"}, {"path": "dogs"})), Reading(masks="files"))
    assert [bool(p.mask) for p in found.pictures] == [True] + [False] * 7


# ------------------------------------------------------------------------------------------------ faults
FAULTS = [
    ("sources: []", "sources: list should have at least 1 item"),
    ("sources: {path: dog}", "sources: input should be a valid list"),
    ("sources: [dog]", "source 1: Input should be a valid dictionary"),
    ("sources: [{pth: dog}]", "source 1: pth is unknown (did you mean path?)"),
    ("sources: [{path: dog, repeat: 3}]", "repeat is unknown (did you mean repeats?)"),
    ("sources: [{path: dog, num_repeats: 3}]", "num_repeats is unknown (did you mean repeats?)"),
    ("sources: [{image_dir: dog}]", "image_dir is unknown (did you mean path?)"),
    ("sources: [{path: dog, is_reg: true}]", "is_reg is unknown (did you mean prior?)"),
    ("sources: [{path: dog, xyz: 1}]", "xyz is unknown (known: path, repeats, weight, trigger, keep_tags, prior)"),
    ("sources: [{repeats: 3}]", "source 1: path: field required"),
    ("sources: [{path: ''}]", "path: string should have at least 1 character"),
    ("sources: [{path: 3}]", "path: input should be a valid string, given 3"),
    ("sources: [{path: null}]", "path: input should be a valid string, given None"),
    ("sources: [{path: [a]}]", "path: input should be a valid string"),
    ("sources: [{path: dog, repeats: 0}]", "repeats: a number above 0, or folders, not 0"),
    ("sources: [{path: dog, repeats: -1}]", "repeats: a number above 0, or folders, not -1"),
    ("sources: [{path: dog, repeats: ten}]", "repeats: a number above 0, or folders, not 'ten'"),
    ("sources: [{path: dog, repeats: '10'}]", "repeats: a number above 0, or folders, not '10'"),
    ("sources: [{path: dog, repeats: true}]", "repeats: a number above 0, or folders, not True"),
    ("sources: [{path: dog, repeats: .nan}]", "repeats: a number above 0, or folders, not nan"),
    ("sources: [{path: dog, repeats: .inf}]", "repeats: a number above 0, or folders, not inf"),
    ("sources: [{path: dog, repeats: 1.0e+12}]", "repeats: a number above 0"),
    ("sources: [{path: dog, weight: 0}]", "weight: input should be greater than 0, given 0"),
    ("sources: [{path: dog, weight: .nan}]", "weight: input should be a finite number"),
    ("sources: [{path: dog, weight: half}]", "weight: input should be a valid number"),
    ("sources: [{path: dog, weight: true}]", "weight: input should be a valid number"),
    ("sources: [{path: dog, weight: 1, repeats: 2}]", "source 1: weight and repeats contradict each other"),
    ("sources: [{path: dog, weight: 1}, {path: dogs}]", "give one to all or to none"),
    ("sources: [{path: dog, trigger: ''}]", "trigger: string should have at least 1 character"),
    ("sources: [{path: dog, trigger: '  '}]", "trigger: there is nothing to be seen in it"),
    ("sources: [{path: dog, trigger: 5}]", "trigger: input should be a valid string, given 5"),
    ("sources: [{path: dog, prior: 1}]", "prior: input should be a valid boolean, given 1"),
    ("sources: [{path: dog, prior: true}]", "every source is prior: nothing is taught"),
    ("sources: [{path: dog}, {path: dogs, prior: true, trigger: x}]", "source 2: a prior source has no trigger"),
    ("sources: [{path: dog, keep_tags: -1}]", "keep_tags: input should be greater than or equal to 0"),
    ("sources: [{path: dog, keep_tags: 1.5}]", "keep_tags: input should be a valid integer"),
    ("sources: [{path: dog}, {path: ./dog}]", "A source stands there twice (given: dog, ./dog)"),
    ("sources: [{path: dog}]\nrank: 3", "rank is unknown (known: sources)"),
    ("source: [{path: dog}]", "no list of sources (given: all.yaml with source; allowed: `sources:`"),
    ("rank: 8\nsteps: 500", "Next: settings are given with --config"),
    ("", "no list of sources"),
    ("- dog", "no list of sources"),
    ("dog", "no list of sources"),
    ("sources: [{path: dog", "cannot be read"),
    ("a: b: c", "cannot be read"),
    ("!!python/object/apply:os.getcwd []", "cannot be read"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), FAULTS, ids=[text or "empty" for text, _ in FAULTS])
def test_a_list_that_is_wrong_is_refused_in_one_line(place, text, words, monkeypatch):
    monkeypatch.chdir(place)
    listed(place, text)
    with pytest.raises(SettingsError) as error:
        find("all.yaml")
    line = str(error.value)
    assert words in line and "\n" not in line, line
    assert "all.yaml" in line or "stands there twice" in line, line


def test_all_faults_are_in_one_line(place):
    text = "sources: [{path: dog, repeats: 0}, {pth: dogs}, {path: style, weight: 2, prior: 3}]"
    with pytest.raises(SettingsError) as error:
        find(listed(place, text))
    for words in ("source 1: repeats", "source 2: path", "source 2: pth", "source 3: prior"):
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("gone", "gone: The folder does not exist"),
        ("./gone", "./gone: The folder does not exist"),
        ("user/gone", "user/gone: There is no such folder, and no data set of this name"),
        ("empty", "empty: The folder is empty"),
        ("other.yaml", "other.yaml: This is a file, not a folder"),
        ("kohya.toml", "kohya.toml: This is a file, not a folder"),
        ("shards/{0..2}.tar", "shards/{0..2}.tar: 3 of 3 archives are missing"),
        ("~no-such-user-here/x", "The folder cannot be read"),
        ("bad\0name", "The folder cannot be read"),
    ],
)
def test_a_source_that_cannot_be_used_is_named(place, path, words):
    (place / "empty").mkdir()
    for name in ("other.yaml", "kohya.toml"):
        (place / name).write_text("")
    with pytest.raises(DataError) as error:
        find(listed(place, sources({"path": "dog"}, {"path": path}), "all.json"))
    assert words in str(error.value)


def test_a_list_that_is_not_there_or_not_readable(place):
    with pytest.raises(DataError, match=r"no such list of sources.*none\.yaml"):
        find(place / "none.yaml")
    (place / "latin.yaml").write_bytes(b"sources: [{path: \xe4}]")
    with pytest.raises(SettingsError, match=r"cannot be read.*latin\.yaml"):
        find(place / "latin.yaml")
    (place / "folder.yaml").mkdir()
    with pytest.raises(DataError, match="folder is empty"):
        find(place / "folder.yaml")


def test_the_folders_of_a_list_are_known_before_they_are_read(place):
    file = listed(place, sources({"path": "dog"}, {"path": "dogs"}))
    assert folders_of(file) == [place / "dog", place / "dogs"] and folders_of(place) == [place]
    assert folders_of("user/name") == folders_of(place / "dog" / "0.png") == []
