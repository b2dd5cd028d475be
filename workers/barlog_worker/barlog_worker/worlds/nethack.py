"""NetHack through NLE: its own screen is the text; commands have names."""

from __future__ import annotations

import random
import re
import threading
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what old gym says of itself is no news
    import gym
    import nle  # noqa: F401 - registers the tasks
    from nle import nethack

from barlog_worker.config import BarlogConfig
from barlog_worker.worlds.base import Action, Demonstration, Observation, Step
from mosaic_cluster.worker import ConfigError, Problem

MAX_STEPS = 1000
MOST_PAGES = 20
"""``--More--`` that are read through after one action."""
DEEPEST, HIGHEST = 50, 30
"""Levels of the dungeon, and of experience: what progression is measured against."""

_OBSERVED = ("tty_chars", "tty_cursor", "blstats", "misc", "message", "glyphs")
_DEPTH, _EXPERIENCE, _TURN, _SCORE = 12, 18, 20, 9

_WAYS = {
    "N": "north",
    "E": "east",
    "S": "south",
    "W": "west",
    "NE": "northeast",
    "SE": "southeast",
    "SW": "southwest",
    "NW": "northwest",
}
_NAMES = {
    "UP": ("go up", "a staircase, standing on <"),
    "DOWN": ("go down", "a staircase, standing on >"),
    "WAIT": ("wait", "one turn"),
    "MORE": ("continue", "Enter: go on reading, confirm"),
    "ESC": ("esc", "leave a question or a menu"),
    "APPLY": ("apply", "use a tool; asks which"),
    "CAST": ("cast", "a spell"),
    "CHAT": ("chat", "with someone beside you"),
    "CLOSE": ("close", "a door; asks the direction"),
    "DIP": ("dip", "an object into something"),
    "DROP": ("drop", "asks what"),
    "EAT": ("eat", "asks what"),
    "ENGRAVE": ("engrave", "write on the floor"),
    "FIGHT": ("fight", "asks the direction"),
    "FIRE": ("fire", "what is in your quiver; asks the direction"),
    "FORCE": ("force", "a lock"),
    "INVENTORY": ("inventory", "see what you carry"),
    "INVOKE": ("invoke", "an object's special power"),
    "JUMP": ("jump", "where you can"),
    "KICK": ("kick", "asks the direction"),
    "LOOK": ("look", "what lies here"),
    "LOOT": ("loot", "a box on the floor"),
    "MONSTER": ("monster", "use a monster's power that you have"),
    "OFFER": ("offer", "a sacrifice to the gods"),
    "OPEN": ("open", "a door; asks the direction"),
    "OVERVIEW": ("overview", "of the dungeon"),
    "PAY": ("pay", "a shopkeeper"),
    "PICKUP": ("pickup", "what lies here"),
    "PRAY": ("pray", "for help; rarely"),
    "PUTON": ("puton", "a ring or amulet"),
    "QUAFF": ("quaff", "drink a potion"),
    "QUIVER": ("quiver", "choose what to fire"),
    "READ": ("read", "a scroll or book"),
    "REMOVE": ("remove", "a ring or amulet"),
    "RIDE": ("ride", "an animal, or get off"),
    "RUB": ("rub", "a lamp or stone"),
    "SEARCH": ("search", "for hidden things beside you, one turn"),
    "SIT": ("sit", "down"),
    "SWAP": ("swap", "your two weapons"),
    "TAKEOFF": ("takeoff", "armour"),
    "THROW": ("throw", "asks what and where"),
    "TIP": ("tip", "empty a container"),
    "TRAVEL": ("travel", "to a place; asks where: < and > are staircases"),
    "TURN": ("turn undead", ""),
    "UNTRAP": ("untrap", "asks the direction"),
    "WEAR": ("wear", "armour"),
    "WIELD": ("wield", "a weapon; asks which"),
    "WIPE": ("wipe", "your face"),
    "ZAP": ("zap", "a wand"),
    "SPACE": ("space", "the key"),
}
"""Commands that are offered. Those that save, quit, change options or ask about the program are not."""
_FORBIDDEN = frozenset(map(int, (nethack.Command.SAVE, nethack.Command.QUIT, nethack.Command.SHELL)))

INSTRUCTION = """You play NetHack. Descend into the dungeon, become experienced, and stay alive: what counts is the
deepest level you reach and your experience level. You see the game's screen: its message first, then the map, then two
lines about you. @ is you; | and - are walls, . is floor, # a corridor, + or an orange | or - a door, < and > stairs up
and down, letters are creatures, other signs are things. Up on the screen is north. You move by naming a direction;
moving into a creature attacks it. Where the game asks a question, answer with a key: a single character, such as y, n
or an item's letter, is an action, too; so is the name of a direction."""


