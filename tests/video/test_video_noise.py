import pytest
import torch

from dexworld.video.model.noise import diffusion_process, flow_process

diffusers = pytest.importorskip("diffusers")


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_diffusion_schedule_is_cogvideox_s(shift):
    scheduler = diffusers.CogVideoXDDIMScheduler(snr_shift_scale=shift, rescale_betas_zero_snr=True)
    process = diffusion_process(shift)
    torch.testing.assert_close(process.alpha.square(), scheduler.alphas_cumprod.float(), atol=1e-6, rtol=1e-4)
    assert process.alpha[-1] == 0.0


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_sampling_times_are_the_scheduler_s_trailing_ones(steps):
    scheduler = diffusers.CogVideoXDDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    assert diffusion_process(1.0).timesteps(steps) == scheduler.timesteps.tolist()


def test_one_step_is_the_ddim_step_of_cogvideox():
    scheduler = diffusers.CogVideoXDDIMScheduler(
        snr_shift_scale=1.0,
        rescale_betas_zero_snr=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
    )
    scheduler.set_timesteps(10)
    process = diffusion_process(1.0)
    noisy, velocity = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    now, following = (torch.full((2,), scheduler.timesteps[index]) for index in (3, 4))
    expected = scheduler.step(velocity, scheduler.timesteps[3], noisy, return_dict=True).prev_sample
    made = process.step(noisy, process.clean(noisy, velocity, now), now, following)
    torch.testing.assert_close(made, expected, atol=2e-5, rtol=1e-4)


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


def test_a_larger_shift_stays_longer_at_high_noise():
    plain, shifted = flow_process(1.0).timesteps(10), flow_process(5.0).timesteps(10)
    assert plain[0] == shifted[0] == 999
    assert all(late > early for late, early in zip(shifted[1:], plain[1:], strict=True))


def test_strength_starts_part_of_the_way_down():
    assert diffusion_process(1.0).timesteps(4, strength=0.4) == [399, 299, 199, 99]


@pytest.mark.parametrize(("steps", "strength"), [(0, 1.0), (4, 0.0), (4, 1.1)])
def test_impossible_schedules_are_refused(steps, strength):
    with pytest.raises(ValueError, match="strength in"):
        diffusion_process(1.0).timesteps(steps, strength)
