"""What a person is told who mistypes a command: one line, by whichever door, and the program's name as it was typed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2p_dist import cli
from p2p_dist.cli import command_line, submit
from p2p_dist.common import console, files
from p2p_dist.settings import presets
from tests.song_files import write_stems

CHECKOUT = Path(__file__).resolve().parents[2]

MISTAKES = [
    ("submit --nods 2", "unknown option --nods; did you mean --nodes?"),
    ("submit --nods=2", "unknown option --nods; did you mean --nodes?"),
    ("submit --train.learning-rte 1", "unknown option --train.learning-rte; did you mean --train.learning-rate?"),
    ("submit --nodes x", "--nodes must be a whole number, not 'x'"),
    ("submit --nodes 2 3", "unknown argument 3; 'p2p-dist submit --help' lists what is available"),
    ("submit --nodes", "--nodes needs a value; 'p2p-dist submit --help' lists the options"),
    ("submit --train.steps x", "--train.steps must be a whole number or None, not 'x'"),
    ("submit --train.l1-weight fast", "--train.l1-weight must be a number, not 'fast'"),
    (
        "submit --cluster slrm",
        "--cluster must be one of auto, local, slurm, lumi, frontier, leonardo, roihu, marenostrum5, "
        "juwels_booster, jupiter, perlmutter, karolina, snellius, daint, jean_zay, not 'slrm'; did you mean slurm?",
    ),
    ("submit --zzzqq 1", "unknown option --zzzqq; 'p2p-dist submit --help' lists what is available"),
    ("submit -- --preset tiny", "unknown option --: omit it; 'p2p-dist submit --help' lists what is available"),
    ("submit --nodes 0", "nodes must be greater than 0, not 0"),
    ("preprocess --workers x", "--workers must be a whole number or None, not 'x'"),
    ("preprocess --task", "--data.task needs a value; 'p2p-dist preprocess --help' lists the options"),
    ("preprocess --preset drms", "unknown preset 'drms': there are default, plain, small, sketch, demo, tiny, thesis"),
    ("evaluate r --checkpoints a", "--checkpoints must be a whole number or best, not 'a'"),
    ("evaluate", "name a run, or audio files with --files 'DIR/{input,output,target}/*.wav'"),
    ("export r", "--out is missing; 'p2p-dist export --help' lists the options"),
    ("status --jsn", "unknown option --jsn; did you mean --json?"),
    ("cancel", "RUN is missing; 'p2p-dist cancel --help' lists the options"),
    ("check", "choose one of preflight, scaling, drill; 'p2p-dist check --help' describes each"),
    ("check prefl", "unknown argument prefl; did you mean preflight?"),
    ("check --nodes 3", "before --nodes, name one of preflight, scaling, drill"),
    ("statuses", "unknown argument statuses; did you mean status?"),
    ("", f"choose one of {', '.join(cli.COMMANDS)}; 'p2p-dist --help' describes each"),
]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("MUSDB_PATH", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(cli.os, "umask", lambda mask: mask)
    return tmp_path


def p2p_dist(monkeypatch, *words):
    """Type a command of the program that a wheel installs; its exit code."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/p2p-dist", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code or 0


def test_a_command_line_is_parsed_once_and_the_width_of_the_terminal_stays(place, monkeypatch, capsys):
    """It takes a twentieth of a second. Help is as wide as the terminal, the line of a mistake is not broken."""
    parse, parsed = command_line.tyro.cli, []
    monkeypatch.setattr(command_line.tyro, "cli", lambda *what, **how: parsed.append(how) or parse(*what, **how))
    monkeypatch.setenv("COLUMNS", "70")
    with pytest.raises(ValueError, match=r"--cluster must be one of auto.*, not 'slrm'"):
        submit.parse(["--cluster", "slrm"])
    assert len(parsed) == 1 and os.environ["COLUMNS"] == "70"
    begun = place / "runs" / "begun" / "config.yaml"
    files.write_text(begun, presets.to_yaml(presets.preset("tiny")))
    assert submit.parse(["--run", "begun"])[0].settings.preset == "tiny" and len(parsed) == 2
    with pytest.raises(SystemExit):
        submit.parse(["--help"])
    lines = capsys.readouterr().out.splitlines()[5:]  # tyro does not break those above, and its oldest version joins them
    assert len(lines) > 100 and max(map(len, lines)) < 100  # a word may be longer than a line


