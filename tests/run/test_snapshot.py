"""A run's copy of the code is run only where it is the user's own and whole: whatever others put into a folder of runs."""

import dataclasses
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from p2p_dist.common import files
from p2p_dist.jobs import begin_run, site
from p2p_dist.jobs.slurm import specs
from p2p_dist.run import rundir, snapshot
from p2p_dist.settings import config, presets

CHECKOUT = Path(__file__).resolve().parents[2]

SETTINGS = presets.preset("tiny")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "it's" / "runs"))
    return rundir.find("mine")


@pytest.fixture
def begun(run):
    """A run that was begun, and nothing more."""
    begin_run.begin(run, SETTINGS, "songs")
    return run


def extra_file(run):
    (run.code / "sitecustomize.py").write_text("raise SystemExit(77)")


def changed_file(run):
    path = run.code / "p2p_dist" / "common" / "console.py"
    path.write_text(path.read_text() + "\n")


def missing_file(run):
    (run.code / "hpc" / "rank.sh").unlink()


def link_for_a_file(run):
    path = run.code / "hpc" / "rank.sh"
    path.rename(run.path / "rank.sh")
    path.symlink_to(run.path / "rank.sh")


def link_for_the_code(run):
    run.code.rename(run.path / "elsewhere")
    run.code.symlink_to("elsewhere")


def file_for_everybody(run):
    (run.code / "hpc" / "rank.sh").chmod(0o666)


def folder_for_everybody(run):
    (run.code / "p2p_dist").chmod(0o777)


def code_for_everybody(run):
    run.code.chmod(0o777)


def pipe(run):
    os.mkfifo(run.code / "p2p_dist" / "pipe")


HARM = [
    extra_file,
    changed_file,
    missing_file,
    link_for_a_file,
    link_for_the_code,
    file_for_everybody,
    folder_for_everybody,
    code_for_everybody,
    pipe,
]


def batch_script(run):
    """The lines of a job's script that come before its code, and a word in place of that."""
    (job,) = specs.jobs(run, SETTINGS, site.load_site("slurm"), ("train",))
    last = shlex.join(["exec", "bash", str(run.code / "hpc" / "job.sh"), "train", str(run.path)])
    assert last in job.script()
    return job.script().replace(last, "echo would run")


def template(run):
    text = (CHECKOUT / "hpc" / "train.sbatch").read_text()
    last = 'exec bash "$run/code/hpc/job.sh" train "$run"'
    assert last in text
    return f"set -- {shlex.quote(str(run.path))}; SLURM_JOB_ID=7\n" + text.replace(last, "echo would run")


def answer(script):
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, timeout=20)
    return done.returncode, done.stdout, done.stderr


def test_what_belongs_to_the_code_in_a_checkout_and_in_a_wheel(tmp_path):
    """In a wheel hpc/ lies inside the package. What Python, an editor or a killed writer left there does not belong to it."""
    for name in ("cli/a.py", "b.yaml", "__pycache__/b.txt", "c.pyc", ".tmp-d", "back\\slash"):
        files.write_text(tmp_path / "p2p_dist" / name, "")
    for hpc in ("hpc", "p2p_dist/hpc"):
        files.write_text(tmp_path / hpc / "env" / "job.sh", "")
        found = snapshot._code(tmp_path)
        assert found == {
            "p2p_dist/cli/a.py": tmp_path / "p2p_dist" / "cli" / "a.py",
            "p2p_dist/b.yaml": tmp_path / "p2p_dist" / "b.yaml",
            "hpc/env/job.sh": tmp_path / hpc / "env" / "job.sh",
        }


@pytest.mark.parametrize("harm", HARM)
def test_harmed_code_is_run_in_no_way(harm, begun):
    harm(begun)
    for ask in (
        lambda: begin_run.begin(begun, SETTINGS, "songs"),
        lambda: begin_run.check_begin(begun, SETTINGS, "songs"),
        lambda: snapshot.environment(begun.code),
    ):
        with pytest.raises(ValueError, match=r"code.*(nothing was run|nothing was run)"):
            ask()
    for script in (batch_script(begun), template(begun)):
        code, said, error = answer(script)
        assert (code, said) == (2, "") and str(begun.code) in error and "nothing was run" in error, error


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
@pytest.mark.parametrize("what", ["", "code", "code/p2p_dist", "code/hpc/rank.sh", "config.yaml"])
def test_what_belongs_to_another_is_run_in_no_way(what, begun):
    os.chown(begun.path / what, 4321, -1)
    with pytest.raises(ValueError, match="belongs to user 4321, not to "):
        begin_run.begin(begun, SETTINGS, "songs")
    code, said, error = answer(batch_script(begun))
    if what != "config.yaml" or code:
        assert (code, said) == (2, "") and "nothing was run" in error


