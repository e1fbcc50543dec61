"""The variants of `ablations.py`, how each is trained, and what is measured of it on held-out episodes.

Everything that a variant does not change is shared: the encoder, its cached latents, the windows of a seed (a pure
function of seed and number), the number of steps, the held-out episodes and the evaluator that reads keypoints.
"""

import shutil
import time
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dexworld.actions import hand_motion
from dexworld.data.datasets import open_dataset
from dexworld.data.files import check_same_settings, read_json
from dexworld.data.resize import resized
from dexworld.evaluation.guard import Split, check_seeds, split_of
from dexworld.evaluation.open_loop import OpenLoopConfig, clip_of, derangement, transplanted
from dexworld.evaluation.open_loop_metrics import Sums, keypoint_views, latent_sums, moving_tokens
from dexworld.models.config import DexWMConfig
from dexworld.models.dexwm import DexWM
from dexworld.models.keypoint_head import KeypointEvaluator
from dexworld.models.latent_readers import encoder_fingerprint, open_evaluator
from dexworld.models.world_model import preset
from dexworld.track import Track
from dexworld.training.run_data import fit_encoder
from dexworld.training.sources import TrainingData
from dexworld.training.train_config import SamplingConfig, TrainConfig
from dexworld.training.train_evaluator import EvaluatorRunConfig, EvaluatorTrainConfig, train_evaluator
from dexworld.training.train_world_model import FIT_WINDOWS
from dexworld.training.trainer import Trainer
from dexworld.training.window_task import WindowTask, window_strategies
from dexworld.writing import write_json, written_atomically

RATE_HZ = 5.0  # of the robot's video; human and gripper video is sampled at the same times
REFERENCE_HEIGHT = 224  # pixels of the pictures that PCK@10 and PCK@20 are defined on
THRESHOLDS_PX = (10, 20)  # at that height
PAPER_MAP, PAPER_SIGMA_PX, PAPER_WEIGHT = (224, 392), 2.0, 100.0
Data = Literal["robot", "few", "pretraining"]


@dataclass(frozen=True)
class Variant:
    """One thing done differently, said in `what`.

    against: the variants that it is compared with. data: all robot episodes, a few of them, or the pre-training video.
    budget: which numbers of `StudyConfig` its steps are the sum of. initial: the variant whose model it starts from.
    raw_actions: metres into the network. The rest are fields of the configs that differ; `paper_weight` sets the
    keypoint weights to the paper's, rescaled.
    """

    name: str
    what: str
    against: tuple[str, ...] = ("base",)
    data: Data = "robot"
    budget: tuple[str, ...] = ("steps",)
    initial: str | None = None
    raw_actions: bool = False
    paper_weight: bool = False
    predictor: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


VARIANTS = (
    Variant("base", "the defaults", against=()),
    Variant("no-hand-consistency", "no keypoint loss on predicted latents", training={"hand_consistency": 0.0}),
    Variant("paper-hand-consistency", "that loss as the paper's MSE on maps, weight 100 rescaled", paper_weight=True,
            head={"loss": "mse"}),
    Variant("no-residual", "predicts latents, not their change", predictor={"residual": False}),
    Variant("raw-actions", "actions in metres straight into AdaLN", raw_actions=True,
            predictor={"embed_actions": False}),
    Variant("no-pixel-aligned", "tokens are not told where the hand is", predictor={"pixel_aligned": False}),
    Variant("teacher-forced", "all steps from true frames (multistep depth 1)", training={"teacher_forced": 1.0}),
    Variant("few", "from new weights on few episodes, the steps of fine-tuning", against=(), data="few",
            budget=("finetune_steps",)),
    Variant("few-total", "the same, with the steps of pre-training too", against=("few",), data="few",
            budget=("pretrain_steps", "finetune_steps")),
    Variant("pretrained", "pre-trained on human and gripper video alone", against=("few",), data="pretraining",
            budget=("pretrain_steps",)),
    Variant("fine-tuned", "pre-trained, then fine-tuned on the few episodes", against=("few", "few-total"), data="few",
            budget=("finetune_steps",), initial="pretrained"),
    Variant("detached", "that loss trains the head, not the predictor", training={"detach_predictions": True}),
    Variant("unroll-2", "multistep depth 2 instead of 4", training={"unroll_steps": 2}),
    Variant("unroll-8", "multistep depth 8 instead of 4", against=("base", "strides-to-4"),
            training={"unroll_steps": 8}),
    Variant("strides-to-4", "steps of at most 0.8 s, all that 8-second episodes have for depth 8",
            training={"stride_weights": (1.0, 1.0, 1.0, 6.0)}),
)  # fmt: skip
BY_NAME = {variant.name: variant for variant in VARIANTS}