@pytest.mark.parametrize(("typed", "said"), MISTAKES)
def test_a_mistake_is_one_line_that_says_what_to_do(typed, said, monkeypatch, capsys, place):
    assert p2p_dist(monkeypatch, *typed.split()) == console.USAGE
    shown = capsys.readouterr()
    assert shown.err == f"error: {said}\n" and shown.out == "" and not (place / "runs").exists()


def test_a_file_whose_name_looks_like_an_option(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("-a song.wav").touch()
    assert p2p_dist(monkeypatch, "generate", "-a song.wav") == console.USAGE
    assert "unknown option -a song.wav; to name the file, type './-a song.wav'" in capsys.readouterr().err


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_names_the_command_and_leaves_with_0(command, monkeypatch, capsys):
    assert p2p_dist(monkeypatch, command, "--help") == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"usage: p2p-dist {command}") and shown.err == ""


def test_help_lists_the_commands(monkeypatch, capsys):
    assert p2p_dist(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    assert all(f"• {command} " in shown for command in cli.COMMANDS)
    assert p2p_dist(monkeypatch, "--version") == 0 and capsys.readouterr().out.startswith("p2p_dist 0.")


def completed(script, *words):
    """What bash offers for the last of these words, by a completion script."""
    program = """source /dev/stdin; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
    read -r _ _ function _ <<<"$(complete -p "$1")"; "$function"; printf '%s\\n' "${COMPREPLY[@]}" """
    done = subprocess.run(["bash", "-c", program, "bash", *words], input=script, capture_output=True, text=True, check=True)
    return sorted(done.stdout.split())


def test_bash_completes_commands_and_options_of_the_program(monkeypatch, capsys):
    assert p2p_dist(monkeypatch, "--tyro-print-completion", "bash") == 0
    script = capsys.readouterr().out
    assert completed(script, "p2p-dist", "s") == ["site", "status", "submit"]
    assert "--nodes" in completed(script, "p2p-dist", "submit", "--nod")
    assert "--train.learning-rate" in completed(script, "p2p-dist", "submit", "--train.l")


@pytest.mark.parametrize(
    ("started", "command", "again"),
    [
        ("launch/submit.py", "python launch/status.py", "python launch/status.py r"),
        ("../p2p/launch/submit.py", "python launch/status.py", "python ../p2p/launch/status.py r"),
        ("/opt/bin/p2p-dist", "p2p-dist status", "/opt/bin/p2p-dist status r"),
        ("ON_PATH/p2p-dist", "p2p-dist status", "p2p-dist status r"),
        ("bin/p2p-dist", "p2p-dist status", "bin/p2p-dist status r"),
    ],
)
def test_what_to_type_to_go_on_names_the_door_that_was_used(started, command, again, tmp_path, monkeypatch):
    monkeypatch.delenv("P2P_RUNS")
    monkeypatch.setattr(sys, "executable", "python")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "p2p-dist").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(sys, "argv", [started.replace("ON_PATH", str(tmp_path / "path"))])
    assert console.command("status") == command
    assert console.again("status", ["r"]) == again


@pytest.mark.parametrize(
    ("typed", "values", "rest"),
    [
        ("--task a --nodes 2 --task=b,c", ["a", "b,c"], ["--nodes", "2"]),
        ("--nodes 2 --task", [], ["--nodes", "2", "--task"]),
        ("--task --nodes 2", [], ["--task", "--nodes", "2"]),
        ("--data.task a --tasks b", ["a"], ["--tasks", "b"]),
    ],
)
def test_an_option_that_may_come_twice_is_taken_out(typed, values, rest):
    assert command_line.take_option(typed.split(), "--task", "--data.task") == (values, rest)


