"""Tables on a narrow terminal."""

from __future__ import annotations

from conftest import Lab


def test_the_id_of_an_experiment_is_whole_on_80_columns(inline: Lab) -> None:
    done = inline.run({"steps": 3}, name="a-name-as-long-as-people-like-them")
    assert done.returncode == 0, done.stdout + done.stderr
    inline.env["COLUMNS"] = "80"
    lines = inline.mosaic("ls").stdout.splitlines()
    (line,) = (line for line in lines if line.startswith(inline.experiment.path.name))
    assert line.split()[1:4] == ["run", "COMPLETED", "1/1"]
