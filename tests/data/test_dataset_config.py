"""kohya's dataset_config: the same pictures, captions and settings; what cannot be followed is refused with its reason."""

import pytest

from adapt.api.gather import completed, settings_of
from adapt.config import TrainSettings, Unsettled, resolve
from adapt.data import find
from adapt.data.dataset_config import OPTIONS, settings_in
from adapt.data.folders import Reading
from adapt.errors import DataError, SettingsError

# The example of kohya's own documentation (docs/config_README-en.md), with folders of this place.
DOCUMENTED = """
[general]
shuffle_caption = true
caption_extension = '.txt'
keep_tokens = 1

# This is a DreamBooth-style dataset
[[datasets]]
resolution = 512
batch_size = 4
keep_tokens = 2

  [[datasets.subsets]]
  image_dir = 'hoge'
  class_tokens = 'hoge girl'
  # This subset uses keep_tokens = 2 (the value of the parent datasets)

  [[datasets.subsets]]
  image_dir = 'fuga'
  class_tokens = 'fuga boy'
  keep_tokens = 3

  [[datasets.subsets]]
  is_reg = true
  image_dir = 'reg'
  class_tokens = 'human'
  keep_tokens = 1
"""


@pytest.fixture
def place(tmp_path, png, write):
    """Three folders of pictures, one of them with captions."""
    write(tmp_path, **{f"hoge__{i}_png": png(i) for i in range(3)}, hoge__0_txt="a, b, c\nsecond line")
    write(tmp_path, **{"fuga__0_png": png(10), "fuga__0_txt": "boy, {red|blue} hat", "fuga__deep__1_png": png(11)})
    return write(tmp_path, **{f"reg__{i}_png": png(20 + i) for i in range(2)})


def written(place, text):
    (place / "kohya.toml").write_text(text, "utf-8")
    return place / "kohya.toml"


def subset(*lines, general="", dataset="", folder="hoge"):
    """A file with one subset."""
    rows = [
        f"[general]\n{general}",
        f"[[datasets]]\n{dataset}",
        f"[[datasets.subsets]]\nimage_dir = '{folder}'",
        *lines,
    ]
    return "\n".join(rows)


def captions(found):
    return {p.name: p.captions for p in found.pictures}


# ------------------------------------------------------------------------------------------------ pictures
def test_the_example_of_the_documentation(place):
    file = written(place, DOCUMENTED)
    found = find(file)
    assert captions(found) == {
        "hoge/0.png": ("a, b, c",), "hoge/1.png": ("hoge girl",), "hoge/2.png": ("hoge girl",),
        "fuga/0.png": ("boy, {red|blue} hat",), "reg/0.png": ("human",), "reg/1.png": ("human",),
    }  # fmt: skip
    assert {p.name.split("/")[0]: (p.keep_tags, p.prior) for p in found.pictures} == {
        "hoge": (2, False), "fuga": (3, False), "reg": (1, True)
    }  # fmt: skip
    assert settings_in(file) == {"batch_size": 4, "resolution": 512, "shuffle_tags": True}


def test_kept_tokens_that_are_not_given_are_the_run_s(place):
    assert {p.keep_tags for p in find(written(place, subset())).pictures} == {None}
    assert {p.keep_tags for p in find(written(place, subset("keep_tokens = 0"))).pictures} == {0}


def test_only_pictures_directly_in_the_folder_are_taken(place):
    """kohya's rule; and a count in the folder's name says nothing there."""
    assert [p.name for p in find(written(place, subset(folder="fuga"))).pictures] == ["fuga/0.png"]
    (place / "fuga").rename(place / "5_fuga")
    assert [(p.name, p.repeats) for p in find(written(place, subset(folder="5_fuga"))).pictures] == [
        ("5_fuga/0.png", 1.0)
    ]


def test_repeats_and_as_many_regularisation_pictures(place):
    """kohya repeats the regularisation pictures until there are as many as others, whatever their own num_repeats."""
    text = subset("num_repeats = 4", "[[datasets.subsets]]\nimage_dir = 'reg'\nis_reg = true\nnum_repeats = 3")
    found = find(written(place, text))
    assert {(p.name.split("/")[0], p.prior, p.repeats) for p in found.pictures} == {
        ("hoge", False, 4.0),
        ("reg", True, 6.0),
    }


