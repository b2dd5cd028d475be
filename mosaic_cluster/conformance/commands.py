"""Its command line: what it refuses, and how; what a dry run does. None of it needs the library."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from mosaic_cluster.catalog import ConfigField
from mosaic_cluster.conformance.declared import ask_all
from mosaic_cluster.conformance.findings import Failed, NotRun, Warned
from mosaic_cluster.conformance.laboratory import Ended, Laboratory, files_of

_REFUSED = 2
_NUMBER = re.compile(r"^(Optional\[)?(int|float)(\]| \| None)?$")


def bad_value(lab: Laboratory) -> None:
    """A value that cannot be is refused before anything is trained: exit code 2, and the reason on stderr."""
    wrong = wrong_values(lab)
    refused = refused_values(lab)
    if not refused:
        raise Failed(
            f"its config takes each of {_shown(wrong)}", "check values in from_dict: build_config does it from fields"
        )
    name = next(iter(refused[0]))
    done = lab.run({**lab.case.config, **refused[0]}, "--dry-run")
    _refused_well(done, _shown(refused[:1]))
    if done.code != _REFUSED:
        raise Warned(f"with {_shown(refused[:1])} it {done.how}", "end with exit code 2: a restart is then pointless")
    if name not in done.stderr:
        raise Warned(f"stderr does not say that {name} is wrong: {done.tail}", f"name the setting: {name}")
    taken = [each for each in wrong if each not in refused]
    if taken:
        raise Warned(f"its config takes {_shown(taken)}", "declare ranges: config_field(1000, help=..., min=1)")


def unknown_field(lab: Laboratory) -> None:
    """A setting that does not exist is refused, with the name that was meant: exit code 2."""
    known = [each.name for each in lab.usable.config_fields or () if each.name not in ("run_id", "seed")]
    meant = max(known, key=len, default="run_id")
    typo = meant[:-1] + ("x" if meant[-1] != "x" else "y")
    done = lab.run({**lab.case.config, typo: 1}, "--dry-run")
    if done.code == 0:
        raise Warned(
            f"the misspelt {typo!r} (for {meant!r}) is dropped without a word",
            "refuse unknown keys (build_config does): a typo must not train for a day with the default",
        )
    _refused_well(done, f"the misspelt {typo!r}")
    if typo not in done.stderr:
        raise Warned(f"stderr does not name the misspelt {typo!r}: {done.tail}", "say which setting does not exist")
    if meant not in done.stderr.replace(typo, ""):
        raise Warned(f"stderr does not say that {meant!r} may be meant: {done.tail}", "build_config does")


def payload_form(lab: Laboratory) -> None:
    """A config at metadata.worker.config of a trainer's payload is read as well."""
    refused = next(iter(refused_values(lab)), None)
    if refused is not None:
        done = lab.run({**lab.case.config, **refused}, "--dry-run", payload=True)
        if done.code == 0:
            raise Failed(
                f"it took a payload whose config has {_shown([refused])}: it did not look into it",
                "read the file with load_worker_config_from_file",
            )
        if not lab.case.library and next(iter(refused)) in done.stderr:
            return
    done = lab.run(lab.case.config, "--dry-run", payload=True)
    if done.code == 0:
        return
    if not lab.case.library:
        raise NotRun(f"the dry run needs the library: it {done.how}")
    if lab.dry.code == 0:
        raise Failed(
            f"it takes the config alone, but of the same as a payload it {done.how}: {done.tail}",
            "read the file with load_worker_config_from_file",
        )
    raise NotRun("a dry run does not end well with the config alone either")


