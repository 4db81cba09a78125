"""The column `class` is a label, as `label` is."""

import json

from PIL import Image

from adapt.data import find


def test_a_column_class_is_the_label(tmp_path):
    rows = [{"file_name": f"{k}.png", "text": f"bird {k}", "class": "gold finch"} for k in range(2)]
    for row in rows:
        Image.new("RGB", (8, 8)).save(tmp_path / row["file_name"])
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = find(tmp_path).pictures
    assert [picture.label for picture in found] == ["gold finch"] * 2
    assert [picture.captions for picture in found] == [("bird 0",), ("bird 1",)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps({**row, "text": None}) for row in rows))
    assert find(tmp_path).pictures[0].label == "gold finch"