def _commands() -> tuple[tuple[Action, ...], dict[str, int]]:
    """Actions for the prompt, and the number in ``nethack.ACTIONS`` of each name and of each key."""
    actions: list[Action] = []
    numbers: dict[str, int] = {}
    for number, each in enumerate(nethack.ACTIONS):
        kind = type(each).__name__
        if kind == "CompassDirection":
            action: Action | None = Action(_WAYS[each.name], "one step")
        elif kind == "CompassDirectionLonger":
            action = Action(f"far {_WAYS[each.name]}", "on, until something comes up")
        else:
            action = Action(*_NAMES[each.name]) if each.name in _NAMES else None
        if action is not None:
            actions.append(action)
            numbers[action.name] = number
        if 32 < int(each) < 127 and int(each) not in _FORBIDDEN:
            numbers.setdefault(chr(int(each)), number)
    return tuple(actions), numbers


ACTIONS, NUMBERS = _commands()
KEYS = tuple(key for key in NUMBERS if len(key) == 1)


class NetHack:
    """Tasks of NLE."""

    has_images = False

    def __init__(self, config: BarlogConfig, folder: Path) -> None:
        self.version = f"balrog-nle {version('balrog-nle')}"
        self._character = config.nethack_character
        self._lock = threading.Lock()
        known = sorted(name for name in gym.envs.registry.env_specs if name.startswith("NetHack"))
        unknown = [
            Problem(f"nethack_tasks[{number}]", f"{self.version} has no {task}; it has {', '.join(known)}")
            for number, task in enumerate(config.nethack_tasks)
            if task not in known
        ]
        if unknown:
            raise ConfigError(unknown)

    def make(self, task: str, seed: int, *, vision: bool = False) -> NetHackGame:
        """A game."""
        with self._lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            env = gym.make(
                task,
                actions=nethack.ACTIONS,
                character=self._character,
                observation_keys=_OBSERVED,
                allow_all_yn_questions=True,
                allow_all_modes=True,
                max_episode_steps=10**6,
                save_ttyrec_every=0,
            )
        return NetHackGame(env, seed)

    def demonstration(self, task: str, seed: int) -> Demonstration | None:
        """Nothing plays NetHack well by itself."""
        return None


class NetHackGame:
    """One game."""

    actions = ACTIONS
    keys = KEYS
    fallback = "esc"
    instruction = INSTRUCTION
    max_steps = MAX_STEPS

    def __init__(self, env: Any, seed: int) -> None:
        self._env = env
        self._seed = seed
        self._depth = self._experience = 1
        self._turn = self._score = 0
        self._end = ""

    def reset(self) -> Observation:
        """Begin."""
        self._env.seed(core=self._seed, disp=self._seed, reseed=False)
        seen = self._env.reset()
        self._note(seen)
        return Observation(screen(seen))

    def step(self, action: str) -> Step:
        """Press a key; what the game says on several pages is read through."""
        seen, reward, done, info = self._env.step(NUMBERS[action])
        total, pages = float(reward), []
        for _ in range(MOST_PAGES):
            if done or not seen["misc"][2] or "--More--" not in _text(seen):
                break
            pages.append(_message(seen))
            seen, reward, done, info = self._env.step(NUMBERS["continue"])
            total += float(reward)
        if done:
            self._end = str(getattr(info.get("end_status"), "name", "")).lower()
        else:  # after the end the numbers are gone
            self._note(seen)
        before = "".join(f"{page}\n" for page in pages if page)
        return Step(Observation(before + screen(seen)), total, bool(done))

    def progression(self) -> float:
        """The farther of two ways: levels down out of 50, levels of experience out of 30; the first of each is 0."""
        down = (self._depth - 1) / (DEEPEST - 1)
        up = (self._experience - 1) / (HIGHEST - 1)
        return 100.0 * min(1.0, max(down, up))

    def details(self) -> dict[str, Any]:
        """Deepest level, experience, turns, score, and how it ended."""
        return {
            "deepest_level": self._depth,
            "experience_level": self._experience,
            "turns": self._turn,
            "score": self._score,
            "end": self._end,
        }

    def draw(self, rng: random.Random, observation: Observation) -> str:
        """One of the named commands."""
        return rng.choice(ACTIONS).name

    def close(self) -> None:
        """Let go of everything."""
        self._env.close()

    def _note(self, seen: Any) -> None:
        stats = seen["blstats"]
        self._depth = max(self._depth, int(stats[_DEPTH]))
        self._experience = max(self._experience, int(stats[_EXPERIENCE]))
        self._turn = int(stats[_TURN])
        self._score = int(stats[_SCORE])


def screen(seen: Any) -> str:
    """The screen, without its empty lines, and where the cursor is: mostly on you."""
    row, column = (int(each) for each in seen["tty_cursor"])
    lines = _lines(seen)
    number = sum(1 for line in lines[:row] if line) + 1
    shown = "\n".join(line for line in lines if line)
    return f"{shown}\n(The cursor is in line {number} of these, column {column + 1}.)"


def _lines(seen: Any) -> list[str]:
    return [bytes(row).decode("latin-1").replace("\0", " ").rstrip() for row in seen["tty_chars"]]


def _text(seen: Any) -> str:
    return "\n".join(_lines(seen))


def _message(seen: Any) -> str:
    text = bytes(seen["message"]).split(b"\0", 1)[0].decode("latin-1")
    return re.sub(r"--More--", "", text).strip()


__all__ = ["ACTIONS", "KEYS", "NUMBERS", "NetHack", "NetHackGame", "screen"]
