"""``python -m barlog_worker.balrog_program request.json``: BALROG's own evaluation, as its ``eval.py`` runs it.

The request holds ``output_dir`` and ``overrides`` of BALROG's configuration. Settings that the installed version does
not have are left out, and named in the log. ``expected.json`` beside the request lists all episodes that are to be.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOGGER = logging.getLogger(__name__)


def main(path: str) -> int:
    """Evaluate; returns the exit code."""
    import balrog
    from balrog.agents import AgentFactory
    from balrog.evaluator import EvaluatorManager
    from omegaconf import OmegaConf

    logging.basicConfig(level=logging.INFO)
    request = json.loads(Path(path).read_text())
    home = Path(str(balrog.__file__)).parent
    config = OmegaConf.load(home / "config" / "config.yaml")
    merge(config, request["overrides"])
    expected = [
        (name, task, number)
        for name in config.envs.names.split("-")
        for task in config.tasks[f"{name}_tasks"]
        for number in range(config.eval.num_episodes[name])
    ]
    Path(path).with_name("expected.json").write_text(json.dumps(expected))
    Path(request["output_dir"]).mkdir(parents=True, exist_ok=True)
    manager = EvaluatorManager(config, original_cwd=str(home.parent), output_dir=request["output_dir"])
    manager.run(AgentFactory(config))
    return 0


def merge(config: Any, overrides: Mapping[str, Any], path: str = "") -> None:
    """Set what the configuration has; ``num_episodes`` and ``generate_kwargs`` are open to more."""
    for name, value in overrides.items():
        where = f"{path}{name}"
        if isinstance(value, Mapping) and name in config:
            merge(config[name], value, where + ".")
        elif name in config:
            config[name] = value
        else:
            LOGGER.info("this BALROG has no setting %s", where)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
