import pytest
import torch

from dexworld.video.model.noise import diffusion_process, flow_process


def test_one_step_of_the_flow_is_an_euler_step():
    process = flow_process(5.0)
    noisy, flow = torch.randn(2, 3), torch.randn(2, 3)
    now, following = torch.full((2,), 799), torch.full((2,), 599)
    made = process.step(noisy, process.clean(noisy, flow, now), now, following)
    torch.testing.assert_close(made, noisy + (0.6 - 0.8) * flow, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("process", [diffusion_process(1.0), flow_process(5.0)], ids=["diffusion", "flow"])
def test_the_true_velocity_leads_back_to_the_clean_latents(process):
    clean, noise = torch.randn(3, 5), torch.randn(3, 5)
    timestep = torch.tensor([10, 500, 999])
    noisy = process.noisy(clean, noise, timestep)
    found = process.clean(noisy, process.velocity(clean, noise, timestep), timestep)
    torch.testing.assert_close(found, clean, atol=1e-4, rtol=1e-4)


def test_strength_starts_part_of_the_way_down():
    assert diffusion_process(1.0).timesteps(4, strength=0.4) == [399, 299, 199, 99]


@pytest.mark.parametrize(("steps", "strength"), [(0, 1.0), (4, 0.0), (4, 1.1)])
def test_impossible_schedules_are_refused(steps, strength):
    with pytest.raises(ValueError, match="strength in"):
        diffusion_process(1.0).timesteps(steps, strength)
