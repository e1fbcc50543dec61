"""What a study is: variants of a model, trained on the same data for stated budgets, and what is measured of each.

A table of the paper is declared as a `Table`, a function of the scale (`declared_tables.py`).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from dexworld.evaluation.open_loop_metrics import Sums
from dexworld.models.encoders import EncoderChoice
from dexworld.models.world_model import preset
from dexworld.training.estimate import DataPlan, PlanConfig
from dexworld.training.train_config import SamplingConfig, TrainConfig

Scale = Literal["miniature", "small", "paper"]
SECONDS = 4.0  # of a measured roll-out
RATE_HZ = 5.0  # of the windows that models are trained on, and of the measured roll-outs
Changes = Mapping[str, Any]  # fields of a config by name, of nested ones as a mapping
Training = Changes | Callable[[Any, TrainConfig], Changes]  # or what makes them of model config and settings


@dataclass(frozen=True)
class Recording:
    """Simulated video to collect: who acts, how many episodes from which scene on, and fields of its config.

    kind: `allegro`, `human` or `gripper`, as in `dexworld collect`, or `triplets`, as in `dexworld video synthesize`.
    Held-out recordings take their scenes from the split, `seed` further on.
    """

    kind: str
    episodes: int
    seed: int = 0
    options: Changes = field(default_factory=dict)


@dataclass(frozen=True)
class Sizes:
    """All that a scale changes: data and sizes. Raises ValueError naming the number that makes no sense.

    preset: of every variant that names none. model, training: fields of its config and of every variant's training that
    differ. budgets: optimiser steps by name, at the scale `paper` recipes. data, held_out: what is trained and measured
    on, by name; on paper `DataPlan`s. encoder_frames: frames that an encoder is fitted on. evaluator_steps,
    evaluator_size: of the keypoint evaluator; no steps where nothing asks for it. policy_size: of learned policies.
    task_episodes: that each model plays, of each task.
    """

    preset: str
    budgets: Mapping[str, int | str]
    data: Mapping[str, Recording | DataPlan]
    held_out: Mapping[str, Recording] = field(default_factory=dict)
    model: Changes = field(default_factory=dict)
    training: Changes = field(default_factory=dict)
    batch_size: int = 8
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    bfloat16: bool = True
    encoder_frames: int = 3000
    evaluator_steps: int = 800
    evaluator_size: str = "tiny"
    policy_size: str = "tiny"
    task_episodes: int = 20

    def __post_init__(self) -> None:
        for name, value in [("batch_size", self.batch_size), *self.budgets.items()]:
            if not isinstance(value, str) and value < 1:
                raise ValueError(f"{name} is {value}; it must be positive")

    def at_most(self, steps: int | None, episodes: int | None) -> "Sizes":
        """The same with no budget above `steps` and no more than `episodes` of anything, for a look."""
        steps, episodes = steps or 10**9, episodes or 10**9

        def fewer(recordings: Mapping[str, Any]) -> dict[str, Any]:
            return {name: replace(each, episodes=min(each.episodes, episodes)) for name, each in recordings.items()}

        budgets = {name: min(int(value), steps) for name, value in self.budgets.items()}
        return replace(
            self,
            budgets=budgets,
            data=fewer(self.data),
            held_out=fewer(self.held_out),
            evaluator_steps=min(self.evaluator_steps, steps),
            task_episodes=min(self.task_episodes, episodes),
        )


@dataclass(frozen=True)
class Variant:
    """One thing done differently, said in `what`.

    against: the variants that it is compared with. data: names of what it is trained on. budget: names of the budgets
    that its steps are the sum of. initial: the variant whose model it starts from. preset: of any registered kind
    instead of the table's; the table's changes of the model are then left out. encoder: name of another one. model:
    fields that differ, after the table's. training: fields of `TrainConfig` that differ. paper: its row in the paper's
    table. needs: an extra of dexworld and the package that it brings; without it the variant is left out. kind: who
    trains and measures it; None is a world model.
    """

    name: str
    what: str
    against: tuple[str, ...] = ("base",)
    data: tuple[str, ...] = ("robot",)
    budget: tuple[str, ...] = ("steps",)
    initial: str | None = None
    preset: str | None = None
    encoder: str | None = None
    model: Changes = field(default_factory=dict)
    training: Training = field(default_factory=dict)
    paper: str | None = None
    needs: tuple[str, str] | None = None
    kind: "Kind | None" = None


@dataclass(frozen=True)
class Figure:
    """A ratio of two sums over the held-out episodes, at one moment of the roll-out or over all of it.

    numerator, denominator: keys of the measured sums; without a denominator the mean over episodes. seconds: after the
    start frame, None for all steps. scale: 100 for percent. of_variant: it depends on the variant; others tell what is
    possible at all, and are the same for all variants. in_table: shown in the tables, and not in results.json alone.
    paper: the column of the paper's table. pooled: each seed has episodes of its own, solved or not; all are counted
    together, and pairs of variants are tested with McNemar's test.
    """

    name: str
    title: str
    numerator: str
    denominator: str | None
    seconds: float | None
    scale: float = 1.0
    digits: int = 3
    of_variant: bool = True
    in_table: bool = True
    paper: str | None = None
    pooled: bool = False


@dataclass(frozen=True)
class Published:
    """A table of a paper as it was printed: where, its columns, its rows by name, and what it says besides.

    None stands where the paper prints nothing.
    """

    where: str
    columns: tuple[str, ...] = ()
    rows: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    says: str = ""

    def value(self, row: str | None, column: str | None) -> float | None:
        """A printed number, if there is one."""
        if row not in self.rows or column not in self.columns:
            return None
        return self.rows[str(row)][self.columns.index(str(column))]


@dataclass(frozen=True)
class Table:
    """A study at one scale.

    title, lead: of its page. measures: what is measured of every model (`study_measures.py`), each a callable that
    gives sums by name. figures: what is reported of the sums. readers: names of the data that encoders are fitted on
    and keypoint evaluators trained on. paper: what it stands beside. differs: sentences, what is different here and
    why. glossary: what its columns are, where they aren't those of roll-outs. films: what its page shows
    (`report/study_films.py`). alike: tables whose models of the same names are the same. Raises ValueError naming a
    variant, data or budget that is not there, and a control without a model.
    """

    name: str
    title: str
    lead: str
    sizes: Sizes
    variants: tuple[Variant, ...]
    measures: tuple[Callable[..., Any], ...]
    figures: tuple[Figure, ...]
    readers: tuple[str, ...] = ("robot",)
    paper: Published = Published("")
    differs: tuple[str, ...] = ()
    glossary: str = ""
    films: Literal["", "atomic", "transfer"] = ""
    alike: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names):
            raise ValueError(f"{self.name} names a variant twice: {', '.join(names)}")
        for each in self.variants:
            initial = [each.initial] if each.initial else []
            wanted = [("variants", (*each.against, *initial), names), ("data", each.data, list(self.sizes.data))]
            wanted.append(("budgets", each.budget, list(self.sizes.budgets)))
            for kind, asked, there in wanted:
                if missing := sorted(set(asked) - set(there)):
                    raise ValueError(f"{self.name}: {each.name} wants the {kind} {missing}; there are {there}")
            if getattr(each.kind, "borrows", False) and each.initial is None:
                raise ValueError(f"{self.name}: {each.name} trains nothing; name the variant whose model it has")

    def variant(self, name: str) -> Variant:
        """The variant of that name. Raises ValueError listing the names there are."""
        for each in self.variants:
            if each.name == name:
                return each
        raise ValueError(f"{self.name} has no variant {name!r}; choose from {', '.join(v.name for v in self.variants)}")

    def with_ancestors(self, names: Iterable[str]) -> dict[str, int]:
        """These variants and those that they start from; how many models each starts from, one after the other."""
        depths: dict[str, int] = {}
        for name in names:
            chain = [self.variant(name)]
            while chain[0].initial:
                chain.insert(0, self.variant(chain[0].initial))
            depths |= {each.name: depth for depth, each in enumerate(chain)}
        return depths

    def model_of(self, variant: Variant) -> Any:
        """The config of a variant's model; an action scale is measured on the data later."""
        config = preset(variant.preset or self.sizes.preset)
        config = EncoderChoice(variant.encoder).applied(config) if variant.encoder else config
        changes = [] if variant.preset else [self.sizes.model]
        for each in [*changes, variant.model]:
            config = changed(config, each)
        return config

    def steps_of(self, variant: Variant) -> int:
        """Optimiser steps of a variant, without those of the variant that it starts from."""
        return sum(int(self.sizes.budgets[name]) for name in variant.budget)

    def training_of(self, variant: Variant, seed: int, settings: type[Any] = TrainConfig) -> Any:
        """The training settings of a variant, of the class that its kind has for them."""
        steps = self.steps_of(variant)
        sizes = self.sizes
        shared: dict[str, Any] = {"log_every": max(steps // 10, 1), "checkpoint_every": 500, **sizes.training}
        shared |= {"warmup_steps": min(sizes.warmup_steps, steps // 3), "bfloat16": sizes.bfloat16, "seed": seed}
        training = settings(steps, batch_size=sizes.batch_size, learning_rate=sizes.learning_rate, **shared)
        own = variant.training
        return replace(training, **(own(self.model_of(variant), training) if callable(own) else own))


UNTRAINED = {"steps": 0, "train_seconds": 0.0, "train_cpu_s": 0.0, "parameters": 0}  # what training nothing took


@dataclass(frozen=True)
class Plan:
    """A training on paper: steps, samples in a batch, trained parameters, hours of one GPU; None is unknown.

    why: parameters and hours are not known.
    """

    steps: int
    batch: int
    parameters: int | None
    gpu_hours: float | None
    why: str = ""


class Kind(Protocol):
    """Who trains and measures variants of one kind. A frozen dataclass, since a study travels to other processes.

    study: the `Study` with its folder, device and split.

    Optional member: `borrows`, true where a variant has the model of the one that it starts from.
    """

    def shared(self, study: Any, variant: Variant) -> Path | None:
        """The last file of what variants share and is made before them; None where there is no such thing."""
        ...

    def share(self, study: Any, variant: Variant) -> None:
        """Make that, or go on with it."""
        ...

    def train(self, study: Any, variant: Variant, seed: int) -> dict[str, Any]:
        """Train in the variant's folder, or go on there; `steps`, `parameters`, `train_seconds` and `train_cpu_s`."""
        ...

    def measure(self, study: Any, variant: Variant, seed: int) -> Sums:
        """What the table's measures find of what was trained, (E, T) by name."""
        ...

    def plan(self, table: Table, variant: Variant, machines: PlanConfig) -> Plan:
        """What training takes, before anything runs."""
        ...


def changed(config: Any, changes: Changes) -> Any:
    """A frozen dataclass with fields changed; a mapping changes those of a nested dataclass. Raises ValueError for
    fields that are not there."""
    known = {each.name for each in fields(config)}
    if unknown := sorted(set(changes) - known):
        raise ValueError(
            f"{type(config).__name__} has no {', '.join(unknown)}; its fields are {', '.join(sorted(known))}"
        )
    values = {}
    for name, value in changes.items():
        own = getattr(config, name)
        values[name] = changed(own, value) if isinstance(value, Mapping) and is_dataclass(own) else value
    return replace(config, **values)


SAMPLING = SamplingConfig(rate_hz=RATE_HZ)
