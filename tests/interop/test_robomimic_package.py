"""robomimic reads the files that we write in RoboCasa's layout. tests/sim/test_robocasa_format.py holds the layout."""

import numpy as np

from dexworld.sim.kitchen.explore import ExploreConfig, record_exploration
from dexworld.sim.robocasa_format import write_robocasa

CAMERA, JOINTS = "robot0_robotview_2_image", "robot0_joint_pos"


def test_robomimic_reads_episodes_masks_actions_and_pictures(tmp_path, foreign):
    observations, datasets = foreign("robomimic.utils.obs_utils"), foreign("robomimic.utils.dataset")
    episode = record_exploration(900_007, config=ExploreConfig(frames=4))
    path = write_robocasa(tmp_path / "ours.hdf5", [episode, episode], masks={"train": [1]})
    observations.initialize_obs_utils_with_obs_specs({"obs": {"rgb": [CAMERA], "low_dim": [JOINTS]}})
    options = {"hdf5_cache_mode": None, "load_next_obs": False, "filter_by_attribute": "train"}
    read = datasets.SequenceDataset(str(path), (CAMERA, JOINTS), ("actions", "dones"), **options)
    assert (read.demos, len(read)) == (["demo_1"], 4)
    items = [read[row] for row in range(4)]
    np.testing.assert_array_equal([item["actions"][0] for item in items], episode["joint_targets"])
    np.testing.assert_array_equal([item["obs"][JOINTS][0] for item in items], episode["joint_positions"][:, :7])
    assert [item["dones"][0] for item in items] == [0, 0, 0, 1]
    assert items[0]["obs"][CAMERA].shape == (1, 246, 392, 3)