def test_what_is_as_it_was_left_is_run(begun):
    (begun.code / "p2p_dist" / "__pycache__").mkdir()
    (begun.code / "p2p_dist" / "__pycache__" / "console.cpython-311.pyc").write_bytes(b"another's")
    for script in (batch_script(begun), template(begun)):
        code, said, error = answer(script)
        assert (code, said) == (0, "would run\n"), error
    assert not (begun.code / "p2p_dist" / "__pycache__").exists(), "it would be run in place of what was checked"
    (begun.code / "p2p_dist" / "__pycache__").mkdir()
    environment = {**os.environ, **snapshot.environment(begun.code)}
    command = [sys.executable, "-P", "-c", "import p2p_dist.common.files; print(p2p_dist.common.files.__file__)"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20)
    assert done.stdout == f"{begun.code}/p2p_dist/common/files.py\n"
    snapshot.check(begun.code)
    assert not list(begun.code.rglob("__pycache__"))


def test_code_that_was_there_before_the_run_is_not_run(run):
    """A colleague makes runs/NAME/code before the first launch of that name."""
    (run.code / "p2p_dist").mkdir(parents=True)
    (run.code / "p2p_dist" / "__init__.py").write_text("raise SystemExit(77)")
    with pytest.raises(ValueError, match=r"config\.yaml does not.*did not create this run.*--run NAME"):
        begin_run.begin(run, SETTINGS, "songs")
    assert not run.config.exists()
    shutil.rmtree(run.code)
    snapshot.copy_code(run.code)  # a launch that was killed before it wrote the settings
    begin_run.begin(run, SETTINGS, "songs")


def test_the_copy_can_be_written_by_no_other_whatever_the_umask(run):
    before = os.umask(0o002)
    try:
        begin_run.begin(run, SETTINGS, "songs")
    finally:
        os.umask(before)
    assert not [path for path in (run.code, *run.code.rglob("*")) if path.stat().st_mode & 0o022]


def test_a_run_that_others_could_write_in_is_closed(run, capsys):
    run.path.mkdir(parents=True)
    run.path.chmod(0o777)
    begin_run.begin(run, SETTINGS, "songs")
    assert run.path.stat().st_mode & 0o777 == 0o755 and "it was removed" in capsys.readouterr().out


def test_settings_that_others_could_have_changed_are_not_followed(begun):
    begun.config.chmod(0o666)
    with pytest.raises(ValueError, match=r"config\.yaml is writable by everybody"):
        begin_run.check_begin(begun, SETTINGS, "songs")


def test_the_copy_of_an_earlier_version_goes_on_and_is_recorded(begun, capsys):
    """It has no record of its files, and what Python cached; a umask of 002 left it open to the user's own group."""
    (begun.code / snapshot.SUMS).unlink()
    (begun.code / "p2p_dist" / "__pycache__").mkdir()
    (begun.code / "p2p_dist" / "old.py").write_text("x = 1\n")
    if not files.is_our_own_group(os.getegid()):
        pytest.skip("the user has no group of its own")
    for path in begun.code.rglob("*.py"):
        path.chmod(0o664)
    begin_run.check_begin(begun, SETTINGS, "songs")
    assert not snapshot.has_record(begun.code), "a dry run writes nothing"
    begin_run.begin(begun, SETTINGS, "songs")
    assert snapshot.SUMS in capsys.readouterr().out
    assert answer(batch_script(begun))[:2] == (0, "would run\n")
    extra_file(begun)
    with pytest.raises(ValueError, match=r"sitecustomize\.py is no file of the copy"):
        begin_run.begin(begun, SETTINGS, "songs")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a link of another user's")
def test_a_run_that_is_a_link_of_another_users_is_refused(begun, tmp_path):
    link = begun.path.parent / "other"
    link.symlink_to(begun.path)
    assert rundir.find("other").path == begun.path, "the user's own links are followed"
    os.lchown(link, 4321, -1)
    with pytest.raises(ValueError, match="link that another user created"):
        rundir.find("other")


@pytest.mark.parametrize("where", ["page/media", "checkpoints", "evaluations/step-00000010/audio", "metrics.jsonl"])
def test_a_run_with_a_link_in_it_is_not_begun(where, begun, tmp_path):
    victim = tmp_path / "precious"
    victim.mkdir()
    (begun.path / where).parent.mkdir(parents=True, exist_ok=True)
    (begun.path / where).symlink_to(victim)
    with pytest.raises(ValueError, match=rf"{where} is a link.*precious.*remove the link"):
        begin_run.begin(begun, SETTINGS, "songs")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another group")
