"""Optimizers of pytorch-optimizer in mmengine: built from a config, with paramwise_cfg, schedule and resume."""

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.openmmlab

NAMES = ["LARS", "LAMB", "Lion", "Adafactor", "Lookahead"]


@pytest.fixture
def library():
    return pytest.importorskip("pytorch_optimizer")


def config(name):
    options = dict(relative_step=False) if name == "Adafactor" else {}
    return dict(optimizer=dict(type=f"cvplugins.{name}", lr=0.02, weight_decay=0.01, **options))


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 1))


def steps(net, wrapper, count, schedulers=(), seed=0):
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(count):
        inputs = torch.randn(16, 4, generator=generator)
        loss = (net(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        wrapper.update_params(loss)
        for scheduler in schedulers:
            scheduler.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", NAMES)
def test_trains_with_parameter_groups_and_clipping(name, library):
    from mmengine.optim import build_optim_wrapper

    net, seen = model(), []
    options = dict(config(name), paramwise_cfg=dict(norm_decay_mult=0.0), clip_grad=dict(max_norm=1.0))
    wrapper = build_optim_wrapper(net, options)
    assert [group["weight_decay"] for group in wrapper.optimizer.param_groups] == [0.01, 0.01, 0.0, 0.0, 0.01, 0.01]
    wrapper.optimizer.register_step_pre_hook(lambda *_: seen.append(True))  # what GradientHealthHook needs
    losses = steps(net, wrapper, 100)
    assert sum(losses[-10:]) < sum(losses[:10])
    assert len(seen) == 100


@pytest.mark.parametrize(("name", "other"), [("LAMB", "Lamb"), ("Lion", "Lion"), ("LARS", "LARS")])
def test_is_the_librarys_own(name, other, library):
    from mmengine.optim import build_optim_wrapper

    nets = model(), model()
    wrapper = build_optim_wrapper(nets[0], config(name))
    optimizer = getattr(library, other)(nets[1].parameters(), lr=0.02, weight_decay=0.01)
    steps(nets[0], wrapper, 3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        inputs = torch.randn(16, 4, generator=generator)
        optimizer.zero_grad()
        (nets[1](inputs) - inputs.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
    for first, second in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("name", NAMES)
def test_killed_and_resumed_equals_straight(name, library, tmp_path):
    from mmengine.optim import build_optim_wrapper

    straight = model()
    wrapper = build_optim_wrapper(straight, config(name))
    steps(straight, wrapper, 7)
    torch.save((straight.state_dict(), wrapper.state_dict()), tmp_path / "state.pth")
    steps(straight, wrapper, 6, seed=1)
    resumed = model()
    again = build_optim_wrapper(resumed, config(name))
    weights, state = torch.load(tmp_path / "state.pth", weights_only=True)  # plain data, not code
    resumed.load_state_dict(weights)
    again.load_state_dict(state)
    steps(resumed, again, 6, seed=1)
    for first, second in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(first, second)


def test_lookahead_follows_the_paper(library):
    """After k steps the weights stand alpha of the way from where they were to where the base optimizer got."""
    from mmengine.optim import build_optim_wrapper

    nets = model(), model()
    start = nets[0][0].weight.detach().clone()
    options = dict(type="cvplugins.Lookahead", base="SGD", lr=0.05, lookahead_k=4, lookahead_alpha=0.3)
    steps(nets[0], build_optim_wrapper(nets[0], dict(optimizer=options)), 4)
    steps(nets[1], build_optim_wrapper(nets[1], dict(optimizer=dict(type="SGD", lr=0.05))), 4)
    torch.testing.assert_close(nets[0][0].weight, start + 0.3 * (nets[1][0].weight - start))


@pytest.mark.parametrize("name", ["LAMB", "Lookahead"])
def test_warm_up_and_cosine_of_the_documentation(name, library, root):
    """The snippet of docs/hooks/Optimizers.md, run: linear to the peak, half a cosine down to nearly nothing."""
    from mmengine.config import Config
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import PARAM_SCHEDULERS

    text = (root / "docs" / "hooks" / "Optimizers.md").read_text()
    snippet = text.split("<!-- warm-up and cosine -->")[1].split("```python")[1].split("```")[0]
    read = Config.fromstring(snippet, ".py")
    read.optim_wrapper.optimizer.type = f"cvplugins.{name}"
    net = model()
    wrapper = build_optim_wrapper(net, read.optim_wrapper)
    schedulers = [PARAM_SCHEDULERS.build(each, default_args=dict(optimizer=wrapper)) for each in read.param_scheduler]
    rates = []
    for _ in range(read.max_iters):
        rates.append(wrapper.get_lr()["lr"][0])
        for scheduler in schedulers:
            scheduler.step()
    peak = read.optim_wrapper.optimizer.lr
    assert rates[0] == pytest.approx(read.param_scheduler[0].start_factor * peak)
    assert max(rates) == pytest.approx(peak)
    assert rates.index(max(rates)) in range(read.warmup - 1, read.warmup + 1)
    half = (read.warmup + read.max_iters) // 2
    assert rates[half] == pytest.approx(peak / 2, rel=0.01)
    assert rates[-1] < 0.01 * peak
    assert len(steps(net, wrapper, 3)) == 3


def test_without_the_library_the_message_says_how_to_install_it():
    """In a process of its own, where the library cannot be imported; nothing imports it before it is used."""
    code = """
        import sys
        from torch import nn
        from mmengine.optim import build_optim_wrapper
        from cvplugins.registry import OPTIMIZERS
        assert OPTIMIZERS.get('cvplugins.LARS')
        assert 'pytorch_optimizer' not in sys.modules
        sys.modules['pytorch_optimizer'] = None
        build_optim_wrapper(nn.Linear(1, 1), dict(optimizer=dict(type='cvplugins.Lookahead', lr=0.1)))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "not installed: pip install pytorch-optimizer" in done.stderr.splitlines()[-1]