def test_the_innermost_value_counts(place):
    for general, dataset, own, expected in (("2", "3", "4", 4.0), ("2", "3", None, 3.0), ("2", None, None, 2.0)):
        rows = [f"num_repeats = {own}"] if own else []
        text = subset(*rows, general=f"num_repeats = {general}", dataset=f"num_repeats = {dataset}" if dataset else "")
        assert {p.repeats for p in find(written(place, text)).pictures} == {expected}


def test_caption_files_have_the_ending_that_is_given(place, write):
    write(place, hoge__1_caption="other", hoge__2_tags="third")
    assert captions(find(written(place, subset('caption_extension = ".caption"'))))["hoge/0.png"] == ()
    assert captions(find(written(place, subset('caption_extension = ".caption"'))))["hoge/1.png"] == ("other",)
    assert captions(find(written(place, subset('caption_extension = "TAGS"'))))["hoge/2.png"] == ("third",)
    assert captions(find(written(place, subset())))["hoge/1.png"] == ("other",)  # not given: either


def test_the_first_line_or_all_of_them(place):
    found = find(written(place, subset()))
    assert captions(found)["hoge/0.png"] == ("a, b, c",)
    assert [w for w in found.warnings if "reads the first line only (1): 0.png" in w]
    found = find(written(place, subset("enable_wildcard = true")))
    assert captions(found)["hoge/0.png"] == ("a, b, c", "second line")
    with pytest.raises(DataError, match=r"wildcards such as \{a\|b\}.*0\.png"):
        find(written(place, subset("enable_wildcard = true", folder="fuga")))


def test_prefix_suffix_and_groups_of_tags(place):
    text = subset(
        "caption_prefix = 'best, '", "caption_suffix = ' ;;; end'", "secondary_separator = ';;;'", "class_tokens = 'x'"
    )
    found = captions(find(written(place, text)))
    assert found == {
        "hoge/0.png": ("best, a, b, c , end",),
        "hoge/1.png": ("best, x , end",),
        "hoge/2.png": ("best, x , end",),
    }


def test_class_tokens_silence_the_warning_about_missing_captions(place):
    assert [w for w in find(written(place, subset())).warnings if "without a caption" in w]
    assert not [w for w in find(written(place, subset("class_tokens = 'dog'"))).warnings if "without a caption" in w]


def test_masks_from_a_folder_of_their_own(place, png, write):
    write(place, **{f"masks__{i}_png": png(40 + i) for i in range(3)})
    file = written(place, subset("conditioning_data_dir = 'masks'"))
    assert settings_in(file) == {"masks": "files", "mask_outside": 0.0}
    assert [p.mask.read() for p in find(file, Reading(masks="files")).pictures] == [png(40 + i) for i in range(3)]
    assert {p.mask for p in find(file).pictures} == {None}
    (place / "masks" / "1.png").unlink()
    with pytest.raises(DataError, match=r"masks: Pictures have no mask of the same name.*1\.png"):
        find(file, Reading(masks="files"))


def test_names_of_folders_that_are_alike(place, png, write):
    write(place, b__hoge__0_png=png(60))
    text = subset("[[datasets.subsets]]\nimage_dir = 'b/hoge'")
    assert [p.name for p in find(written(place, text)).pictures][-1] == "hoge-2/0.png"


# ------------------------------------------------------------------------------------------------ settings
@pytest.mark.parametrize(
    ("line", "where", "expected"),
    [
        ("batch_size = 3", "dataset", {"batch_size": 3}),
        ("resolution = 768", "dataset", {"resolution": 768}),
        ("resolution = [768, 768]", "dataset", {"resolution": 768}),
        ("resolution = 768", "general", {"resolution": 768}),
        ("flip_aug = true", "general", {"flip": 0.5}),
        ("flip_aug = false", "own", {"flip": 0.0}),
        ("shuffle_caption = true", "own", {"shuffle_tags": True}),
        ("keep_tokens_separator = '|||'", "own", {"keep_tags_separator": "|||"}),
        ("caption_dropout_rate = 0.05", "own", {"caption_dropout": 0.05}),
        ("caption_dropout_rate = 0", "own", {"caption_dropout": 0.0}),
        ("caption_tag_dropout_rate = 0.2", "dataset", {"tag_dropout": 0.2}),
        ("alpha_mask = true", "own", {"masks": "alpha", "mask_outside": 0.0}),
        ("enable_bucket = true", "general", {"buckets": True}),
        ("enable_bucket = true\nbucket_reso_steps = 32", "dataset", {"buckets": True, "bucket_step": 32}),
        ("bucket_reso_steps = 32", "dataset", {}),
        ("random_crop = true", "own", {"crop": "random"}),
        ("color_aug = true", "own", {"colour": 0.4}),
        ("validation_split = 0.1", "dataset", {"validation": 0.1}),
        ("num_repeats = 3", "own", {}),
    ],
)  # fmt: skip
def test_what_maps_becomes_a_setting(place, line, where, expected):
    text = subset(line) if where == "own" else subset(**{where: line})
    assert settings_in(written(place, text)) == expected
    assert set(expected) <= set(TrainSettings.model_fields)


