"""Errors are one line that says what is wrong, what was given, what is allowed and what to do next."""

import json
import pickle
import signal

from adapt import errors
from adapt.errors import AdaptError, HubError, Stopped, did_you_mean

TREE = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AdaptError)]


def test_a_message_says_everything_in_one_line():
    error = AdaptError("rank is\n too large", given="two\nlines", allowed="1 to 1024", next="take\n  16")
    assert str(error) == "rank is too large (given: two lines; allowed: 1 to 1024). Next: take 16"


def test_what_is_not_known_is_left_out():
    assert str(AdaptError("no")) == "no"
    assert str(AdaptError("no", given=0)) == "no (given: 0)"
    assert str(AdaptError("no", next="try")) == "no. Next: try"


def test_as_dict_is_json_and_names_the_kind():
    for kind in TREE:
        error = Stopped(15, "stop", next="go") if kind is Stopped else kind("stop", given=object, next="go")
        values = json.loads(json.dumps(error.as_dict()))
        assert list(values) == ["code", "message", "given", "allowed", "next"]
        assert (values["code"], values["message"], values["next"]) == (kind.__name__, "stop", "go")


def test_exit_codes():
    assert len(TREE) == 10
    assert {kind.__name__: kind.exit_code for kind in TREE if kind.exit_code != 2} == {"HubError": 4}
    assert HubError("login").exit_code == 4
    assert Stopped(signal.SIGINT, "stopped", next="resume").exit_code == 130
    assert Stopped(signal.SIGTERM, "stopped", next="resume").exit_code == 143


def test_an_error_survives_the_way_between_processes():
    error = HubError("no", given=1, next="go")
    other = pickle.loads(pickle.dumps(error))
    assert (type(other), str(other), other.exit_code) == (HubError, str(error), 4)


def test_the_docstring_draws_the_whole_tree():
    assert all(kind.__name__ in errors.__doc__ for kind in TREE)


def test_did_you_mean():
    assert did_you_mean("learning_rat", ["learning_rate", "rank"]) == "learning_rate"
    assert did_you_mean("qqq", ["learning_rate", "rank"]) is None
