"""Bad specs, each with every message it gets, word for word."""

from __future__ import annotations

from typing import Any

import pytest

from mosaic_cluster.specs import load, parse, read_document
from mosaic_cluster.worker.errors import SpecError

SIZES = "give bytes, or a number with a unit (KiB, MiB, GiB, TiB; kB, MB, GB, TB), e.g. 10GiB or 8000MB"
DURATIONS = "give seconds, or numbers with the units w, d, h, m, s, ms, e.g. 30m, 1h30m or 2d"
NAMES = (
    "a name has 1 to 120 letters, digits, '.', '_' and '-', and starts with a letter or digit, "
    "e.g. cartpole-1"
)
STORAGE = "storage is a path, e.g. ./mosaic-results, or s3://bucket/prefix"
MODELS = "give a GPU's model, e.g. A100, or several of which any will do, e.g. [A100, H100]"
CONDITIONS = "give v, !v, in(a,b) or !in(a,b), where values have up to 63 letters, digits, '.', '_' and '-'"
SEEDS = "give a whole number from 0 to 4294967295, e.g. 1"
WORKERS = "give text of 1 to 120 characters, e.g. cleanrl"
KEYS = (
    "kind, name, label, worker, worker_module, config, seed, resources, population, priority, weight, on_oom, limits, "
    "storage, telemetry, environment, command, run_id, notes"
)