def test_several_resolutions_of_the_same_folders_are_several_resolutions(place):
    """kohya's way to train at several sizes: the same subsets in several data sets."""
    one = "[[datasets]]\nresolution = {}\nbatch_size = 2\n[[datasets.subsets]]\nimage_dir = 'hoge'\nnum_repeats = 2\n"
    file = written(place, one.format(512) + one.format("[768, 768]"))
    assert settings_in(file) == {"resolution": 512, "resolutions": [512, 768], "batch_size": 2}
    assert [(p.name, p.repeats) for p in find(file).pictures] == [(f"hoge/{i}.png", 2.0) for i in range(3)]
    smaller = settings_in(written(place, one.format(512) + one.format(768).replace("batch_size = 2", "batch_size = 1")))
    assert smaller["resolutions"] == [512, 768] and isinstance(smaller["batch_size"], Unsettled)
    other = one.format(768).replace("num_repeats = 2", "num_repeats = 3")
    assert isinstance(settings_in(written(place, one.format(512) + other))["resolution"], Unsettled)


def differing(option, a, b, place):
    """A file with two subsets (or data sets) that differ in an option."""
    if place == "subsets":
        return subset(f"{option} = {a}", f"[[datasets.subsets]]\nimage_dir = 'fuga'\n{option} = {b}")
    return f"[[datasets]]\n{option} = {a}\n[[datasets.subsets]]\nimage_dir = 'hoge'\n" + (
        f"[[datasets]]\n{option} = {b}\n[[datasets.subsets]]\nimage_dir = 'fuga'\n"
    )


DIFFERING = [
    ("flip_aug", "true", "false", "subsets", "flip"),
    ("shuffle_caption", "true", "false", "subsets", "shuffle_tags"),
    ("caption_dropout_rate", "0.1", "0.2", "subsets", "caption_dropout"),
    ("caption_tag_dropout_rate", "0.1", "0.2", "subsets", "tag_dropout"),
    ("random_crop", "true", "false", "subsets", "crop"),
    ("batch_size", "4", "2", "datasets", "batch_size"),
    ("resolution", "512", "768", "datasets", "resolution"),
    ("enable_bucket", "true", "false", "datasets", "buckets"),
]


@pytest.mark.parametrize(("option", "a", "b", "where", "setting"), DIFFERING, ids=[row[0] for row in DIFFERING])
def test_what_differs_between_subsets_has_to_be_given_once_for_all(place, option, a, b, where, setting):
    file = written(place, differing(option, a, b, where))
    with pytest.raises(SettingsError, match=rf"{option} differs between subsets.*Next: say what you want: {setting}=…"):
        resolve(beneath=(str(file), settings_of(file)))
    with pytest.raises(SettingsError, match=f"{option} differs"):
        completed(file, TrainSettings())
    value = {"crop": "random", "flip": "0.5", "buckets": "true", "shuffle_tags": "true"}.get(setting, "512")
    value = "0.1" if "dropout" in setting else value
    resolved = resolve(overrides=[f"{setting}={value}"], beneath=(str(file), settings_of(file)))
    assert resolved.origins[setting] == "command line"
    assert completed(file, resolved.settings) == resolved.settings


def test_a_side_that_is_no_square_has_to_be_said(place):
    file = written(place, subset(dataset="resolution = [768, 512]"))
    with pytest.raises(SettingsError, match=r"\[768, 512\] is not square.*resolution=…"):
        resolve(beneath=(str(file), settings_of(file)))


def test_every_other_origin_goes_before_the_file(place, tmp_path):
    file = written(place, subset(general="flip_aug = true\nbatch_size = 6\nresolution = 256"))
    (tmp_path / "my.yaml").write_text("batch_size: 4")
    resolved = resolve(tmp_path / "my.yaml", ["flip=0.25"], {"resolution": 128}, (str(file), settings_of(file)))
    settings, origins = resolved.settings, resolved.origins
    assert (settings.batch_size, settings.flip, settings.resolution) == (4, 0.25, 128)
    assert (origins["flip"], origins["resolution"]) == ("command line", "the run")
    plain = resolve(beneath=(str(file), settings_of(file)))
    assert (plain.settings.flip, plain.origins["flip"]) == (0.5, str(file)) and plain.origins["rank"] == "default"


