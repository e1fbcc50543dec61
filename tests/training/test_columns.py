"""A column that a reader adds travels to the loss, and no code in between knows it."""

import numpy as np
import pytest
import torch

from dexworld.data.datasets import open_dataset
from dexworld.data.loader import FrameLoader
from dexworld.data.prepare.job import PrepareConfig, prepare
from dexworld.data.readers import LAYOUTS, Layout
from dexworld.data.recordings import EpisodeWriter
from dexworld.data.sampling import StrideSampling
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.models.dexwm import DexWM
from dexworld.training.sources import TrainingData
from dexworld.training.window_task import WindowTask

STRATEGY = StrideSampling(frames=4, history=2)


class WithGaze:
    """A reader (`dexworld.data.source.Source`) of recorded episodes that knows where somebody looks."""

    kind, quarantined = "gaze", ()

    def __init__(self, folder):
        self.recorded = open_dataset(folder)
        self.folder, self.ids, self.splits = self.recorded.folder, self.recorded.ids, self.recorded.splits

    def __len__(self):
        return len(self.recorded)

    def __getitem__(self, index):
        track = self.recorded[index]
        return track.with_columns(gaze_world=track.keypoints_world[:, 6] + index)

    def files(self, index):
        return self.recorded.files(index)


class GazingModel(DexWM):
    columns = ("keypoints_world", "keypoints_valid", "keypoints_shown", "gaze_world")


class GazingTask(WindowTask):
    def losses(self, batch, index):
        right_wrist, episode = batch.track.keypoints_world[:, :, 6], batch.clips[:, None, None]
        error = (batch.track["gaze_world"] - right_wrist - episode).square().mean()
        return super().losses(batch, index) | {"gaze": error, "looked": batch.track["gaze_world"].abs().sum()}


@pytest.fixture(scope="module", params=["recorded", "prepared"])
def gazing(request, tmp_path_factory, disc_data):
    """A dataset of tracks that have the column."""
    folder, reader = tmp_path_factory.mktemp("gaze"), WithGaze(disc_data)
    if request.param == "recorded":
        writer = EpisodeWriter(folder, {"made by": "tests"})
        for index, name in enumerate(reader.ids):
            writer.write(name, reader[index])
        return writer.finish()
    with pytest.MonkeyPatch.context() as patch:
        layout = Layout("a reader of this test", lambda folder: True, WithGaze)
        patch.setitem(LAYOUTS, "episodes", layout)
        settings = PrepareSettings(height=56, pack_episodes=12)
        assert prepare(PrepareConfig(disc_data, folder / "store", settings=settings, workers=1)).ok
    return open_dataset(folder / "store")


@pytest.mark.parametrize("latents", ["cached", "online"])
def test_a_loss_reads_a_column_that_only_the_reader_and_the_model_name(gazing, model_config, make_training, latents):
    torch.manual_seed(0)
    model, training, device = GazingModel(model_config), make_training(batch_size=4), torch.device("cpu")
    model.encoder.fit([torch.from_numpy(gazing[0].frames.read([0, 5, 9]))])
    data = TrainingData([gazing], model.encoder, training, device, "gazing" if latents == "cached" else None)
    task = GazingTask(model, training, lambda each: data.source(each, [np.arange(len(gazing))], model.columns))
    batch, _ = task.batch(0, device)
    assert batch.track["gaze_world"].dtype == torch.float32
    losses = task.losses(batch, 0)
    assert float(losses["gaze"]) < 1e-10
    assert float(losses["looked"]) > 0


def test_a_column_that_no_episode_has_is_named_before_training(disc_data, model_config, make_training):
    dataset, device = open_dataset(disc_data), torch.device("cpu")
    model = GazingModel(model_config)
    model.encoder.fit([torch.from_numpy(dataset[0].frames.read([0, 5, 9]))])
    for fingerprint in ("gazeless", None):
        data = TrainingData([dataset], model.encoder, make_training(), device, fingerprint)
        with pytest.raises(ValueError, match=r"holds no column 'gaze_world', but .*keypoints_world"):
            data.source(STRATEGY, [np.arange(len(dataset))], model.columns)


def test_an_episode_that_lacks_a_column_is_named_and_replaced(tmp_path, disc_data):
    reader, writer = WithGaze(disc_data), EpisodeWriter(tmp_path, {})
    for index, name in enumerate(reader.ids[:3]):
        writer.write(name, reader[index] if index != 1 else reader.recorded[index])
    loader = FrameLoader([writer.finish()], STRATEGY, 12, 0, columns=("gaze_world",))
    window = loader.batch(0)
    assert set(window.clips.tolist()) == {0, 2}
    assert {problem.where.rsplit(" ", 1)[1] for problem in window.problems} == {reader.ids[1]}
    assert "column 'gaze_world'" in window.problems[0].reason
