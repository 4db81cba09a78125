"""`adapt caption`: which pictures, what is asked of whom, what is shown, kept and written. The models are tiny and random, the
server is a fake one on this machine: that the words are good is not proved here."""

import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from PIL import Image

from adapt.api.beside.server import address, is_here
from adapt.api.beside.words import PROMPT, tidy
from adapt.cli.main import main


class Chat(BaseHTTPRequestHandler):
    """Says the mean colour of a picture, so that a wrong or changed picture is noticed."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer({"data": [{"id": name} for name in self.server.models]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, dict(self.headers), body))
        if self.server.refusals:
            status, text = self.server.refusals.pop(0)
            return self.answer({"error": {"message": text}}, status)
        _, picture = body["messages"][0]["content"]
        with Image.open(io.BytesIO(base64.b64decode(picture["image_url"]["url"].partition(",")[2]))) as opened:
            red, green, blue = np.asarray(opened).mean((0, 1)).round(-1).astype(int)
        self.server.pictures.append(base64.b64decode(picture["image_url"]["url"].partition(",")[2]))
        self.answer({"choices": [{"message": {"content": f'"colour {red} {green}\n {blue}."'}}]})

    def answer(self, value, status=200):
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("adapt.api.beside.server.time.sleep", lambda seconds: None)
    found = HTTPServer(("127.0.0.1", 0), Chat)
    found.asked, found.pictures, found.refusals, found.models = [], [], [], ["tiny"]
    found.url = f"http://127.0.0.1:{found.server_port}"
    threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield found
    found.shutdown()


COLOURS = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250)}


@pytest.fixture
def data(tmp_path):
    """Three pictures, of which one has a caption."""
    folder = tmp_path / "my-pictures"
    folder.mkdir()
    for name, colour in COLOURS.items():
        exif = Image.Exif()
        exif[0x010E] = "PLANTED"
        Image.new("RGB", (40, 30), colour).save(folder / f"{name}.jpg", quality=95, exif=exif)
    (folder / "red.txt").write_text("my own words\n")
    return folder


def texts(folder):
    return {path.stem: path.read_text("utf-8") for path in folder.glob("*.txt")}


def test_only_pictures_without_words_are_captioned(server, data, capsys):
    assert main(["caption", str(data), "--server", server.url, "--yes"]) == 0
    assert texts(data) == {"red": "my own words\n", "green": "colour 0 250 0.\n", "blue": "colour 0 0 250.\n"}
    out, err = capsys.readouterr()
    assert out.splitlines() == ["blue.jpg: colour 0 0 250.", "green.jpg: colour 0 250 0."] and "2 caption files" in err


def test_nothing_is_written_unasked_and_nothing_is_asked_of_the_model_twice(server, data, capsys):
    for words in ([], ["--dry-run"], ["--dry-run", "--yes"]):
        assert main(["caption", str(data), "--server", server.url, *words]) == 0
    assert set(texts(data)) == {"red"} and len(server.asked) == 2
    assert main(["caption", str(data), "--server", server.url, "--yes"]) == 0
    assert len(server.asked) == 2 and len(texts(data)) == 3
    assert main(["caption", str(data), "--server", server.url, "--yes"]) == 0
    assert "every picture has a caption" in capsys.readouterr().err
    assert main(["caption", str(data), "--server", server.url, "--replace", "--ask", "other?", "--yes"]) == 0
    assert len(server.asked) == 5, "another question is another answer"
    assert texts(data)["red"] == "colour 250 0 0.\n"


def test_what_is_sent_is_the_picture_and_the_question_and_nothing_else(server, data, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-this-server")
    monkeypatch.setenv("HF_TOKEN", "hf_not_for_this_server")
    assert main(["caption", str(data), "--server", server.url + "/v1/", "--dry-run"]) == 0
    path, headers, body = server.asked[0]
    assert path == "/v1/chat/completions" and body["model"] == "tiny" and body["temperature"] == 0
    assert body["messages"][0]["content"][0] == {"type": "text", "text": PROMPT}
    assert "Authorization" not in headers and "not-for-this" not in json.dumps([headers, body])
    assert not any(b"PLANTED" in content or b"Exif" in content for content in server.pictures)
    assert "blue" not in json.dumps(body), "no file name"


def test_a_key_is_sent_where_it_was_named(server, data, monkeypatch, capsys):
    monkeypatch.setenv("MY_SERVER", "secret-key")
    assert main(["caption", str(data), "--server", server.url, "--key-env", "MY_SERVER", "--dry-run"]) == 0
    assert server.asked[0][1]["Authorization"] == "Bearer secret-key"
    assert main(["caption", str(data), "--server", server.url, "--key-env", "NOT_SET", "--dry-run"]) == 2
    assert "secret-key" not in "".join(capsys.readouterr())


def test_trigger_and_json(server, data, capsys):
    assert main(["caption", str(data), "--server", server.url, "--trigger", "zqx", "--yes", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["written"] == 2 and told["captions"][0] == {"picture": "blue.jpg", "caption": "zqx, colour 0 0 250."}
    assert texts(data)["blue"] == "zqx, colour 0 0 250.\n"


def test_large_pictures_are_made_smaller_and_class_folders_count_as_without_words(server, tmp_path):
    folder = tmp_path / "classes" / "tabby-cat"
    folder.mkdir(parents=True)
    Image.new("RGB", (3000, 1000), (0, 0, 250)).save(folder / "a.png")
    assert main(["caption", str(tmp_path / "classes"), "--server", server.url, "--yes"]) == 0
    with Image.open(io.BytesIO(server.pictures[0])) as sent:
        assert sent.size == (1024, 341)
    assert (folder / "a.txt").read_text() == "colour 0 0 250.\n"


# ------------------------------------------------------------------------------------------------ what goes wrong
@pytest.mark.parametrize(
    ("refusals", "code", "said"),
    [
        ([(429, "slow down"), (503, "loading")], 0, ""),
        ([(500, "no")] * 9, 2, "the server refuses (status 500): no"),
        ([(401, "who are you")], 2, "who are you"),
        ([(404, "no such model")], 2, "--model names one of its own"),
        ([(400, "no pictures here")], 2, "no pictures here"),
        ([(302, "elsewhere")], 2, "the server refuses (status 302)"),
    ],
)
def test_refusals_are_one_line_and_leave_what_was_written(server, data, refusals, code, said, capsys):
    server.refusals = refusals
    assert main(["caption", str(data), "--server", server.url, "--yes"]) == code
    assert said in capsys.readouterr().err and texts(data)["red"] == "my own words\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [(b"<html>", "cannot be used"), (b"[]", "cannot be used"), (b"{}", "holds no text"), (b'{"choices": []}', "holds no text"),
     (b'{"choices": [{"message": {"content": null}}]}', "says nothing"),
     (b'{"choices": [{"message": {"content": " \\"\\" "}}]}', "says nothing")],
)  # fmt: skip
def test_answers_that_are_none(server, data, answer, said, monkeypatch, capsys):
    monkeypatch.setattr(
        Chat, "do_POST", lambda self: (self.rfile.read(int(self.headers["Content-Length"])), self.answer(answer))
    )
    assert main(["caption", str(data), "--server", server.url, "--yes"]) == 2
    assert said in capsys.readouterr().err and set(texts(data)) == {"red"}


def test_several_models_must_be_named(server, data, capsys):
    server.models = ["a", "b"]
    assert main(["caption", str(data), "--server", server.url]) == 2
    assert "given: a, b" in capsys.readouterr().err
    assert main(["caption", str(data), "--server", server.url, "--model", "b", "--dry-run"]) == 0
    assert server.asked[0][2]["model"] == "b"


def test_pictures_leave_the_machine_only_when_that_is_agreed_to(data, capsys):
    assert main(["caption", str(data), "--server", "http://192.0.2.1:9/v1"]) == 2
    assert "would leave this machine" in capsys.readouterr().err
    assert [
        is_here(f"http://{host}/v1") for host in ("localhost:1", "127.0.0.1", "[::1]:1", "example.org", "10.0.0.1")
    ] == [True] * 3 + [False] * 2


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://me:key@host"])
def test_addresses_that_are_none(url, data, capsys):
    assert main(["caption", str(data), "--server", url]) == 2
    assert "no address of a server" in capsys.readouterr().err
    assert address("http://x:1/") == "http://x:1/v1"


def test_a_model_must_be_named_and_be_there(data, tmp_path, capsys):
    assert main(["caption", str(data)]) == 2
    assert "no model is named" in capsys.readouterr().err
    assert main(["caption", str(data), "--model", str(tmp_path)]) == 2
    assert "there is no model in this folder" in capsys.readouterr().err
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    assert main(["caption", str(data), "--model", str(tmp_path)]) == 2
    assert "cannot describe pictures here" in capsys.readouterr().err


def test_tidy():
    assert tidy(' "**A fox**,\n on  grass."\x00 ') == "A fox**, on grass." and tidy("«»\"'") == ""


# ------------------------------------------------------------------------------------------------ local models
def tiny_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "USER:", "ASSISTANT:", *(f"word{i}" for i in range(40))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip


@pytest.fixture(scope="session")
def talker(tmp_path_factory):
    """A tiny random LLaVA, which is talked to through a chat template."""
    import torch
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    text = LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                       num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1,
                       eos_token_id=2, pad_token_id=0)  # fmt: skip
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=4, vision_feature_layer=-1)
    )
    template = (
        "{% for m in messages %}USER: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image> {% else %}"
        "{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}ASSISTANT:"
    )
    size = {"height": 16, "width": 16}
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=size)
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    )
    folder = tmp_path_factory.mktemp("talker")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def teller(tmp_path_factory):
    """A tiny random BLIP, which is given the picture only."""
    import torch
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "encoder_hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": 16,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "sep_token_id": 2,
        "pad_token_id": 0,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=16))
    folder = tmp_path_factory.mktemp("teller")
    model.save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 16, "width": 16}), tokenizer).save_pretrained(folder)
    return folder


def said_by(folder, picture, text):
    """The new words of a model for a picture, by transformers alone; `text` as the model reads it, or None."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    inputs = processor(images=picture, **({"text": text} if text else {}), return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    start = inputs["input_ids"].shape[1] if text else 0
    return tidy(processor.batch_decode(ids[:, start:], skip_special_tokens=True)[0])


@pytest.mark.parametrize(
    ("kind", "ask", "read"),
    [("talker", ["--ask", "word1 word2"], "USER: <image> word1 word2 ASSISTANT:"), ("teller", [], None)],
)
def test_a_local_model_s_new_words_are_the_caption(kind, ask, read, data, request, capsys):
    folder = request.getfixturevalue(kind)
    words = ["caption", str(data), "--model", str(folder), *ask, "--max-tokens", "6", "--json"]
    assert main(words) == 0, capsys.readouterr().err
    said = {row["picture"]: row["caption"] for row in json.loads(capsys.readouterr().out)["captions"]}
    assert set(said) == {"blue.jpg", "green.jpg"}
    for name, caption in said.items():
        with Image.open(data / name) as picture:
            assert caption == said_by(folder, picture.convert("RGB"), read) != ""


def test_pickled_models_are_refused(talker, data, tmp_path, capsys):
    import shutil

    shutil.copytree(talker, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    assert main(["caption", str(data), "--model", str(tmp_path / "pickled")]) == 2
    assert "safetensors" in capsys.readouterr().err