def test_settings_in_python_are_completed_where_nothing_was_given(place):
    file = written(place, subset(general="flip_aug = true\nbatch_size = 6"))
    settings = completed(file, TrainSettings(batch_size=2, rank=4))
    assert (settings.batch_size, settings.rank, settings.flip) == (2, 4, 0.5)
    assert completed(place, TrainSettings(rank=4)) == TrainSettings(rank=4)


# ------------------------------------------------------------------------------------------------ refused, ignored
REFUSED = [
    ("metadata_file = 'm.json'", "metadata_file (captions come from files beside the pictures"),
    ("caption_separator = ';'", "caption_separator (tags are separated by commas)"),
    ("face_crop_aug_range = [1.0, 3.0]", "face_crop_aug_range (faces are not looked for)"),
    ("caption_dropout_every_n_epochs = 2", "caption_dropout_every_n_epochs (use caption_dropout_rate)"),
    ("token_warmup_step = 100", "token_warmup_step (captions are whole"),
    ("secondary_separator = ';;;'\nshuffle_caption = true", "secondary_separator with shuffle_caption"),
]


@pytest.mark.parametrize(("line", "words"), REFUSED, ids=[line.split()[0] for line, _ in REFUSED])
def test_what_cannot_be_followed_is_refused_with_its_reason(place, line, words):
    with pytest.raises(SettingsError) as error:
        find(written(place, subset(line)))
    assert words in str(error.value) and "Next: take them out of the file" in str(error.value)


@pytest.mark.parametrize("line", ["skip_image_resolution = 512", "network_multiplier = 0.5"])
def test_what_cannot_be_followed_in_a_data_set_is_refused(place, line):
    with pytest.raises(SettingsError, match=line.split()[0]):
        find(written(place, subset(dataset=line)))


def test_refused_options_are_allowed_with_the_value_that_does_nothing(place):
    lines = ["caption_separator = ','", "caption_dropout_every_n_epochs = 0", "token_warmup_step = 0"]
    assert len(find(written(place, subset(*lines, dataset="network_multiplier = 1.0"))).pictures) == 3


def test_what_changes_nothing_is_named_in_one_warning(place):
    lines = [
        "cache_info = true",
        "resize_interpolation = 'area'",
        "token_warmup_min = 1",
        "custom_attributes = {a = 1}",
    ]
    data = "min_bucket_reso = 256\nmax_bucket_reso = 1024\nbucket_no_upscale = true\nvalidation_seed = 3"
    (warning,) = [w for w in find(written(place, subset(*lines, dataset=data))).warnings if "change nothing" in w]
    assert warning.startswith("Options of kohya.toml that change nothing (8): ")
    for name in ("cache_info", "resize_interpolation", "bucket_no_upscale", "validation_seed", "custom_attributes"):
        assert f"{name} (" in warning


def test_every_option_is_taken_refused_or_named():
    """None is read and forgotten."""
    facts = {"image_dir", "num_repeats", "class_tokens", "is_reg", "caption_extension", "caption_prefix", "caption_suffix",
             "keep_tokens", "secondary_separator", "enable_wildcard", "conditioning_data_dir", "bucket_reso_steps"}  # fmt: skip
    for name, option in OPTIONS.items():
        assert sum((bool(option.setting), bool(option.refused), bool(option.ignored), name in facts)) == 1, name
        assert not option.setting or option.setting[0] in TrainSettings.model_fields


