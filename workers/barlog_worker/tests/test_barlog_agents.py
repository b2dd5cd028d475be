"""What a model is told, and how its answers are read."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from barlog_corridors import Corridor, Corridors
from barlog_worker import parsing
from barlog_worker.agents import AGENTS, Agent, Decision
from barlog_worker.images import data_url, png
from barlog_worker.worlds.base import Observation

NAMES = ["turn left", "go forward", "pick up", ".", "y", "Y"]


class TestMatching:
    @pytest.mark.parametrize(
        ("words", "action"),
        [
            ("turn left", "turn left"),
            ("Turn Left.", "turn left"),
            ("**go_forward**", "go forward"),
            ('"pick  up"', "pick up"),
            ("Action: pick up", "pick up"),
            ("- `turn left`", "turn left"),
            (".", "."),
            ("y", "y"),
            ("Y", "Y"),
            ("I would turn left", None),
            ("turn left, then go forward", None),
            ("turn", None),
            ("", None),
            ("   ", None),
            (None, None),
            ("***", None),
        ],
    )
    def test_names(self, words: str | None, action: str | None) -> None:
        assert parsing.match(words, NAMES) == action

    @pytest.mark.parametrize(
        ("words", "command"),
        [("take key", "take key"), ('"go north"', "go north"), ("a\nb", None), ("x" * 121, None), ("", None)],
    )
    def test_free_text(self, words: str, command: str | None) -> None:
        assert parsing.match(words, []) == command


class TestReading:
    @pytest.mark.parametrize(
        ("kind", "reply", "action"),
        [
            ("naive", "go forward", "go forward"),
            ("naive", "<think>turn left?</think>go forward", "go forward"),
            ("naive", "Let me see.\ngo forward\n", "go forward"),
            ("naive", "I go forward now", None),
            ("naive", "", None),
            ("few_shot", "Go forward", "go forward"),
            ("cot", "A wall is left.\nAction: go forward", "go forward"),
            ("cot", "Action: turn left\nNo, better:\n**Final action:** go forward", "go forward"),
            ("cot", "go forward", "go forward"),
            ("cot", "I think going forward is best.", None),
            ("robust_naive", "<action>go forward</action>", "go forward"),
            ("robust_naive", "Sure! <ACTION> Go forward </ACTION> Good luck!", "go forward"),
            ("robust_naive", "<action>turn left</action> or <action>go forward", "go forward"),
            ("robust_naive", "go forward", None),
            ("robust_cot", "<thought>free</thought>\n<action>go forward</action>", "go forward"),
            ("robust_cot", "<thought>free</thought>\ngo forward", None),
        ],
    )
    def test_each_agent(self, kind: str, reply: str, action: str | None) -> None:
        game = Corridor(0, False)
        game.actions = tuple(type(game.actions[0])(name) for name in NAMES)
        assert AGENTS[kind](game).understand(reply).action == action

    def test_thoughts(self) -> None:
        game = Corridor(0, False)
        assert AGENTS["cot"](game).understand("Left is shut.\nAction: door 2") == Decision("door 2", "Left is shut.")
        reply = "<thought>Left is shut.</thought><action>door 2</action>"
        assert AGENTS["robust_cot"](game).understand(reply) == Decision("door 2", "Left is shut.")


def turns(agent: Agent, game: Corridor, replies: list[str]) -> list[dict[str, Any]]:
    """The conversation after some replies."""
    seen = game.reset()
    for reply in replies:
        decision = agent.understand(reply)
        done = decision.action or game.fallback
        agent.remember(seen, decision, done, reply)
        seen = game.step(done).observation
    return agent.messages(seen)


class TestConversation:
    @pytest.mark.parametrize("kind", sorted(AGENTS))
    def test_rules_come_first_and_the_present_last(self, kind: str) -> None:
        game = Corridor(0, False)
        agent = AGENTS[kind](game)
        first, *_, last = turns(agent, game, [agent.wording("door 1"), agent.wording("door 2")])
        assert first["role"] == "system"
        assert "Find the right door" in first["content"]
        assert "- door 4" in first["content"]
        assert last["role"] == "user"
        assert last["content"].startswith("Step 2:\nPlace")
        assert last["content"].endswith(agent.reminder)

    @pytest.mark.parametrize("kind", sorted(AGENTS))
    def test_its_own_wording_is_understood(self, kind: str) -> None:
        agent = AGENTS[kind](Corridor(0, False))
        assert agent.understand(agent.wording("door 3", "Three it is.")).action == "door 3"

    def test_only_the_newest_turns_are_shown(self) -> None:
        game = Corridor(0, False)
        found = turns(Agent(game, history=2), game, ["door 1", "door 2", "door 3"])
        assert [each["content"] for each in found if each["role"] == "assistant"] == ["door 2", "door 3"]
        assert [each["content"].split(":")[0] for each in found[1:] if each["role"] == "user"] == [
            "Step 1",
            "Step 2",
            "Step 3",
        ]

    def test_no_turns_at_all(self) -> None:
        game = Corridor(0, False)
        assert len(turns(Agent(game, history=0), game, ["door 1", "door 2"])) == 2

    def test_what_was_thought_is_shown_for_the_newest(self) -> None:
        game = Corridor(0, False)
        agent = AGENTS["cot"](game, thoughts=1)
        found = turns(agent, game, ["First.\nAction: door 1", "Second.\nAction: door 2"])
        said = [each["content"] for each in found if each["role"] == "assistant"]
        assert said == ["Action: door 1", "Second.\nAction: door 2"]

    def test_an_answer_that_named_nothing_is_told_once(self) -> None:
        game = Corridor(0, False)
        agent = Agent(game)
        last = turns(agent, game, ["I am a model"])[-1]["content"]
        assert 'Your last answer named no action: "I am a model". "door 0" was done instead.' in last
        again = agent.messages(Observation("x"))
        agent.remember(Observation("x"), Decision("door 1"), "door 1", "door 1")
        assert "named no action" not in agent.messages(Observation("y"))[-1]["content"]
        assert "named no action" in again[-1]["content"]

    def test_examples_are_shown_to_few_shot_alone(self) -> None:
        shown = Corridors().demonstration("any", 0)
        assert shown is not None
        for kind, agent in AGENTS.items():
            found = agent(Corridor(0, False), demonstrations=[shown]).messages(Observation("here"))
            assert (len(found) > 2) == (kind == "few_shot")
        found = AGENTS["few_shot"](Corridor(0, False), demonstrations=[shown]).messages(Observation("here"))
        assert [each["role"] for each in found] == ["system"] + ["user", "assistant"] * 3 + ["user"]
        assert found[1]["content"].startswith("Example 1, a good episode")
        assert found[4]["content"] == "door 1"

    def test_free_text(self) -> None:
        game = Corridor(0, False)
        game.actions, game.keys = (), ()
        for kind in AGENTS.values():
            rules = kind(game).messages(Observation("x"))[0]["content"]
            assert "command" in rules
            assert "These are all the actions" not in rules


class TestPictures:
    def test_of_the_newest_turns_only(self) -> None:
        game = Corridor(0, True)
        found = turns(Agent(game, image_history=2), game, ["door 1", "door 2"])
        asked = [each["content"] for each in found if each["role"] == "user"]
        assert [isinstance(each, list) for each in asked] == [False, True, True]
        text, picture = asked[-1]
        assert text["type"] == "text"
        assert picture["image_url"]["url"].startswith("data:image/png;base64,")

    def test_none_without_vision(self) -> None:
        game = Corridor(0, True)
        found = turns(Agent(game, image_history=0), game, ["door 1"])
        assert all(isinstance(each["content"], str) for each in found)

    def test_png(self) -> None:
        image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        data = png(image)
        assert base64.b64decode(data_url(image).split(",")[1]) == data
        width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
        assert (width, height, depth, colour) == (7, 5, 8, 2)
        size = struct.unpack(">I", data[33:37])[0]
        rows = zlib.decompress(data[41 : 41 + size])
        lines = [rows[row * 22 + 1 : row * 22 + 22] for row in range(5)]
        assert b"".join(lines) == image.tobytes()

    def test_another_shape(self) -> None:
        with pytest.raises(ValueError, match=r"not \(5, 7\) and uint8"):
            png(np.zeros((5, 7), np.uint8))
