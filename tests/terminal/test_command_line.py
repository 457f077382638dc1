"""What the commands share: lists, the nearest right name, and how they end."""

import argparse

import pytest

from mnist_bn.errors import UsageError, UserError
from mnist_bn.terminal import command_line
from mnist_bn.terminal.command_line import ListAction, Parser, one_of


def parse(*words):
    usage = "%(prog)s [--model NAME ...]"
    parser = Parser("it.py", usage, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--epoch", type=int)
    parser.add_argument("-m", "--model", action=ListAction)
    parser.add_argument("--seed", action=ListAction, of=int, expected="whole numbers")
    parser.add_argument("--format", action=ListAction, of=one_of(("png", "svg")), default=["png"])
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["A"], ["A"]),
        (["m", "model"], ["m", "model"]),  # called as the flags are
        (["A", "B"], ["A", "B"]),
        (["A,B"], ["A", "B"]),
        (["A,", "B", ",C"], ["A", "B", "C"]),
        (["A, B"], ["A", "B"]),
        (["A", "B,A"], ["A", "B"]),
        (["A B"], ["A", "B"]),
        (["A, B C", "D"], ["A", "B", "C", "D"]),
        (["my nets/net.py:B,A"], ["my nets/net.py:B", "A"]),
        (["N (x=1, y=2),A B"], ["N (x=1, y=2)", "A", "B"]),
        (["N(x=1, y=2),N"], ["N(x=1, y=2)", "N"]),
        (["N(x=[1,2]),B"], ["N(x=[1,2])", "B"]),
        (["N(x=1,B"], ["N(x=1,B"]),
    ],
)
def test_a_list_with_spaces_or_commas_each_once(words, values):
    assert parse("--model", *words).model == values


def test_a_flag_given_again_adds_to_the_list():
    assert parse("--seed", "0", "--seed", "1,0").seed == [0, 1]
    assert parse("--seed", "0 1, 2").seed == [0, 1, 2]
    assert parse("--format", "svg").format == ["svg"]
    assert parse().format == ["png"]


def test_a_file_with_a_comma_in_its_name_is_one_value(tmp_path):
    (tmp_path / "a,b.py").touch()
    assert parse("--model", f"{tmp_path}/a,b.py:Net(x=1)").model == [f"{tmp_path}/a,b.py:Net(x=1)"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["--seed", "0,,1"],
            "argument --seed: '0,,1': nothing stands before or after a comma; expected whole "
            "numbers, with spaces or commas between (see --help)",
        ),
        (
            ["--seed", "0,x"],
            "argument --seed: 'x': expected whole numbers, with spaces or commas between "
            "(see --help)",
        ),
        (["--model", ""], "argument -m/--model: '': nothing stands"),
        (["--model", "A", "B,"], "argument -m/--model: 'A B,': nothing stands"),
        (["--model", ",A"], "argument -m/--model: ',A': nothing stands"),
        (
            ["--format", "pgn"],
            "argument --format: invalid choice: 'pgn' (expected png or svg); did you mean 'png'? "
            "(see --help)",
        ),
        (
            ["--modle", "A"],
            "unrecognized arguments: --modle A; did you mean '--model'? (see --help)",
        ),
        (
            ["--sede=1"],
            "unrecognized arguments: --sede=1; did you mean '--seed'? (see --help)",
        ),
        (["-model", "A"], "there is no flag -model; did you mean '--model'? (see --help)"),
        (["-seed=1"], "there is no flag -seed; did you mean '--seed'? (see --help)"),
        (["--colour"], "unrecognized arguments: --colour (see --help)"),
        (["--epoch", "2", "3", "2", "-x"], "--epoch takes one value, found also: 3 2 (see --help)"),
        (
            ["word"],
            "unrecognized arguments: word; a value follows its flag, as in "
            "it.py [--model NAME ...] (see --help)",
        ),
        (["--epoch", "2.5"], "argument --epoch: '2.5': expected a whole number (see --help)"),
        (["--lr", "big"], "argument --lr: 'big': expected a number (see --help)"),
    ],
)
def test_what_is_wrong_is_one_line(words, line):
    with pytest.raises(UsageError) as error:
        parse(*words)
    assert str(error.value).startswith(line)


def test_the_exit_status_and_the_line_of_an_action(capsys):
    def fail(error):
        def action():
            raise error

        return command_line.status_of(action, "it.py", "all is well")

    assert command_line.status_of(lambda: 0, "it.py", "all is well") == 0
    assert (fail(UserError("no disk")), fail(UsageError("no name"))) == (1, 2)
    assert fail(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == (
        "it.py: no disk\nit.py: no name\nit.py: interrupted; all is well\n"
    )
    with pytest.raises(ZeroDivisionError):
        command_line.status_of(lambda: 1 // 0, "it.py", "all is well")