# What is added to a good spec, and all that is said about it.
CHANGES: list[tuple[str, list[str]]] = [
    ("kind: rnu", ["kind: 'rnu' is no kind of spec; give one of: run, sweep"]),
    ("kind: [run]", ["kind: a list is no kind of spec; give one of: run, sweep"]),
    ("name: ''", [f"name: '' is empty; {NAMES}"]),
    ("name: my run!", [f"name: 'my run!' holds ' ', '!'; {NAMES}"]),
    ("name: -x", [f"name: '-x' starts with '-'; {NAMES}"]),
    ("name: ../x", [f"name: '../x' holds '/'; {NAMES}"]),
    ("name: 2024", [f"name: 2024 is not text; put it in quotes; {NAMES}"]),
    (f"name: {'x' * 121}", [f"name: '{'x' * 57}...' has 121 characters; {NAMES}"]),
    ("worker:", [f"worker: null is not text; {WORKERS}"]),
    ("worker: [cleanrl]", [f"worker: a list is not text; {WORKERS}"]),
    ("worker: ' '", [f"worker: ' ' is empty; {WORKERS}"]),
    ("seed: -1", [f"seed: -1 is out of range; {SEEDS}"]),
    ("seed: 4294967296", [f"seed: 4294967296 is out of range; {SEEDS}"]),
    ("seed: 1.5", [f"seed: 1.5 is not a whole number; {SEEDS}"]),
    ("seed: true", [f"seed: true is not a whole number; {SEEDS}"]),
    ("seed: '1'", [f"seed: '1' is not a whole number; {SEEDS}"]),
    ("confg: {}", ["confg: unknown key; did you mean config?"]),
    ("xyzzy: 1", [f"xyzzy: unknown key; valid keys: {KEYS}"]),
    ("config: CartPole-v1", [
        "config: 'CartPole-v1' is not a mapping; give keys and values, e.g. {env_id: CartPole-v1}"
    ]),
    ("config: {a: {b: [1, .inf]}}", [
        "config.a.b.1: inf cannot be kept in JSON; give a finite number, or null"
    ]),
    ("config: {a: .nan, b: !!binary aGk=}", [
        "config.a: nan cannot be kept in JSON; give a finite number, or null",
        "config.b: binary data cannot be kept in JSON; give text, a number, true or false",
    ]),
    ("config: {1: x}", ["config.1: the key 1 is not text; put it in quotes"]),
    ("config: &a {b: *a}", ["config.b: refers to itself; write it out flat"]),
    ("resources: 4", [
        "resources: 4 is not a mapping; give keys and values, of these keys: "
        "cpus, memory, gpus, gpu_memory, gpus_mandatory, agents, per_agent, accelerator, labels"
    ]),
    ("resources: {cpus: 0}", ["resources.cpus: 0 is out of range; give a number above 0, e.g. 2"]),
    ("resources: {cpus: .inf}", ["resources.cpus: inf is out of range; give a number above 0, e.g. 2"]),
    ("resources: {cpus: many}", ["resources.cpus: 'many' is not a number; give a number above 0, e.g. 2"]),
    ("resources: {memory: lots}", [f"resources.memory: 'lots' is not a size: {SIZES}"]),
    ("resources: {memory: 10 parsecs}", [
        f"resources.memory: '10 parsecs' has the unknown unit 'parsecs': {SIZES}"
    ]),
    ("resources: {memory: 0}", ["resources.memory: 0 is not above zero; give a size such as 10GiB"]),
    ("resources: {memory: 8}", ["resources.memory: 8 would be 8 bytes; give a unit, e.g. 8GiB"]),
    ("resources: {gpu_memory: '24'}", ["resources.gpu_memory: '24' would be 24 bytes; give a unit, e.g. 24GiB"]),
    ("resources: {per_agent: {memory: 200kB}}", [
        "resources.per_agent.memory: '200kB' is too little; give at least 1MB, e.g. 10GiB"
    ]),
    ("resources: {memory: {gib: 1}}", ["resources.memory: a mapping is not a size; give one such as 10GiB"]),
    ("resources: {gpus: 0.5}", [
        "resources.gpus: 0.5 is not a whole number; give a whole number, 0 or more, e.g. 1"
    ]),
    ("resources: {gpus: 0, gpu_memory: 1GiB}", [
        "resources.gpu_memory: is set, but resources.gpus is 0; leave gpus out to get a share of one GPU, "
        "or remove this"
    ]),
    ("resources: {gpus_mandatory: no}", [
        "resources.gpus_mandatory: 'no' is neither true nor false; give true or false, e.g. true"
    ]),
    ("resources: {gpus: 0, accelerator: A100, per_agent: {gpu_memory: 1GiB}}", [
        "resources.per_agent.gpu_memory: is set, but resources.gpus is 0; leave gpus out to get a share of one GPU, "
        "or remove this",
        "resources.accelerator: is set, but resources.gpus is 0; leave gpus out to get a share of one GPU, "
        "or remove this",
    ]),
    ("resources: {agents: 0}", [
        "resources.agents: 0 is out of range; give a whole number from 1 to 1000000, e.g. 4"
    ]),
    ("resources: {per_agent: 3}", [
        "resources.per_agent: 3 is not a mapping; give keys and values, of these keys: cpus, memory, gpu_memory"
    ]),
    ("resources: {per_agent: {cpus: 0, memory: lots, gpu: 1}}", [
        "resources.per_agent.cpus: 0 is out of range; give a number above 0, e.g. 0.1",
        f"resources.per_agent.memory: 'lots' is not a size: {SIZES}",
        "resources.per_agent.gpu: unknown key; valid keys: cpus, memory, gpu_memory",
    ]),
    ("resources: {accelerator: 100}", [f"resources.accelerator: 100 is no GPU's model; {MODELS}"]),
    ("resources: {accelerator: []}", [f"resources.accelerator: a list is no GPU's model; {MODELS}"]),
    ("resources: {accelerator: [A100, '']}", [f"resources.accelerator: '' is no GPU's model; {MODELS}"]),
    ("resources: {accelerator: [A100, A100]}", [f"resources.accelerator: a model is there twice; {MODELS}"]),
    ("resources: {labels: [team]}", [
        "resources.labels: a list is not a mapping; give labels and values, e.g. {team: vision}"
    ]),
    ("resources: {labels: {my team: v, a: 3, b: 'in(x', c: '!!v', d: in(), e: not v}}", [
        "resources.labels.my team: 'my team' is not a label's name; a label's name has up to 63 letters, digits, "
        "'.', '_' and '-', e.g. team or ray.io/market-type",
        "resources.labels.a: must be text, this is a number; put it in quotes",
        f"resources.labels.b: 'in(x' is no condition on a label; {CONDITIONS}",
        f"resources.labels.c: '!!v' is no condition on a label; {CONDITIONS}",
        f"resources.labels.d: 'in()' is no condition on a label; {CONDITIONS}",
        f"resources.labels.e: 'not v' is no condition on a label; {CONDITIONS}",
    ]),
    ("priority: 1.5", [
        "priority: 1.5 is not a whole number; give a whole number from -1000000 to 1000000, e.g. 10"
    ]),
    ("priority: high", [
        "priority: 'high' is not a whole number; give a whole number from -1000000 to 1000000, e.g. 10"
    ]),
    ("weight: 0", ["weight: 0 is out of range; give a number above 0, e.g. 2"]),
    ("weight: half", ["weight: 'half' is not a number; give a number above 0, e.g. 2"]),
    ("population: 64", [
        "population: 64 is not a mapping; give keys and values, of these keys: agents, strategy"
    ]),
    ("population: {strategy: pak}", [
        "population.agents: missing; give how many agents there are in all; for example agents: 64",
        "population.strategy: 'pak' is none of pack, spread; did you mean pack?",
    ]),
    ("population: {agents: 8}\nresources: {agents: 8}", [
        "population: says how many agents there are, and resources.agents does, too: keep one"
    ]),
    ("on_oom: 1.5", ["on_oom: 1.5 is not a mapping; give keys and values, of these keys: grow, max"]),
    ("on_oom: {grow: 1, max: 0}", [
        "on_oom.grow: 1 is out of range; give a number above 1, e.g. 1.5",
        "on_oom.max: 0 is out of range; give a whole number from 1 to 100, e.g. 2",
    ]),
    ("limits: {on_excess: kill}", ["limits.on_excess: 'kill' is none of stop, warn"]),
    ("resources: {memry: 1GiB}", ["resources.memry: unknown key; did you mean memory?"]),
    ("limits: {max_duration: soon}", [f"limits.max_duration: 'soon' is not a duration: {DURATIONS}"]),
    ("limits: {max_duration: 1:30}", [f"limits.max_duration: '1:30' is not a duration: {DURATIONS}"]),
    ("limits: {max_duration: -5m}", [f"limits.max_duration: '-5m' is negative: {DURATIONS}"]),
    ("limits: {no_heartbeat: 0}", [
        "limits.no_heartbeat: 0 is not above zero; give a duration such as 30m"
    ]),
    ("limits: {max_steps: 0}", [
        "limits.max_steps: 0 is out of range; give a whole number, 1 or more, e.g. 1000000"
    ]),
    ("telemetry: {keep_log: null}", ["telemetry.keep_log: null is not a size; give one such as 1GiB"]),
    ("limits: {max_failures: -1}", [
        "limits.max_failures: -1 is out of range; give a whole number, 0 or more, e.g. 2"
    ]),
    ("limits: {grace: forever}", [f"limits.grace: 'forever' is not a duration: {DURATIONS}"]),
    ("limits: {2: 3}", [
        "limits.2: the key 2 is not text; valid keys: max_duration, max_steps, no_heartbeat, max_log, "
        "max_failures, grace, on_excess"
    ]),
    ("storage: gs://bucket/x", [
        "storage: 'gs://bucket/x' has the scheme 'gs', only s3 is known; give a path, or s3://bucket/prefix"
    ]),
    ("storage: 's3:///x'", ["storage: 's3:///x' names no bucket; give a path, or s3://bucket/prefix"]),
    ("storage: s3:/bucket/x", ["storage: 's3:/bucket/x' names no bucket; give a path, or s3://bucket/prefix"]),
    ("storage: s3://Bucket/x", [
        "storage: 's3://Bucket/x' names the bucket 'Bucket'; a bucket's name has 3 to 63 lower-case letters, digits, "
        "'-' and '.'; an endpoint is given as AWS_ENDPOINT_URL; give a path, or s3://bucket/prefix"
    ]),
    ("storage: s3://bucket/x/../y", [
        "storage: 's3://bucket/x/../y' has an empty part, '.' or '..' in its prefix; give a path, or s3://bucket/prefix"
    ]),
    ("storage: s3://me:secret@bucket/x", [
        "storage: the URI with the scheme 's3' holds credentials, which would be kept and shown with it; leave them "
        "out: they are taken from the environment variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    ]),
    ("storage: ''", [f"storage: '' is not a path; {STORAGE}"]),
    ("storage: ~nobody-of-this-name/x", [
        f"storage: '~nobody-of-this-name/x' names the home of an unknown user; {STORAGE}"
    ]),
    ("environment: [A=1]", [
        "environment: a list is not a mapping; give names and values, e.g. {WANDB_MODE: offline}"
    ]),
    ("environment: {API_KEY: 12345, 2X: y}", [
        "environment.API_KEY: must be text, this is a number; put the value in quotes",
        "environment.2X: '2X' is not a variable's name; it has letters, digits and _, not starting with "
        "a digit, e.g. WANDB_MODE",
    ]),
    ("environment: {MOSAIC_RUN_ID: x, RAY_ADDRESS: y}", [
        "environment.MOSAIC_RUN_ID: is set by mosaic itself; names with MOSAIC_ or RAY_ in front "
        "cannot be set: remove it",
        "environment.RAY_ADDRESS: never reaches a worker; names with MOSAIC_ or RAY_ in front "
        "cannot be set: remove it",
    ]),
    ("command: []", [
        "command: names no program; give a program and its arguments, e.g. [python, -m, my_worker.cli]"
    ]),
    ("command: python -m x", [
        "command: 'python -m x' is not a list; give a list of text, e.g. [-m, my_worker.cli]"
    ]),
    ("command: [python, 3]", ["command.1: 3 is not text; put it in quotes"]),
    ("run_id: abc", ["run_id: 'abc' is not a ULID (26 digits and letters); leave it out to get a new one"]),
]  # fmt: skip

# What a file may hold that is no spec at all.
TEXTS: list[tuple[str, list[str]]] = [
    ("\n", ["is empty; begin with kind: run"]),
    ("# only a comment\n", ["holds nothing but comments; begin with kind: run"]),
    ("- kind: run\n", ["holds a list where keys and values should be; begin with kind: run"]),
    ("just words\n", ["holds 'just words' where keys and values should be; begin with kind: run"]),
    ("kind: run\nname: a\nseed: 1\nseed: 2\nname: b\n", [
        "line 4, column 1: the key 'seed' is there twice, first in line 3; keep one",
        "line 5, column 1: the key 'name' is there twice, first in line 2; keep one",
    ]),
    ("config:\n\tenv_id: x\n", ["line 2, column 1: a tab; YAML indents with spaces only"]),
    ("name: a: b\n", [
        "line 1, column 8: a colon that cannot be here; put text that holds ': ' in quotes, "
        "or check the indentation"
    ]),
    ("name: {{ name }}\n", [
        "line 1, column 8: a key must be text, not a list or a mapping; put text that holds { or [ in quotes"
    ]),
    ("name: @x\n", ["line 1, column 7: text cannot start with '@'; put it in quotes"]),
    ("a: [1, 2\nb: 3\n", [
        "line 2, column 2: expected ',' or ']', but got ':' (while parsing a flow sequence, begun in line 1)"
    ]),
    ("a: 1\n---\nb: 2\n", ["line 2, column 1: a second document begins (---); a file holds one spec"]),
    ("a: !!python/object:os.system x\n", [
        "line 1, column 4: the tag 'tag:yaml.org,2002:python/object:os.system' is not allowed"
    ]),
    ("a: !!int abc\n", ["line 1, column 4: 'abc' is not a number"]),
    ("a: *b\n", ["line 1, column 4: found undefined alias 'b'"]),
    ("a: \0\n", ["is not text (character 0 at 3); a spec is YAML or JSON text"]),
    ("[" * 1000 + "\n", ["is nested too deeply; write it flatter"]),
]  # fmt: skip


def messages(text: str) -> list[str]:
    _, problems = parse(read_document(text))
    return [str(problem) for problem in problems]


@pytest.mark.parametrize(("change", "expected"), CHANGES, ids=[change for change, _ in CHANGES])
def test_a_bad_value_gets_exactly_these_messages(change: str, expected: list[str]) -> None:
    key = change.partition(":")[0]
    good = [line for line in ("kind: run", "name: x", "worker: w") if not line.startswith(f"{key}:")]
    assert messages("\n".join([*good, change])) == expected


@pytest.mark.parametrize(("text", "expected"), TEXTS, ids=[text[:20] for text, _ in TEXTS])
def test_what_is_no_mapping_gets_exactly_these_messages(text: str, expected: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        read_document(text)
    assert [str(problem) for problem in caught.value.problems] == expected


@pytest.mark.parametrize("document", [None, [], "run", 3])
def test_a_document_that_is_no_mapping_is_refused(document: Any) -> None:
    spec, problems = parse(document)
    assert spec is None
    assert len(problems) == 1
    assert "is not a spec; give keys and values, beginning with kind: run" in str(problems[0])


def test_what_is_missing_is_asked_for_with_an_example() -> None:
    assert messages("seed: 1\n") == [
        "kind: missing; give one of: run, sweep; for example kind: run",
        "name: missing; give a name for the experiment: 1 to 120 letters, digits, '.', '_' and '-'; "
        "for example name: cartpole",
        "worker: missing; give the worker's registered name, as `mosaic workers` lists it; "
        "for example worker: cleanrl",
    ]


def test_all_problems_come_at_once_in_the_order_of_the_spec() -> None:
    text = "kind: run\nworker: 3\nseed: x\nlimits: {max_steps: 0, gracee: 1s}\nstorage: gs://b\nnme: y\n"
    assert [message.partition(": ")[0] for message in messages(text)] == [
        "name",
        "worker",
        "seed",
        "limits.max_steps",
        "limits.gracee",
        "storage",
        "nme",
    ]


def test_no_message_speaks_pydantic() -> None:
    for change, _ in CHANGES:
        for message in messages(f"kind: run\n{change}\n") if not change.startswith("kind") else []:
            assert "pydantic" not in message.lower()
            assert "Input should" not in message
            assert "type=" not in message


def test_values_of_the_environment_are_never_shown() -> None:
    secret = "hunter2-hunter2"
    for value in (f"[{secret}]", f"{{a: {secret}}}", f'"{secret}\\0"'):
        found = messages(
            f"kind: run\nname: x\nworker: w\nenvironment: {{TOKEN: {value}, RAY_TOKEN: {secret}}}\n"
        )
        assert len(found) == 2
        assert secret not in " ".join(found)


def test_an_alias_bomb_is_refused_at_once() -> None:
    lines = ["kind: run", "name: x", "worker: w", "notes:", "  l0: &l0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"  l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert messages("\n".join(lines)) == [
        "notes: holds more than 100,000 values; keep data in a file and give its path"
    ]


def test_load_names_the_file_and_carries_every_problem(tmp_path: Any) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("kind: run\nname: x\nworker: w\nseed: -1\nfoo: 1\n")
    with pytest.raises(SpecError) as caught:
        load(path)
    assert caught.value.heading == str(path)
    assert caught.value.exit_code == 2
    assert [problem.path for problem in caught.value.problems] == ["seed", "foo"]