@pytest.mark.parametrize(("group", "alone"), [(0, True), (4321, False)])
@pytest.mark.parametrize("where", ["code", "code/hpc/rank.sh", "config.yaml"])
def test_python_and_the_batch_scripts_agree_on_groups(where, group, alone, begun):
    """What a group can write is run where the group is of this user alone; the launcher closes it, or says how."""
    path = begun.path / where
    os.chown(path, -1, group)
    path.chmod(path.stat().st_mode | 0o020)
    for script in (batch_script(begun), template(begun)):
        code, said, error = answer(script)
        assert (code, said) == ((0, "would run\n") if alone else (2, "")), error
        assert alone or f"chmod -R go-w {begun.path}".replace("'", "\\'") in error
    if not alone:
        with pytest.raises(ValueError, match=r"by the group 4321.*chmod -R go-w .*then run"):
            begin_run.begin(begun, SETTINGS, "songs")
        subprocess.run(["chmod", "-R", "go-w", begun.path], check=True, timeout=20)
    begin_run.begin(begun, SETTINGS, "songs")
    assert not path.stat().st_mode & 0o022
    assert answer(batch_script(begun))[:2] == (0, "would run\n")


def test_a_message_names_a_file_that_is_there(tmp_path):
    """In a checkout, where a wheel was installed, in a run's copy of the code."""
    checkout, wheel, copy = (tmp_path / name for name in ("checkout", "wheel", "copy"))
    for path in ("checkout/hpc/s.yaml", "checkout/containers/R.md", "wheel/p2p_dist/hpc/s.yaml", "copy/hpc/s.yaml"):
        files.write_text(tmp_path / path, "")
    assert [snapshot.where_is("hpc/s.yaml", root) for root in (checkout, copy)] == ["hpc/s.yaml"] * 2
    assert snapshot.where_is("hpc/s.yaml", wheel) == str(wheel / "p2p_dist/hpc/s.yaml")
    assert snapshot.where_is("containers/R.md", checkout) == "containers/R.md"
    for root in (wheel, copy):
        assert snapshot.where_is("containers/R.md", root) == "containers/R.md in the source code of p2p_dist"


@pytest.mark.parametrize("text", [template, batch_script])
def test_a_script_runs_nothing_in_a_folder_with_a_control_character(text, begun):
    script = text(begun)
    begun.path.rename(begun.path.with_name("mine\x1b"))
    script = script.replace("/runs/mine", "/runs/mine\x1b")
    code, said, error = answer(script)
    assert (code, said) == (2, "") and "control character" in error, error


def test_the_templates_check_as_the_launchers_scripts_do():
    lines = (CHECKOUT / "hpc" / "check_code.sh").read_text().split("\n", 1)[1]
    for stage in ("preprocess", "train", "evaluate"):
        text = (CHECKOUT / "hpc" / f"{stage}.sbatch").read_text()
        assert lines in text and text.index(lines) < text.index('exec bash "$run/code')


def test_a_local_stage_of_harmed_code_is_refused_in_words(run, tmp_path):
    """As typed: the run stops at preprocessing, what was planted is not run."""
    begin_run.begin(run, dataclasses.replace(SETTINGS, resources=config.Resources()), "songs")
    (run.code / "sitecustomize.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')")
    command = [sys.executable, "launch/submit.py", "--run", "mine", "--cluster", "local"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "sitecustomize.py is no file of the copy" in done.stderr, done
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "pwned").exists()


def test_links_of_weights_and_biases_are_its_own_and_others_beside_them_are_not(begun, tmp_path):
    """If it failed: no run that it follows could be resumed, evaluated or requeued."""
    inside = begun.path / "trackers" / "wandb" / "from-0" / "wandb"
    inside.mkdir(parents=True)
    (inside / "latest-run").symlink_to("offline-run-1")
    rundir.check_own(begun)
    for path in ("trackers/wandb/from-4", "trackers/wandb/latest", "trackers/from-0", "trackers/code"):
        (begun.path / path).symlink_to(tmp_path)
        with pytest.raises(ValueError, match=f"{path} is a link"):
            rundir.check_own(begun)
        (begun.path / path).unlink()


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_folder_of_runs_in_which_others_can_rename_is_refused(mode, begun):
    """They could put another run, with other code, in the place of this one while its job runs."""
    root = begun.path.parent
    if mode == 0o775 and os.geteuid() == 0:
        os.chown(root, -1, 4321)
    root.chmod(mode)
    with pytest.raises(ValueError, match=r"other users can write in .*/runs, so they could replace the run and its code"):
        begin_run.begin(begun, SETTINGS, "songs")
    for script in (batch_script(begun), template(begun)):
        code, said, error = answer(script)
        assert (code, said) == (2, "") and "other users can write in" in error and "chmod +t" in error
    root.chmod(mode | 0o1000)  # as /tmp
    begin_run.begin(begun, SETTINGS, "songs")
    for script in (batch_script(begun), template(begun)):
        assert answer(script)[:2] == (0, "would run\n")
