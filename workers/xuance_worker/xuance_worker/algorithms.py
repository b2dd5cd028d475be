"""XuanCe 1.4.4's algorithms, as data: what each is for, where its own settings stand, what it needs.

Importing this needs neither XuanCe nor torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SINGLE, MULTI = "single", "multi"
DISCRETE, CONTINUOUS = "discrete", "continuous"

CARTPOLE, PENDULUM = "classic_control/CartPole-v1", "classic_control/Pendulum-v1"
SPREAD = "mpe/simple_spread_v3"


@dataclass(frozen=True)
class Form:
    """An algorithm for one kind of actions.

    Attributes:
        template: the file in the algorithm's folder of XuanCe's configs whose values are the defaults where XuanCe has
            none for the environment itself.
        changes: XuanCe settings that differ from that file.
    """

    template: str
    changes: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Algorithm:
    """What is known of an algorithm without importing XuanCe.

    Attributes:
        name: in XuanCe's registry of agents.
        title: the same in words.
        family: value, policy gradient, model-based, offline, contrastive; for several agents: value, actor-critic,
            communication, random.
        agents: ``single`` or ``multi``.
        folder: below XuanCe's configs.
        forms: by kind of actions, the preferred one first.
        together: whether its agents decide together, from all observations at once, so that one of them alone cannot
            be played.
        memory: whether it remembers earlier observations of an episode.
        missing: why it cannot run here, a sentence; empty if it can.
    """

    name: str
    title: str
    family: str
    agents: str
    folder: str
    forms: Mapping[str, Form]
    together: bool = False
    memory: bool = False
    missing: str = ""

    @property
    def actions(self) -> tuple[str, ...]:
        """Kinds of actions it takes, the preferred one first."""
        return tuple(self.forms)


_IMAGES = (
    "learns from images only, needs torchvision (which has no build for the CPU torch of this environment), and "
    "XuanCe 1.4.4 ships no configuration for it"
)
_HYBRID = (
    "plays only the hybrid actions of gym-platform (Platform-v0), which is in no package registry and needs the old "
    "gym library"
)
_OFFLINE = "learns from D4RL's recorded data, and d4rl with its MuJoCo 2.1 is in no package registry"


def _single(name: str, title: str, family: str, folder: str, *actions: str, **more: object) -> Algorithm:
    templates = {DISCRETE: CARTPOLE, CONTINUOUS: PENDULUM}
    changes: Mapping[str, object] = more.pop("changes", {})  # type: ignore[assignment]
    forms = {each: Form(templates[each], changes) for each in actions}
    return Algorithm(name, title, family, SINGLE, folder, forms, **more)  # type: ignore[arg-type]


def _multi(
    name: str, title: str, family: str, folder: str, forms: Mapping[str, Mapping[str, object]], **more: object
) -> Algorithm:
    return Algorithm(
        name, title, family, MULTI, folder,
        {actions: Form(SPREAD, changes) for actions, changes in forms.items()}, **more,  # type: ignore[arg-type]
    )  # fmt: skip


_VALUE, _GRADIENT, _MODEL = "value", "policy gradient", "model-based"
_CRITIC, _TALK = "actor-critic", "communication"
_CATEGORICAL = {"policy": "Categorical_MAAC_Policy"}
_GAUSSIAN = {"policy": "Gaussian_MAAC_Policy", "activation_action": "sigmoid"}

_ALL = (
    _single("DQN", "deep Q-network", _VALUE, "dqn", DISCRETE),
    _single("DDQN", "double DQN", _VALUE, "ddqn", DISCRETE),
    _single("Duel_DQN", "dueling DQN", _VALUE, "dueldqn", DISCRETE),
    _single("NoisyDQN", "DQN with noisy layers", _VALUE, "noisydqn", DISCRETE),
    _single("PerDQN", "DQN with prioritised replay", _VALUE, "perdqn", DISCRETE),
    _single("C51DQN", "distributional DQN (C51)", _VALUE, "c51", DISCRETE),
    _single("QRDQN", "DQN with quantile regression", _VALUE, "qrdqn", DISCRETE),
    _single("DRQN", "recurrent DQN", _VALUE, "drqn", DISCRETE, memory=True),
    _single("PG", "policy gradient", _GRADIENT, "pg", DISCRETE, CONTINUOUS),
    _single("A2C", "advantage actor-critic", _GRADIENT, "a2c", DISCRETE, CONTINUOUS),
    _single("PPO", "proximal policy optimisation, clipped", _GRADIENT, "ppo", DISCRETE, CONTINUOUS),
    _single("PPO_KL", "PPO with a KL penalty", _GRADIENT, "ppo", DISCRETE, CONTINUOUS,
            changes={"agent": "PPO_KL", "learner": "PPOKL_Learner"}),
    _single("PPG", "phasic policy gradient", _GRADIENT, "ppg", DISCRETE, CONTINUOUS),
    # Each update inverts a matrix with a row per weight of each layer: XuanCe's own 128 units would take minutes.
    _single("NPG", "natural policy gradient", _GRADIENT, "npg", DISCRETE, CONTINUOUS,
            changes={"representation_hidden_size": [32], "actor_hidden_size": [32], "critic_hidden_size": [32]}),
    _single("DDPG", "deep deterministic policy gradient", _GRADIENT, "ddpg", CONTINUOUS),
    _single("TD3", "twin delayed DDPG", _GRADIENT, "td3", CONTINUOUS),
    _single("SAC", "soft actor-critic", _GRADIENT, "sac", DISCRETE, CONTINUOUS),
    _single("PDQN", "parametrised DQN", _GRADIENT, "pdqn", missing=_HYBRID),
    _single("MPDQN", "multi-pass PDQN", _GRADIENT, "mpdqn", missing=_HYBRID),
    _single("SPDQN", "split PDQN", _GRADIENT, "spdqn", missing=_HYBRID),
    _single("DreamerV2", "world model, Dreamer 2", _MODEL, "dreamerv2", DISCRETE, CONTINUOUS, memory=True),
    _single("DreamerV3", "world model, Dreamer 3", _MODEL, "dreamerv3", DISCRETE, CONTINUOUS, memory=True),
    _single("TD3BC", "TD3 with behaviour cloning", "offline", "td3bc", missing=_OFFLINE),
    _single("CURL", "contrastive representations", "contrastive", "", missing=_IMAGES),
    _single("SPR", "self-predictive representations", "contrastive", "", missing=_IMAGES),
    _single("DrQ", "data-regularised Q", "contrastive", "", missing=_IMAGES),
    _multi("IQL", "independent Q-learning", _VALUE, "iql", {DISCRETE: {}}),
    _multi("VDN", "value decomposition", _VALUE, "vdn", {DISCRETE: {}}),
    _multi("QMIX", "monotonic value mixing", _VALUE, "qmix", {DISCRETE: {}}),
    _multi("CWQMIX", "QMIX, centrally weighted", _VALUE, "wqmix", {DISCRETE: {"agent": "CWQMIX"}}),
    _multi("OWQMIX", "QMIX, optimistically weighted", _VALUE, "wqmix", {DISCRETE: {"agent": "OWQMIX"}}),
    _multi("QTRAN_base", "QTRAN-base", _VALUE, "qtran", {DISCRETE: {"agent": "QTRAN_base"}}),
    # Without shared parameters, its update in XuanCe takes a tuple for a tensor.
    _multi("QTRAN_alt", "QTRAN-alt", _VALUE, "qtran",
           {DISCRETE: {"agent": "QTRAN_alt", "use_parameter_sharing": True}}),
    _multi("DCG", "deep coordination graph", _VALUE, "dcg", {DISCRETE: {"agent": "DCG"}}, together=True),
    _multi("DCG_S", "DCG with the global state", _VALUE, "dcg", {DISCRETE: {"agent": "DCG_S"}}, together=True),
    _multi("MFQ", "mean-field Q-learning", _VALUE, "mfq", {DISCRETE: {}}, together=True),
    _multi("IAC", "independent actor-critic", _CRITIC, "iac", {DISCRETE: _CATEGORICAL, CONTINUOUS: _GAUSSIAN}),
    _multi("VDAC", "value-decomposition actor-critic", _CRITIC, "vdac",
           {DISCRETE: _CATEGORICAL, CONTINUOUS: _GAUSSIAN}),
    _multi("COMA", "counterfactual policy gradient", _CRITIC, "coma", {DISCRETE: {}}),
    _multi("IPPO", "independent PPO", _CRITIC, "ippo", {DISCRETE: _CATEGORICAL, CONTINUOUS: _GAUSSIAN}),
    _multi("MAPPO", "PPO with a central critic", _CRITIC, "mappo", {DISCRETE: _CATEGORICAL, CONTINUOUS: _GAUSSIAN}),
    _multi("MFAC", "mean-field actor-critic", _CRITIC, "mfac", {DISCRETE: {}}, together=True),
    _multi("IDDPG", "independent DDPG", _CRITIC, "iddpg", {CONTINUOUS: {}}),
    _multi("MADDPG", "DDPG with central critics", _CRITIC, "maddpg", {CONTINUOUS: {}}),
    _multi("ITD3", "independent TD3", _CRITIC, "itd3", {CONTINUOUS: {}}),
    _multi("MATD3", "TD3 with central critics", _CRITIC, "matd3", {CONTINUOUS: {}}),
    _multi("ISAC", "independent SAC", _CRITIC, "isac",
           {DISCRETE: {"policy": "Categorical_ISAC_Policy", "learner": "ISACDIS_Learner"}, CONTINUOUS: {}}),
    _multi("MASAC", "SAC with central critics", _CRITIC, "masac", {CONTINUOUS: {}}),
    _multi("CommNet", "learned messages, averaged", _TALK, "commnet", {DISCRETE: {}}, together=True, memory=True),
    _multi("IC3Net", "learned messages, gated", _TALK, "ic3net", {DISCRETE: {}}, together=True, memory=True),
    _multi("TarMAC", "learned messages, targeted", _TALK, "tarmac", {DISCRETE: {}}, together=True, memory=True),
    _multi("RANDOM", "uniform random actions, learns nothing", "random", "iql", {DISCRETE: {}, CONTINUOUS: {}}),
)  # fmt: skip

ALGORITHMS: dict[str, Algorithm] = {algorithm.name: algorithm for algorithm in _ALL}

MPE = (
    "simple_v3",
    "simple_adversary_v3",
    "simple_crypto_v3",
    "simple_push_v3",
    "simple_reference_v3",
    "simple_speaker_listener_v4",
    "simple_spread_v3",
    "simple_tag_v3",
    "simple_world_comm_v3",
)
"""PettingZoo's particle worlds, by their modules' names."""


def default_environment(algorithm: Algorithm) -> str:
    """The environment that is trained on where none is named."""
    if algorithm.agents == MULTI:
        return "simple_spread_v3"
    return "CartPole-v1" if DISCRETE in algorithm.forms else "Pendulum-v1"


__all__ = [
    "ALGORITHMS",
    "CONTINUOUS",
    "DISCRETE",
    "MPE",
    "MULTI",
    "SINGLE",
    "Algorithm",
    "Form",
    "default_environment",
]
