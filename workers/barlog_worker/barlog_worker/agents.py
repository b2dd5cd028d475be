"""The agents: what a model is told, and how its answer is read.

A conversation is one system message, then past turns (what was perceived, what was answered), then the present turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from barlog_worker import parsing
from barlog_worker.endpoint import Message
from barlog_worker.images import data_url
from barlog_worker.worlds.base import Demonstration, Game, Observation, list_actions

LONGEST_QUOTE = 200


@dataclass(frozen=True)
class Decision:
    """What an agent makes of a reply.

    Attributes:
        action: of the game; ``None``: the reply names none.
        thought: what the model thought first, where it was asked to.
    """

    action: str | None
    thought: str = ""


@dataclass
class _Turn:
    text: str
    image: Any | None
    action: str
    thought: str = ""


class Agent:
    """Asks for an action and nothing else.

    Args:
        game: that is played.
        history: past turns that are shown.
        thoughts: of how many of them with what was thought.
        image_history: pictures that are sent, the present one included; 0: none.
        demonstrations: good episodes to be shown first.
    """

    name = "naive"
    how = (
        "Answer with the name of exactly one action and nothing else: no explanation, no punctuation, no quotes.",
        "Answer with exactly one command on a single line and nothing else: no explanation, no quotes.",
    )
    """How to answer: where actions have names, and where they are free text."""
    reminder = "Your action:"

    def __init__(
        self,
        game: Game,
        *,
        history: int = 16,
        thoughts: int = 1,
        image_history: int = 0,
        demonstrations: Sequence[Demonstration] = (),
    ) -> None:
        self._names = [*(action.name for action in game.actions), *game.keys]
        self._system = self._rules(game)
        self._turns: deque[_Turn] = deque(maxlen=history)
        self._thoughts = thoughts
        self._images = image_history
        self._examples = self._shown(demonstrations)
        self._now = 0
        self._remark = ""

    def messages(self, observation: Observation) -> list[Message]:
        """The conversation that asks for the next action."""
        found: list[Message] = [{"role": "system", "content": self._system}, *self._examples]
        first = self._now - len(self._turns)
        with_thoughts = len(self._turns) - self._thoughts
        with_image = len(self._turns) + 1 - self._images
        for number, turn in enumerate(self._turns):
            image = turn.image if number >= with_image else None
            found.append(_user(f"Step {first + number}:\n{turn.text}", image))
            thought = turn.thought if number >= with_thoughts else ""
            found.append({"role": "assistant", "content": self.wording(turn.action, thought)})
        image = observation.image if self._images else None
        text = f"Step {self._now}:\n{self._remark}{observation.text}\n\n{self.reminder}"
        found.append(_user(text, image))
        return found

    def understand(self, reply: str) -> Decision:
        """Read a reply."""
        return Decision(parsing.match(parsing.bare(reply), self._names))

    def wording(self, action: str, thought: str = "") -> str:
        """How a past answer is shown to the model: as it should have been given."""
        return action

    def remember(self, observation: Observation, decision: Decision, done: str, reply: str) -> None:
        """A turn is over.

        Args:
            observation: what was perceived.
            decision: what the reply came to.
            done: the action that was taken.
            reply: what the model said.
        """
        self._turns.append(_Turn(observation.text, observation.image if self._images else None, done, decision.thought))
        self._now += 1
        self._remark = ""
        if decision.action is None:
            said = " ".join(reply.split())
            said = said if len(said) <= LONGEST_QUOTE else said[:LONGEST_QUOTE] + "..."
            self._remark = f'(Your last answer named no action: "{said}". "{done}" was done instead.)\n'

    def _rules(self, game: Game) -> str:
        parts = [game.instruction]
        if game.actions:
            parts.append("These are all the actions:\n" + list_actions(game.actions))
        parts.append(self.how[0 if game.actions else 1])
        return "\n\n".join(parts)

    def _shown(self, demonstrations: Sequence[Demonstration]) -> list[Message]:
        return []


class CotAgent(Agent):
    """Lets the model think before it answers."""

    name = "cot"
    how = (
        "First think it through, briefly: what you see, what you want, what follows. Then end your answer with a line "
        "of its own, with the name of exactly one action:\nAction: <name>",
        "First think it through, briefly: what you see, what you want, what follows. Then end your answer with a line "
        "of its own, with exactly one command:\nAction: <command>",
    )
    reminder = "Think, then end with the line that names your action."

    def understand(self, reply: str) -> Decision:
        """The last line that begins with ``Action:`` counts; without one, an answer that is just an action."""
        words = parsing.labelled(reply)
        if words is None and self._names:
            words = parsing.bare(reply)
        return Decision(parsing.match(words, self._names), parsing.before_label(reply))

    def wording(self, action: str, thought: str = "") -> str:
        """The thought, then the line."""
        return f"{thought}\nAction: {action}" if thought else f"Action: {action}"


class RobustAgent(Agent):
    """Wants the action in tags, so that talkative models are understood."""

    name = "robust_naive"
    how = (
        "Answer in exactly this form, with the name of exactly one action between the tags:\n<action>name</action>\n"
        "Nothing else counts.",
        "Answer in exactly this form, with exactly one command between the tags:\n<action>command</action>\n"
        "Nothing else counts.",
    )
    reminder = "Your action, between <action> and </action>:"

    def understand(self, reply: str) -> Decision:
        """Only what stands in the last ``<action>`` counts."""
        return Decision(parsing.match(parsing.tagged(reply), self._names))

    def wording(self, action: str, thought: str = "") -> str:
        """In tags."""
        return f"<action>{action}</action>"


class RobustCotAgent(RobustAgent):
    """Thought and action, both in tags."""

    name = "robust_cot"
    how = (
        "Answer in exactly this form: first what you think, briefly, then the name of exactly one action.\n"
        "<thought>what you see, what you want, what follows</thought>\n<action>name</action>",
        "Answer in exactly this form: first what you think, briefly, then exactly one command.\n"
        "<thought>what you see, what you want, what follows</thought>\n<action>command</action>",
    )
    reminder = "Your thought and your action, each between its tags:"

    def understand(self, reply: str) -> Decision:
        """Only what stands in the last ``<action>`` counts."""
        return Decision(parsing.match(parsing.tagged(reply), self._names), parsing.thought(reply))

    def wording(self, action: str, thought: str = "") -> str:
        """Both in tags."""
        tail = f"<action>{action}</action>"
        return f"<thought>{thought}</thought>\n{tail}" if thought else tail


class FewShotAgent(Agent):
    """The naive agent, shown good episodes first."""

    name = "few_shot"

    def _shown(self, demonstrations: Sequence[Demonstration]) -> list[Message]:
        found: list[Message] = []
        for number, shown in enumerate(demonstrations, 1):
            for step, (text, action) in enumerate(shown.turns):
                head = f"Example {number}, a good episode of this game.\n" if step == 0 else ""
                found.append(_user(f"{head}Step {step}:\n{text}\n\n{self.reminder}", None))
                found.append({"role": "assistant", "content": self.wording(action)})
        if found:
            found.append({"role": "user", "content": "Now it is your turn, in a new episode of the game."})
            found.append({"role": "assistant", "content": "I am ready."})
        return found


AGENTS: dict[str, type[Agent]] = {
    kind.name: kind for kind in (Agent, CotAgent, RobustAgent, RobustCotAgent, FewShotAgent)
}
"""Those that ask a model, by their names in the config."""


def _user(text: str, image: Any | None) -> Message:
    if image is None:
        return {"role": "user", "content": text}
    parts: tuple[dict[str, Any], ...] = (
        {"type": "text", "text": text},
        {"type": "image_url", "image_url": {"url": data_url(image)}},
    )
    return {"role": "user", "content": list(parts)}


__all__ = ["AGENTS", "Agent", "Decision"]
