"""Models on the Hugging Face hub: their cards, their revisions, and how they get there."""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

CARD_FILE = "README.md"
# What a config's class is called on the hub: its task, and what it is in words.
CLASSES = {
    "DexWMConfig": ("robotics", "world-model", "A DexWM: a latent world model of hands and what they do"),
    "EvaluatorConfig": (
        "keypoint-detection",
        "hand-keypoints",
        "A keypoint evaluator: reads hand keypoints of latents",
    ),
    "PixelDecoderConfig": ("image-to-image", "pixel-decoder", "A pixel decoder: draws pictures of latents"),
    "GoalPolicyConfig": ("robotics", "goal-conditioned-policy", "A policy: moves a robot towards a goal picture"),
    "DWMConfig": ("image-to-video", "video-world-model", "A DWM: a video world model that is shown moving hands"),
}


def name_and_revision(source: str) -> tuple[str, str | None]:
    """`owner/name@revision` as both; the revision is None where there is none, and for folders."""
    name, sign, revision = source.partition("@")
    return (name, revision) if sign and revision and not Path(source).exists() else (source, None)


def model_card(config_class: str, config: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """The README.md of a checkpoint. `licence` of the provenance is its licence, and of what it was trained from."""
    task, tag, what = CLASSES.get(config_class, ("robotics", "world-model", f"A model of kind {config_class}"))
    licence = (_recorded(provenance, "licence") or "unknown").lower()
    steps = f"It was trained for {provenance['steps']} steps. " if isinstance(provenance.get("steps"), int) else ""
    return f"""{front_matter(licence, task, tag)}
# {what}

{steps}`config.json` holds its size and where its weights come from (`provenance`).

```json
{json.dumps(config, indent=1)}
```
"""


def front_matter(licence: str, task: str, tag: str) -> str:
    """What the hub reads of a model card."""
    tags = "\n".join(f"- {each}" for each in ("dexworld", tag, "hands"))
    return f"---\nlicense: {licence}\nlibrary_name: dexworld\npipeline_tag: {task}\ntags:\n{tags}\n---"


def _recorded(provenance: Any, name: str) -> str | None:
    """The first text of that name in nested values: a model inherits the licence of what it was trained from."""
    if not isinstance(provenance, Mapping):
        return None
    if isinstance(provenance.get(name), str):
        return provenance[name]
    return next((found for each in provenance.values() if (found := _recorded(each, name))), None)


class Shared:
    """A model with `save_pretrained` that can be put on the hub."""

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model into a folder."""
        raise NotImplementedError

    def push_to_hub(self, repo: str, revision: str | None = None, private: bool = False, message: str = "") -> str:
        """Upload the model to the repository `owner/name`, made if it is missing; returns the address of the commit.

        revision: branch, made if it is missing. Who may write is what `hf auth login` says. Raises what
        `huggingface_hub` raises.
        """
        from huggingface_hub import HfApi

        api = HfApi()
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            api.create_repo(repo, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(repo, branch=revision, exist_ok=True)
            about = message or f"{type(self).__name__} of dexworld"
            done = api.upload_folder(repo_id=repo, folder_path=folder, revision=revision, commit_message=about)
        return str(done.commit_url)
