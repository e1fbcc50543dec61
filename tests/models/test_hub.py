"""Models on the hub: each has a valid card and `format` in its weights, is pushed whole and read at a revision."""

from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard
from model_fixtures import SMALL_MODEL
from safetensors import safe_open

from dexworld.models.checkpoint import CheckpointError
from dexworld.models.config import KeypointHeadConfig
from dexworld.models.decoder import DecoderConfig, PixelDecoder, PixelDecoderConfig
from dexworld.models.dexwm import DexWM
from dexworld.models.keypoint_head import EvaluatorConfig, KeypointEvaluator
from dexworld.models.latent_space import LatentSpace
from dexworld.models.reference import SHIPPED, checkpoint_path
from dexworld.models.world_model import load_world_model
from dexworld.video.model.dwm import DWM, load_video_model
from dexworld.video.model.video_config import preset

SPACE = LatentSpace(16, (4, 7), (56, 98), "0" * 64)
MODELS = {
    "dexwm": (lambda: DexWM(SMALL_MODEL), load_world_model),
    "evaluator": (
        lambda: KeypointEvaluator(EvaluatorConfig(SPACE, KeypointHeadConfig(16, 1, 2))),
        KeypointEvaluator.from_pretrained,
    ),
    "decoder": (
        lambda: PixelDecoder(PixelDecoderConfig(SPACE, DecoderConfig(16, 1, 2))),
        PixelDecoder.from_pretrained,
    ),
    "video": (lambda: DWM(preset("debug")), load_video_model),
}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that keeps repositories in folders, one a revision; what was asked of it, in order."""
    asked = []

    class Api:
        def create_repo(self, repo, private, exist_ok):
            asked.append(("repo", repo, private))

        def create_branch(self, repo, branch, exist_ok):
            asked.append(("branch", repo, branch))

        def upload_folder(self, repo_id, folder_path, revision, commit_message):
            asked.append(("upload", repo_id, revision))
            place = tmp_path / "hub" / repo_id / (revision or "main")
            place.mkdir(parents=True)
            for file in Path(folder_path).iterdir():
                (place / file.name).write_bytes(file.read_bytes())
            return SimpleNamespace(commit_url=f"https://hub/{repo_id}")

    def download(repo, revision=None, allow_patterns=()):
        return str(tmp_path / "hub" / repo / (revision or "main"))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_is_pushed_whole_and_read_at_its_revision(hub, kind):
    build, load = MODELS[kind]
    torch.manual_seed(0)
    model = build()
    assert model.push_to_hub("owner/name", revision="v2", private=True) == "https://hub/owner/name"
    assert hub == [("repo", "owner/name", True), ("branch", "owner/name", "v2"), ("upload", "owner/name", "v2")]
    for again in (load("owner/name@v2"), type(model).from_pretrained("owner/name", revision="v2")):
        assert again.source.startswith("owner/name")
        for name, value in model.saved_weights().items():
            assert torch.equal(again.saved_weights()[name], value), name
    with pytest.raises(CheckpointError, match=r"holds no config\.json|no checkpoint folder"):
        load("owner/name@v3")


def checked(folder: Path) -> dict:
    """The front matter of a folder's card, with what the hub wants; its weights name their format."""
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            assert weights.metadata()["format"] == "pt"
    data = ModelCard.load(folder / "README.md").data.to_dict()
    assert data["library_name"] == "dexworld"
    assert "dexworld" in data["tags"]
    assert data["pipeline_tag"] in ("robotics", "keypoint-detection", "image-to-image", "image-to-video")
    return data


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_models_have_a_valid_card(name):
    assert checked(Path(checkpoint_path(name)))["license"] == "apache-2.0"


@pytest.mark.parametrize("kind", MODELS)
def test_saved_models_have_a_card_that_says_what_licence_they_inherit(kind, tmp_path):
    model = MODELS[kind][0]()
    model.save_pretrained(tmp_path / "new")
    assert checked(tmp_path / "new")["license"] == "unknown"
    model.save_pretrained(tmp_path / "further", {"initial_provenance": {"licence": "CC-BY-NC-4.0"}})
    assert checked(tmp_path / "further")["license"] == "cc-by-nc-4.0"
    (tmp_path / "new" / "README.md").write_text("mine")
    model.save_pretrained(tmp_path / "new")
    assert (tmp_path / "new" / "README.md").read_text() == "mine"
