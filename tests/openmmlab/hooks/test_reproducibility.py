"""A resumed run repeats the uninterrupted one: augmentation, dropout and order of the data included."""

import pytest

pytestmark = pytest.mark.openmmlab

EPOCHS = dict(
    train_cfg=dict(by_epoch=True, max_epochs=3),
    loader=dict(persistent_workers=False),
    by_epoch=True,
    last="epoch_2.pth",
)
ITERATIONS = dict(
    train_cfg=dict(by_epoch=False, max_iters=12),
    loader=dict(sampler=dict(type="InfiniteSampler", shuffle=True)),
    by_epoch=False,
    last="iter_7.pth",
)


def losses(folder, name, plan, seed=3, num_workers=2, hooks=(dict(type="cvplugins.IterationSeedHook"),), **options):
    """Train and return the loss of every iteration."""
    from small_runner import runner

    checkpoint = dict(type="cvplugins.AtomicCheckpointHook", interval=1, by_epoch=plan["by_epoch"])
    run = runner(
        folder,
        name,
        hooks=hooks,
        train_cfg=plan["train_cfg"],
        loader=dict(plan["loader"], num_workers=num_workers),
        default_hooks=dict(checkpoint=checkpoint),
        randomness=dict(seed=seed),
        **options,
    )
    run.train()
    return run.message_hub.get_scalar("train/loss").data[0].tolist()


@pytest.mark.parametrize("plan", [EPOCHS, ITERATIONS], ids=["epochs", "iterations"])
def test_resumed_run_repeats_the_straight_one(tmp_path, plan, request):
    name = request.node.name
    straight = losses(tmp_path / "straight", f"{name}_straight", plan)
    start = tmp_path / "straight" / plan["last"]
    for num_workers in (0, 1, 3):
        resumed = losses(
            tmp_path / f"resumed{num_workers}",
            f"{name}_resumed{num_workers}",
            plan,
            num_workers=num_workers,
            load_from=str(start),
            resume=True,
        )
        assert resumed == straight  # the history in the checkpoint, and the new losses
    other = losses(tmp_path / "other", f"{name}_other", plan, seed=4)
    assert other != straight


def test_a_loader_that_starts_anew_goes_on_drawing(tmp_path, request):
    """An iteration-based run over a finite sampler: every pass has noise of its own, as without workers."""
    plan = dict(ITERATIONS, loader=dict(sampler=dict(type="DefaultSampler", shuffle=False)))
    found = [losses(tmp_path / str(count), f"{request.node.name}_{count}", plan, num_workers=count) for count in (0, 1)]
    assert found[0] == found[1]


def test_without_the_plugins_it_does_not(tmp_path, request):
    """When this fails, mmengine resumes exactly and the hook can go."""
    plan = EPOCHS
    name = request.node.name
    straight = losses(tmp_path / "straight", f"{name}_straight", plan, hooks=())
    start = tmp_path / "straight" / plan["last"]
    resumed = losses(tmp_path / "resumed", f"{name}_resumed", plan, hooks=(), load_from=str(start), resume=True)
    assert resumed[:8] == straight[:8]
    assert resumed[8:] != straight[8:]


def test_seed_differs_by_rank_and_iteration():
    import torch

    from cvplugins.randomness import seed_everything

    drawn = set()
    for numbers in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]:
        seed_everything(*numbers)
        drawn.add(torch.rand(()).item())
    assert len(drawn) == 4