# ------------------------------------------------------------------------------------------------ faults
FAULTS = [
    ("", "datasets: at least one [[datasets]] is needed"),
    ("[general]\nshuffle_caption = true", "datasets: at least one [[datasets]] is needed"),
    ("[[datasets]]\nresolution = 512", "data set 1: at least one [[datasets.subsets]] is needed"),
    ("datasets = 3", "datasets: at least one [[datasets]] is needed"),
    ("datasets = []", "datasets: at least one [[datasets]] is needed"),
    ("[[datasets]]\nsubsets = 'hoge'", "data set 1: at least one [[datasets.subsets]] is needed"),
    ("general = 3\n[[datasets]]\n[[datasets.subsets]]\nimage_dir='hoge'", "general: a table is needed, not 3"),
    ("[genral]\n[[datasets]]\n[[datasets.subsets]]\nimage_dir='hoge'", "genral is unknown (did you mean general?)"),
    ("[[dataset]]\n[[dataset.subsets]]\nimage_dir='hoge'", "dataset is unknown (did you mean datasets?)"),
    ("[[datasets]]\n[[datasets.subsets]]\nnum_repeats = 3", "data set 1, subset 1: image_dir is missing"),
    (subset("imagedir = 'x'"), "subset 1: imagedir is unknown (did you mean image_dir?)"),
    (subset("num_repeat = 3"), "num_repeat is unknown (did you mean num_repeats?)"),
    (subset("xyzzy = 3"), "subset 1: xyzzy is unknown ("),
    (subset(general="flip_augg = true"), "general: flip_augg is unknown (did you mean flip_aug?)"),
    (subset(dataset="resolutions = 512"), "data set 1: resolutions is unknown (did you mean resolution?)"),
    (subset("batch_size = 4"), "subset 1: batch_size belongs to general or datasets"),
    (subset("resolution = 512"), "subset 1: resolution belongs to general or datasets"),
    (subset(general="image_dir = 'x'"), "general: image_dir belongs to subsets"),
    (subset(dataset="is_reg = true"), "data set 1: is_reg belongs to subsets"),
    (subset("num_repeats = 0"), "num_repeats is a whole number, 1 or more, not 0"),
    (subset("num_repeats = -1"), "num_repeats is a whole number, 1 or more, not -1"),
    (subset("num_repeats = 1.5"), "num_repeats is a whole number, 1 or more, not 1.5"),
    (subset("num_repeats = '10'"), "num_repeats is a whole number, 1 or more, not '10'"),
    (subset("num_repeats = true"), "num_repeats is a whole number, 1 or more, not True"),
    (subset("flip_aug = 1"), "flip_aug is true or false, not 1"),
    (subset("shuffle_caption = 'yes'"), "shuffle_caption is true or false, not 'yes'"),
    (subset("keep_tokens = -1"), "keep_tokens is a whole number, 0 or more, not -1"),
    (subset("caption_dropout_rate = 1.5"), "caption_dropout_rate is a number between 0 and 1, not 1.5"),
    (subset("caption_dropout_rate = nan"), "caption_dropout_rate is a number between 0 and 1, not nan"),
    (subset("caption_tag_dropout_rate = -0.1"), "caption_tag_dropout_rate is a number between 0 and 1, not -0.1"),
    (subset("class_tokens = ''"), "class_tokens is text that is not empty, not ''"),
    (subset("caption_extension = 3"), "caption_extension is text that is not empty, not 3"),
    (subset(dataset="resolution = 0"), "resolution is a number of pixels or [width, height], not 0"),
    (subset(dataset="resolution = [512]"), "resolution is a number of pixels or [width, height], not [512]"),
    (subset(dataset="resolution = '512,512'"), "resolution is a number of pixels or [width, height], not '512,512'"),
    (subset(dataset="batch_size = 0"), "batch_size is a whole number, 1 or more, not 0"),
    ("[[datasets]\n", "The dataset_config cannot be read"),
    ("a = 1\na = 2", "The dataset_config cannot be read"),
    ("general", "The dataset_config cannot be read"),
]


@pytest.mark.parametrize(("text", "words"), FAULTS, ids=[words for _, words in FAULTS])
def test_a_file_that_is_wrong_is_refused_in_one_line(place, text, words):
    for look in (find, settings_in):
        with pytest.raises(SettingsError) as error:
            look(written(place, text))
        line = str(error.value)
        assert words in line and "kohya.toml" in line and "\n" not in line, line


def test_all_faults_are_in_one_line(place):
    with pytest.raises(SettingsError) as error:
        find(written(place, subset("num_repeats = 0", general="flip_augg = true", dataset="is_reg = true")))
    for words in ("num_repeats", "flip_augg", "is_reg"):
        assert words in str(error.value)


def test_what_is_not_there_is_named(place):
    with pytest.raises(DataError, match=r"no such dataset_config.*none\.toml"):
        find(place / "none.toml")
    with pytest.raises(DataError, match="gone: The folder does not exist"):
        find(written(place, subset(folder="gone")))
    (place / "latin.toml").write_bytes(b"# \xe4")
    with pytest.raises(SettingsError, match=r"cannot be read.*latin\.toml"):
        find(place / "latin.toml")