@dataclass(frozen=True)
class StudyConfig:
    """What all runs of a study share. Raises ValueError naming the field that makes no sense."""

    preset: str = "clip"
    width: int | None = None
    """Width of the predictor instead of the preset's."""
    depth: int | None = None
    """Blocks of the predictor instead of the preset's."""
    steps: int = 300
    pretrain_steps: int = 300
    finetune_steps: int = 150
    batch_size: int = 8
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    few_episodes: int = 40
    evaluator_steps: int = 1000
    evaluator_size: str = "tiny"
    encoder_frames: int = 3000
    rollout_steps: int = 20
    bfloat16: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "pretrain_steps", "finetune_steps", "batch_size", "few_episodes", "evaluator_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")

    @property
    def model(self) -> DexWMConfig:
        """The base variant's model."""
        config = preset(self.preset)
        predictor = config.predictor
        predictor = replace(predictor, dim=self.width or predictor.dim, depth=self.depth or predictor.depth)
        return replace(config, predictor=predictor)

    def model_of(self, variant: Variant) -> DexWMConfig:
        """The model of a variant; its action scale is measured on the data later, unless actions are raw."""
        config = self.model
        config = replace(
            config,
            predictor=replace(config.predictor, **variant.predictor),
            keypoint_head=replace(config.keypoint_head, **variant.head),
        )
        return replace(config, action_scale=(1.0, 1.0, 1.0)) if variant.raw_actions else config

    def training_of(self, variant: Variant, seed: int) -> TrainConfig:
        """The training settings of a variant."""
        steps = sum(getattr(self, name) for name in variant.budget)
        shared = {name: getattr(self, name) for name in ("batch_size", "learning_rate", "bfloat16")}
        shared |= {"steps": steps, "checkpoint_every": steps, "log_every": steps}
        training = TrainConfig(**shared, warmup_steps=min(self.warmup_steps, steps // 3), seed=seed)
        if variant.paper_weight:
            weight = paper_weight(self.model.image_size, training.sigma_px)
            # Both keypoint losses keep their proportion: what changes is the kind of loss and its weight.
            true = weight * training.true_keypoints / training.hand_consistency
            training = replace(training, hand_consistency=weight, true_keypoints=true)
        return replace(training, **variant.training)


def paper_weight(image_size: tuple[int, int], sigma_px: float) -> float:
    """The weight at which an empty map costs what it costs in the paper.

    An empty map costs about the weight times 2 pi sigma^2 / 2 over the picture's area: the mean square of a Gaussian.
    """
    empty = PAPER_SIGMA_PX**2 / (PAPER_MAP[0] * PAPER_MAP[1])
    return PAPER_WEIGHT * empty / (sigma_px**2 / (image_size[0] * image_size[1]))


class Study:
    """A folder of finished runs, and what they share.

    data: robot episodes. pretraining: folders of human and gripper video, none for a study without pre-training.
    held_out: episodes to measure on, of validation scenes while developing. output: where everything is kept; made
    with other settings or data, it is refused with ValueError.
    """

    def __init__(
        self, config: StudyConfig, data: Path, pretraining: tuple[Path, ...], held_out: Path, output: Path
    ) -> None:
        self.config, self.output = config, output
        size = config.model.image_size
        self.robot, self.held_out = resized(open_dataset(data), size), open_dataset(held_out)
        self.pretraining = [resized(open_dataset(folder), size) for folder in pretraining]
        if config.few_episodes > len(self.robot):
            raise ValueError(f"{data} holds {len(self.robot)} episodes, too few for few_episodes {config.few_episodes}")
        split = split_of(self.held_out.seeds[0])
        if split == "training":
            raise ValueError(f"{held_out} holds scenes for training; measure on scenes from 900,000 on")
        self.split: Split = split
        identity = {"settings": asdict(config), "data": self.robot.fingerprint, "held_out": self.held_out.fingerprint}
        if (output / "study.json").exists():
            check_same_settings(output / "study.json", read_json(output / "study.json"), identity)
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / "study.json", identity)

    @cached_property
    def encoder(self) -> DexWM:
        """A model whose pca encoder is fitted on the robot's episodes; its other weights are not used."""
        folder = self.output / "encoder"
        if not (folder / "config.json").exists():
            model = DexWM(self.config.model)
            fit_encoder(model.encoder, [self.robot], self.config.encoder_frames, 0, torch.device("cpu"))
            model.save_pretrained(folder, {"training_seeds": [[self.robot.seeds[0], self.robot.seeds[-1]]]})
        return DexWM.from_pretrained(folder).requires_grad_(False)

    @cached_property
    def evaluator(self) -> KeypointEvaluator:
        """Reads keypoints of every variant; trained once, on latents of true robot frames."""
        encoder, steps = self.encoder.encoder, self.config.evaluator_steps  # the property makes the encoder's folder
        every = {"steps": steps, "validate_every": steps, "checkpoint_every": steps}
        training = EvaluatorTrainConfig(**every, warmup_steps=min(200, steps // 3), bfloat16=self.config.bfloat16)
        places = {"output": self.output / "evaluator", "checkpoint": str(self.output / "encoder")}
        size = self.config.evaluator_size
        run = EvaluatorRunConfig(data=(self.robot.folder,), **places, size=size, device="cpu", training=training)
        folder = train_evaluator(run)
        return open_evaluator(folder, encoder)

    def folder(self, name: str, seed: int) -> Path:
        """Where a run lies."""
        return self.output / "runs" / f"{name}-{seed}"

    def finished(self, name: str, seed: int) -> bool:
        """Whether a run is there, measured."""
        return (self.folder(name, seed) / "results.json").exists()

    def run(self, name: str, seed: int) -> None:
        """Train and measure a variant, unless it is there. A run that was cut off begins anew, so that its CPU time is
        that of one run. Raises ValueError when it needs pre-training video and the study has none."""
        variant, folder = BY_NAME[name], self.folder(name, seed)
        if self.finished(name, seed):
            return
        if variant.initial:
            self.run(variant.initial, seed)
        shutil.rmtree(folder, ignore_errors=True)
        model = self._trained(variant, seed, folder)
        begin = time.process_time()
        check_seeds(self.held_out.seeds, model.provenance, self.split)
        sums = self.measured(model)
        with written_atomically(folder / "sums.npz") as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **sums)  # type: ignore[arg-type]
        results = model.provenance | {"measure_cpu_s": round(time.process_time() - begin, 2)}
        write_json(folder / "results.json", results | {"parameters": model.parameter_counts()})
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)

    def _trained(self, variant: Variant, seed: int, folder: Path) -> DexWM:
        config, training = self.config.model_of(variant), self.config.training_of(variant, seed)
        datasets = self.pretraining if variant.data == "pretraining" else [self.robot]
        if not datasets:
            raise ValueError(f"{variant.name} needs pre-training video; give its folders")
        fingerprint = encoder_fingerprint(self.encoder.encoder)
        data = TrainingData(datasets, self.encoder.encoder, training, torch.device("cpu"), fingerprint)
        episodes = [np.arange(len(dataset)) for dataset in datasets]
        if variant.data == "few":
            episodes = [np.arange(self.config.few_episodes)]
        sampling = SamplingConfig(rate_hz=RATE_HZ)
        strategies = window_strategies(config.predictor.num_context, training, sampling)
        seeds = [[dataset.seeds[0], dataset.seeds[-1]] for dataset in datasets]
        if variant.initial:
            ancestor = self.folder(variant.initial, seed)
            model = DexWM.from_pretrained(ancestor / "model")
            seeds += model.provenance["training_seeds"]
        else:
            torch.manual_seed(seed)  # the modules draw their first weights from torch's generator
            model = DexWM(config)
            model.encoder.load_state_dict(self.encoder.encoder.state_dict())
            if not variant.raw_actions:
                window = data.labels(strategies[0], episodes).batch(0, FIT_WINDOWS)
                model = model.scaled_to(window.track, window.slots[1:] > window.repeats[:, None])
        task = WindowTask(model, training, lambda each: data.source(each, episodes), sampling)
        trainer = Trainer(model, training, task, folder)
        begin = time.process_time()
        trainer.run()
        seconds = time.process_time() - begin
        model.provenance = {
            "variant": variant.name,
            "seed": seed,
            "training_seeds": seeds,
            "train_cpu_s": round(seconds, 2),
            "training": asdict(training),
            "action_scale": list(model.config.action_scale),
            "data": [dataset.fingerprint for dataset in datasets],
            "training_episodes": [len(each) for each in episodes],
        }
        with trainer.averaged() as averaged:
            averaged.save_pretrained(folder / "model")
        return DexWM.from_pretrained(folder / "model")

    @cached_property
    def _scenes(self) -> list["Scene"]:
        """The evaluated stretch of every held-out episode."""
        protocol = OpenLoopConfig(steps=self.config.rollout_steps, fps=RATE_HZ)
        sized, scenes = resized(self.held_out, self.config.model.image_size), []
        for index in range(len(self.held_out)):
            clip = clip_of(sized[index], protocol)
            images = np.ascontiguousarray(clip.frames.read(list(range(len(clip)))))
            scenes.append(Scene(clip, self.encoder.encode(torch.from_numpy(images)).float(), self.evaluator))
        return scenes

    def measured(self, model: DexWM) -> Sums:
        """Sums of every held-out episode, (E, T) arrays by name; figures are ratios of them (`ablations.py`)."""
        partners = derangement(len(self._scenes), np.random.default_rng(0))
        rows = [scene.measure(model, self._scenes[other]) for scene, other in zip(self._scenes, partners, strict=True)]
        return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


class Scene:
    """A held-out episode: what is shown of it, and the sums (T,) that are the same for every variant.

    latents: (T + 1, P, D) of its frames. evaluator: reads keypoints of them and of predictions.
    """

    def __init__(self, clip: Track, latents: Tensor, evaluator: KeypointEvaluator) -> None:
        self.clip, self.latents, self.evaluator = clip, latents, evaluator
        motion = hand_motion(clip.keypoints_world, clip.keypoints_valid, clip.world_from_camera, clip.intrinsics)
        truth, size = latents[1:], clip.frames.size
        self.pixels = motion.pixels[1:, :, :2]
        self.in_view = keypoint_views(self.pixels, motion.visible[1:], size)["in_view"]
        self.tokens = np.zeros(truth.shape[:2])
        if "object_pixels" in clip.columns:
            self.tokens = moving_tokens(clip["object_pixels"].numpy(), truth.shape[1], size).astype(float)
        still = latents[:1].expand_as(truth)
        self.sums: Sums = {"in_view": self.in_view.sum(-1).double().numpy()}
        self.sums |= latent_sums("copy_last_", still, truth, self.tokens)
        self.sums |= self._found("copy_last_", still) | self._found("true_latents_", truth)

    @torch.no_grad()
    def measure(self, model: DexWM, partner: "Scene") -> Sums:
        """The sums of a model, (T,) arrays, as `evaluation.open_loop.measure` makes them; the control takes the motion
        of `partner`.

        Two things differ: keypoints are read by the evaluator, and PCK's thresholds shrink with the picture. Raises
        ValueError naming the episode where a prediction has NaN or Inf.
        """
        clip = self.clip
        both = model.condition(Track.stack([clip, transplanted(clip, partner.clip)])).to(dtype=torch.float32)
        context = model.start(self.latents[:1], both.index(0).slice(0, 0))
        own, control = model.rollout(context, both).float()  # (T, P, D) each
        if not (torch.isfinite(own).all() and torch.isfinite(control).all()):
            raise ValueError(f"{clip.source}: the model predicts NaN or Inf")
        truth = self.latents[1:]
        sums = self.sums | latent_sums("", own, truth, self.tokens) | self._found("", own)
        return sums | latent_sums("shuffled_", control, truth, self.tokens)

    @torch.no_grad()
    def _found(self, prefix: str, latents: Tensor) -> Sums:
        """How many keypoints in view are found in latents (T, P, D) within each threshold."""
        distance = (self.evaluator.keypoints(latents)[0].double() - self.pixels).norm(dim=-1)
        scale = self.clip.frames.size[0] / REFERENCE_HEIGHT
        near = {threshold: self.in_view & (distance <= threshold * scale) for threshold in THRESHOLDS_PX}
        return {f"{prefix}pck{threshold}": found.sum(-1).double().numpy() for threshold, found in near.items()}