def dry_run(lab: Laboratory) -> None:
    """A dry run ends well, having trained and written nothing."""
    done = lab.dry
    if done.code != 0:
        if not lab.case.library:
            raise NotRun(f"it needs the library: it {done.how}")
        raise Failed(f"it {done.how}: {done.tail}", "--dry-run checks everything that can be checked without training")
    left = files_of(done)
    if left:
        raise Failed(f"it wrote {', '.join(left[:5])}", "write nothing in a dry run")
    trained = [name for name in ("heartbeat", "checkpoint_saved") if done.events(name)]
    trained += ["episode"] if any(line.get("type") == "episode" for line in done.lines) else []
    if trained:
        raise Failed(f"it reported {', '.join(trained)}", "train nothing in a dry run")


def summary_and_flags(lab: Laboratory) -> None:
    """--emit-summary ends stdout with the summary; --grpc is taken, with a warning where it does nothing."""
    if not lab.usable.has_cli:
        raise NotRun("it has no cli of its own: such workers have no flags of their own either")
    if lab.dry.code != 0:
        raise NotRun("a dry run does not end well without these flags either")
    done = lab.run(lab.case.config, "--dry-run", "--emit-summary", "--grpc", "--worker-id", "w1")
    if done.code != 0:
        raise Warned(
            f"with --emit-summary, --grpc and --worker-id it {done.how}: {done.tail}", "run_program takes them"
        )
    last = done.lines[-1] if done.lines else {}
    if last.get("type") != "summary" or "status" not in last:
        raise Warned(
            f"the last line is no summary: {last}", 'end with {"type": "summary", "run_id": ..., "status": ...}'
        )
    if last.get("run_id") != done.run_id:
        raise Warned(
            f"the summary's run_id is {last.get('run_id')!r}, and the run is {done.run_id!r}", "keep the run's"
        )
    if "grpc" not in done.stderr.lower():
        raise Warned("--grpc is accepted without a word", "say on stderr what becomes of it")


def wrong_values(lab: Laboratory) -> list[dict[str, Any]]:
    """Values that the config's fields cannot have, one each; by their declared ranges, else of a wrong type."""
    found = [
        {each.name: value}
        for each in lab.usable.config_fields or ()
        for value in _wrong(each)
        if each.name not in ("run_id", "seed")
    ]
    if not found:
        raise NotRun("no value is known to be wrong for it: its fields declare no ranges, choices or numbers")
    return found


def _wrong(field: ConfigField) -> Iterator[Any]:
    if field.choices:
        yield "no-such-choice"
    elif field.min is not None:
        yield field.min - 1
    elif field.exclusive_min is not None:
        yield field.exclusive_min
    elif field.max is not None:
        yield field.max + 1
    elif _NUMBER.match(field.type):
        yield "not a number"


def refused_values(lab: Laboratory) -> list[dict[str, Any]]:
    """Those of :func:`wrong_values` that its config class refuses."""
    if lab.refused is None:
        wrong = wrong_values(lab)
        answers = ask_all(lab, [{**lab.case.config, "run_id": "bad-value", "seed": 1, **each} for each in wrong])
        broken = [answer["error"] for answer in answers if answer["error"]]
        if broken:
            raise NotRun(f"its config cannot be built from outside: {broken[0]}")
        lab.refused = [each for each, answer in zip(wrong, answers, strict=True) if answer["problems"]]
    return lab.refused


def _refused_well(done: Ended, what: str) -> None:
    if done.code == 0:
        raise Failed(f"its config class refuses {what}, but its process does not", "let the error end it: exit code 2")
    if done.code is None:
        raise Failed(f"with {what} it {done.how}", "check the config before anything else")
    if done.impure:
        raise Failed(f"it says so on stdout: {done.impure[0][:200]!r}", "stdout belongs to telemetry: use stderr")
    if done.events("heartbeat"):
        raise Failed(f"with {what} it trained", "check the config before anything else")
    if not done.stderr.strip():
        raise Failed(f"with {what} it {done.how} and does not say why", "say what is wrong on stderr")


def _shown(values: list[dict[str, Any]]) -> str:
    return ", ".join(f"{name}: {value!r}" for each in values for name, value in each.items())


CHECKS = (bad_value, unknown_field, payload_form, dry_run, summary_and_flags)