def test_a_missing_package_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "p2p_dist.cli.figures", None)
    monkeypatch.delitem(sys.modules, "p2p_dist.cli.submit", raising=False)
    monkeypatch.setitem(sys.modules, "tyro", None)
    monkeypatch.delitem(sys.modules, "p2p_dist.cli.command_line", raising=False)
    assert p2p_dist(monkeypatch, "submit") == console.USAGE
    said = capsys.readouterr().err
    assert said.startswith("error: the package tyro is missing in ") and "pip install" in said and said.count("\n") == 1


def test_commands_import_nothing_that_a_login_node_lacks():
    code = (
        "import sys, importlib; from p2p_dist import cli\n"
        "[importlib.import_module(f'p2p_dist.cli.{name}') for name in cli.COMMANDS]\n"
        "print(*{'torch', 'numpy', 'av', 'soundfile'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(("before", "after"), [(0o000, 0o022), (0o027, 0o027), (0o077, 0o077), (0o777, 0o077), (0o337, 0o037)])
def test_files_of_a_command_are_written_by_their_owner_alone(before, after, monkeypatch):
    """Who could not read or write them again could not go on with a run."""
    masks = [before]
    monkeypatch.setattr(cli.os, "umask", lambda mask: masks.append(mask) or masks[-2])
    monkeypatch.setattr(cli.console, "exit_with", lambda main: None)
    cli.run(None, [])
    assert masks[-1] == after


def test_a_result_that_a_full_disk_takes_is_an_error(place):
    """Not an empty file and exit code 0. The first line of output fails, as where the disk is full before the command."""
    (place / "runs").mkdir()
    for words in (["status", "--json"], ["submit", "--preset", "tiny", "--dry-run"]):
        with Path("/dev/full").open("w") as full:
            command = [sys.executable, f"launch/{words[0]}.py", *words[1:]]
            done = subprocess.run(command, cwd=CHECKOUT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
        assert done.returncode == 1 and "the output of this command (the disk is full" in done.stderr, words


def test_a_current_folder_that_was_removed_is_named(place, monkeypatch, capsys):
    (place / "gone").mkdir()
    monkeypatch.chdir(place / "gone")
    monkeypatch.delenv("P2P_RUNS")
    (place / "gone").rmdir()
    assert p2p_dist(monkeypatch, "status") == console.FAILED
    said = "error: the current folder was removed: go to another one, and run the command again\n"
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize("words", [["status"], ["status", "run"], ["preprocess", "--data", "songs", "--out", "link"]])
def test_a_link_to_itself_is_a_message(words, place, monkeypatch, capsys):
    """Path.resolve raises RuntimeError there, before Python 3.13."""
    write_stems(place / "songs" / "train" / "a")
    (place / "runs").mkdir()
    for link in (place / "runs" / "run", place / "link"):
        link.symlink_to(link.name)
    monkeypatch.setenv("P2P_RUNS", str(place / ("runs" if "run" in words else "link")))
    monkeypatch.chdir(place)
    assert p2p_dist(monkeypatch, *words) in (console.USAGE, console.FAILED)
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and any(name in said for name in ("link", "runs/run")), said


def test_commands_start_where_python_leaves_out_the_folder_of_a_script(place):
    command = [sys.executable, CHECKOUT / "launch" / "status.py", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONSAFEPATH": "1"}, cwd=place)
    assert done.returncode == 0 and "usage: " in done.stdout, done


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("words", ["submit.py --help", "preprocess.py --data SONGS --out OUT --preset tiny --workers 1"])
def test_a_stream_that_the_caller_has_closed_is_no_traceback(words, closed, tmp_path):
    """As cron jobs and daemons do. A library that writes to it must not write into a file of ours."""
    write_stems(tmp_path / "songs" / "train" / "a")
    words = words.replace("SONGS", str(tmp_path / "songs")).replace("OUT", str(tmp_path / "out"))
    command = f"exec {sys.executable} {CHECKOUT}/launch/{words} {closed}"
    environment = {**os.environ, "P2P_RUNS": str(tmp_path / "runs")}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert words.startswith("preprocess") == (tmp_path / "out" / "manifest.json").is_file()
