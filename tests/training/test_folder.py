"""The output folder: one run, one process, nothing torn, nothing deleted that is not ours."""

import errno
import os
import resource
import shutil
import signal
import threading
import time

import pytest
from tiny_runs import content, ended, in_child, tiny

import adapt
from adapt import files
from adapt.errors import RunError
from adapt.training import checkpoint, events, folder


@pytest.fixture(scope="module")
def made(captioned, tiny_base, tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "run"
    adapt.train(captioned, output=path, base=str(tiny_base), settings=tiny(steps=4, validation=None))
    return path


@pytest.fixture
def run(made, tmp_path):
    """A copy of a finished run of 4 steps without held-out pictures."""
    return shutil.copytree(made, tmp_path / "run")


# ---------------------------------------------------------------------------------------------- what is there already
def test_a_run_is_never_overwritten(run, train):
    before = content(run)
    with pytest.raises(RunError) as refused:
        train(run)
    assert refused.value.exit_code == 2
    assert "--resume" in refused.value.next and "--fresh" in refused.value.next
    assert content(run) == before


def test_fresh_starts_over_and_deletes_only_what_is_ours(run, made, train):
    (run / "notes.md").write_text("mine")
    (run / "checkpoint").mkdir()
    (run / "checkpoint" / "mine.txt").write_text("mine")
    kept = run / "mine"
    kept.mkdir()
    (run / "checkpoints" / "step-000009").mkdir()
    result = train(run, existing="fresh", steps=2, validation=None)
    assert result.chosen_step == 2
    assert [p.name for p in checkpoint.states(run)] == ["step-000002"]
    assert [p.name for p in sorted((run / "snapshots").iterdir())] == ["step-000002.safetensors"]
    assert (run / "notes.md").read_text() == (run / "checkpoint" / "mine.txt").read_text() == "mine" and kept.is_dir()
    assert sum(line.startswith('{"event": "step"') for line in (run / "events.jsonl").read_text().splitlines()) == 2


def test_a_killed_clearing_leaves_a_run_not_the_rest_of_one(run, monkeypatch):
    """As long as anything of a run is left, it is called one: a new run never begins among old checkpoints."""
    for number in range(len(folder.OURS)):
        half = shutil.copytree(run, run.with_name(f"half-{number}"))
        left = iter(range(number))

        def dying(call, left=left):
            def instead(*arguments, **options):
                if next(left, None) is None:
                    raise KeyboardInterrupt
                return call(*arguments, **options)

            return instead

        with monkeypatch.context() as patch:
            patch.setattr(folder.shutil, "rmtree", dying(shutil.rmtree))
            patch.setattr(folder.Path, "unlink", dying(folder.Path.unlink))
            with pytest.raises(KeyboardInterrupt):
                folder.clear(half)
        with pytest.raises(RunError, match="holds a run"):
            folder.check_output(half, "refuse")


def test_there_is_nothing_to_resume(train, tmp_path):
    with pytest.raises(RunError, match="no run to resume"):
        train(tmp_path / "run", existing="resume")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", ["refuse", "fresh", "auto"])
def test_a_folder_with_something_else_is_refused(train, tmp_path, existing):
    for name in ("thesis.txt", "adapter/mine.txt"):
        place = tmp_path / existing / name
        place.parent.mkdir(parents=True)
        place.write_text("mine")
        with pytest.raises(RunError, match="not empty and holds no run"):
            train(tmp_path / existing, existing=existing)
        assert place.read_text() == "mine"
        place.unlink()


def test_an_output_inside_the_pictures_is_refused(train, captioned):
    """Its previews would be trained on, and every resume would be refused."""
    with pytest.raises(RunError, match="inside the pictures"):
        train(captioned / "runs" / "a")
    assert not (captioned / "runs").exists()


def test_an_output_inside_a_source_of_a_list_or_the_held_out_pictures_is_refused(train, captioned, tmp_path):
    data, held = shutil.copytree(captioned, tmp_path / "data"), shutil.copytree(captioned, tmp_path / "held")
    (tmp_path / "all.yaml").write_text("sources:\n  - path: data\n  - path: held\n")
    for output in (data / "a", held / "b" / "c"):
        with pytest.raises(RunError, match="inside the pictures"):
            train(output, data=tmp_path / "all.yaml")
    with pytest.raises(RunError, match="inside the pictures"):
        train(held / "a", data=data, validation=str(held))
    assert not any(path.is_dir() for place in (data, held) for path in place.iterdir())


# ---------------------------------------------------------------------------------------------- two at once
def test_a_second_run_at_once_is_refused(run, train, tmp_path):
    ready, done = os.pipe(), os.pipe()

    def hold():
        with folder.claimed(run):
            os.write(ready[1], b".")
            os.read(done[0], 1)

    child = in_child(hold, tmp_path / "log")
    try:
        assert os.read(ready[0], 1) == b"."
        before = content(run)
        with pytest.raises(RunError, match="another run is writing"):
            train(run, existing="resume")
        assert content(run) == before
    finally:
        os.kill(child, signal.SIGKILL)  # it leaves its lock behind
        code = ended(child)
    assert code == -signal.SIGKILL and (run / folder.LOCK).is_file()
    train(run, existing="resume")
    assert not (run / folder.LOCK).exists()


def test_in_twenty_races_one_at_a_time_is_inside(tmp_path):
    for race in range(20):
        place, start, won = tmp_path / f"{race}", threading.Barrier(3), []
        inside, clashes = threading.Semaphore(1), []

        def claim(place=place, start=start, won=won, inside=inside, clashes=clashes):
            start.wait()
            for _ in range(30):
                try:
                    with folder.claimed(place):
                        won.append(1)
                        if not inside.acquire(blocking=False):
                            clashes.append(1)
                            continue
                        time.sleep(0.0002)
                        inside.release()
                except RunError:
                    continue

        threads = [threading.Thread(target=claim) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won and not clashes


def test_twenty_races_of_processes_have_one_winner_each(tmp_path):
    """Three processes claim one folder at the same moment; whoever has it keeps it until the others have been refused."""
    for race in range(20):
        place, gate, told, done = tmp_path / f"{race}", os.pipe(), os.pipe(), os.pipe()

        def claim(place=place, gate=gate, told=told, done=done):
            os.read(gate[0], 1)
            try:
                with folder.claimed(place):
                    os.write(told[1], b"w")
                    os.read(done[0], 1)
            except RunError:
                os.write(told[1], b"r")

        children = [in_child(claim, tmp_path / "log") for _ in range(3)]
        os.write(gate[1], b"...")
        heard = b"".join(os.read(told[0], 1) for _ in children)
        os.write(done[1], b".")
        assert sorted(heard) == sorted(b"wrr"), (race, heard)
        assert [ended(child) for child in children] == [0, 0, 0]
        assert not place.exists() or list(place.iterdir()) == []  # whoever made it may not have won it
        for end in (*gate, *told, *done):
            os.close(end)


@pytest.mark.slow
def test_twenty_races_of_whole_runs_have_one_winner_each(start, tmp_path):
    """Both begin at the same moment; one trains, the other is refused, whenever it comes; the run is whole."""
    for race in range(20):
        place = tmp_path / f"{race}" / "run"
        codes = sorted(map(ended, [start(place, steps=3, validation=None) for _ in range(2)]))
        log = (tmp_path / "log").read_text()
        assert codes == [0, 2] or (codes == [0, 0] and "resuming at step 3" in log), log
        assert [e["event"] for e in events.read(place)].count("finished") == codes.count(0)


# ---------------------------------------------------------------------------------------------- no room
@pytest.mark.parametrize("part", ["checkpoint", "snapshot", "events"])
def test_a_full_disk_tears_nothing(run, train, tmp_path, part):
    """The system refuses every file above a size: the checkpoint's is the largest, the snapshot's smaller."""
    sizes = {p: p.stat().st_size for p in run.rglob("*") if p.is_file()}
    limit = {
        "checkpoint": max(sizes.values()) - 100,
        "snapshot": sizes[run / "snapshots" / "step-000004.safetensors"] - 100,
        "events": sizes[run / "events.jsonl"] + 300,
    }[part]
    assert part != "events" or limit < 5000
    before = content(run, "checkpoints", "snapshots")

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        train(run, existing="resume", steps=8, schedule="cosine", validation=None, allow=["steps"])

    log = tmp_path / "log"
    log.touch()
    code = ended(in_child(work, log))
    assert code == 2, log.read_text()
    error = log.read_text().splitlines()[-1]
    assert error.startswith("error: the ") and "--resume" in error and str(run) in error
    assert part != "checkpoint" or "checkpoint of step 6 could not be written: File too large" in error
    after = content(run, "checkpoints", "snapshots")
    assert {name: after[name] for name in before} == before
    assert all(files.damage(state) is None for state in checkpoint.states(run))
    assert not list(run.rglob(f"{files.TEMPORARY}*"))


def test_no_room_while_a_checkpoint_is_written_keeps_the_older_ones(run, monkeypatch):
    """Each of the writes and syncs of one save fails once."""
    state = checkpoint.load(run / "checkpoints" / "step-000004")
    state.step = 5
    before, failed = content(run), 0
    for number in range(1, 100):
        left, sync = number, files.sync

        def full(path, sync=sync):
            nonlocal left
            left -= 1
            if not left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            sync(path)

        with monkeypatch.context() as patch:
            patch.setattr(files, "sync", full)
            try:
                checkpoint.save(run, state)
            except RunError as error:
                failed += 1
                assert "step 5" in error.message and "No space left" in error.message
                assert error.given == run / "checkpoints" / "step-000005"
                found = content(run)
                assert all(found[name] == data for name, data in before.items())
            else:
                break
    assert failed >= 8
    assert [path.name for path in checkpoint.states(run)] == ["step-000004", "step-000005"]
    assert checkpoint.newest(run).step == 5


def test_a_kill_between_two_renames_loses_no_folder(tmp_path, monkeypatch):
    old, new = tmp_path / "adapter", tmp_path / f"{files.TEMPORARY}1-adapter"
    for place, text in ((old, "old"), (new, "new")):
        place.mkdir()
        (place / "file").write_text(text)
    child = os.fork()
    if not child:
        rename = type(old).rename

        def killed_after(self, target):
            rename(self, target)
            os.kill(os.getpid(), signal.SIGKILL)

        type(old).rename = killed_after
        files.replace_folder(new, old)
        os._exit(0)
    assert ended(child) == -signal.SIGKILL and not old.exists()
    files.sweep(tmp_path)
    assert (old / "file").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["adapter"]


def test_what_a_kill_left_half_written_is_swept(run):
    places = [run, run / "checkpoints", run / "snapshots", next((run / "previews").iterdir())]
    for place in places:
        (place / f"{files.TEMPORARY}0-a.png").write_bytes(b"half")
        (place / f"{files.TEMPORARY}0-b").mkdir()
    with folder.claimed(run):
        assert not list(run.rglob(f"{files.TEMPORARY}*"))


def test_a_setting_that_an_older_version_did_not_know_stands_at_its_default(run):
    now = folder.read(run)
    older = {**now, "settings": {name: value for name, value in now["settings"].items() if name != "max_grad_norm"}}
    assert folder.differences(older, now) == {}
    changed = {**now, "settings": {**now["settings"], "max_grad_norm": 0.5}}
    assert folder.differences(older, changed) == {"max_grad_norm": (1.0, 0.5)}
