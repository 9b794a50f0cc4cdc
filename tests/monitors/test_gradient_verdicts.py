"""Verdicts on networks that really have the disease, and on one that is healthy."""

import copy

import pytest
import torch
from torch import nn

from cvplugins.monitors import GradientHealth, GradientLimits


def train(model, monitor, iterations, *, batch=None, lr=0.01, start=0, loss=None, optimizer=None):
    """Train, and return all verdicts."""
    optimizer = optimizer or torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=lr)
    verdicts = []
    for iteration in range(start, start + iterations):
        generator = torch.Generator().manual_seed(iteration)
        inputs, target = (batch or regression)(generator)
        monitor.before_forward(model, iteration)
        found = model(inputs)
        value = loss(found, target) if loss else (found - target).square().mean()
        optimizer.zero_grad()
        value.backward()
        verdicts += monitor.observe(model, iteration, loss=value.item()).verdicts
        optimizer.step()
        if (details := monitor.after_step(iteration)) is not None:
            verdicts += details.verdicts
    return verdicts


def regression(generator, width=16):
    inputs = torch.randn(8, width, generator=generator)
    return inputs, inputs[:, :1].sin()


def chain(activation, depth, width=16, std=None):
    torch.manual_seed(0)
    layers = []
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), activation()]
    model = nn.Sequential(*layers, nn.Linear(width, 1))
    if std is not None:
        for layer in model[::2]:
            nn.init.normal_(layer.weight, std=std)
    return model


def float64_norms(model, batch):
    """The oracle of a vanishing gradient: autograd in float64, where nothing underflows."""
    model = copy.deepcopy(model).double()
    inputs, target = (value.double() for value in batch)
    (model(inputs) - target).square().mean().backward()
    return [layer.weight.grad.norm().item() for layer in model[::2]]


def test_sixty_sigmoid_layers_vanish():
    model = chain(nn.Sigmoid, 60)
    norms = float64_norms(model, regression(torch.Generator().manual_seed(0)))
    assert norms[0] < 1e-30 < 1e-3 < norms[-1]
    (verdict,) = train(model, GradientHealth(detail_interval=10), 60)
    assert (verdict.kind, verdict.since, verdict.iteration) == ("vanishing", 0, 19)
    assert verdict.layers[0] == "0"
    # All below the named one have fallen to 1e-4 of the median of the upper half.
    named = int(verdict.layer) // 2
    limit = sorted(norms[30:])[15] * 1e-4
    assert norms[named] < limit * 10
    assert norms[named + 2] > limit / 10
    assert verdict.layers == tuple(str(2 * index) for index in range(named + 1))
    assert "gradient norms fall towards the input" in str(verdict)


def test_a_bad_initialisation_explodes_at_the_first_step():
    model = chain(nn.ReLU, 12, std=2.0)  # 0.35 would keep the variance
    (verdict, *_) = train(model, GradientHealth(detail_interval=1), 1, lr=1e-30)
    assert (verdict.kind, verdict.since, verdict.iteration) == ("exploding", 0, 0)
    assert "times their weights" in verdict.evidence


def test_gradients_that_grow_towards_the_input_explode():
    """Each normalised layer without a skip multiplies the gradient; depth makes it explode (Yang et al., ICLR 2019)."""
    torch.manual_seed(0)
    layers = []
    for _ in range(100):
        layers += [nn.Linear(16, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(16, 1))
    verdicts = train(model, GradientHealth(), 25, lr=0)  # a step would throw the weights far away
    assert [verdict.kind for verdict in verdicts] == ["exploding"]
    assert verdicts[0].layers[0] == "0"
    assert "grow towards the input" in verdicts[0].evidence


def test_a_learning_rate_that_is_too_large_explodes_before_it_overflows():
    """The oracle is linear regression: above 2 over the largest curvature the gradient grows by a factor a step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 1))
    monitor = GradientHealth()
    assert train(model, monitor, 50, lr=0.05) == []
    verdicts = train(model, monitor, 30, lr=2.0, start=50)
    assert [(verdict.kind, verdict.layer) for verdict in verdicts] == [("exploding", "0")]
    assert 50 < verdicts[0].since < verdicts[0].iteration == verdicts[0].since + 2
    assert not monitor.first_nonfinite


def test_small_gradients_that_return_to_what_they_were_do_not_explode():
    """Bad batches after convergence: 1e-5, then 5 batches as at the beginning."""
    from cvplugins.monitors.gradient_verdicts import GradientVerdicts

    judge = GradientVerdicts()
    totals = [1.0] * 100 + [1e-5] * 400 + [0.5] * 5 + [1e-5] * 100
    layers, matrix = ["a", "b"], range(2)
    for iteration, total in enumerate(totals):
        assert judge.judge(iteration, layers, [total, total], matrix) == []
    found = [judge.judge(700 + step, layers, [1e2, 2e2], matrix) for step in range(5)]
    assert [[verdict.layer for verdict in each] for each in found] == [[], [], ["b"], [], []]
    assert found[2][0].since == 700


def test_a_dead_relu_layer_is_found_with_all_before_it():
    model = chain(nn.ReLU, 6)
    nn.init.constant_(model[4].bias, -100.0)
    monitor = GradientHealth(detail_interval=5, activations=["1", "3", "5", "7"])
    verdicts = train(model, monitor, 60)
    assert [(each.kind, each.layer, each.layers, each.since) for each in verdicts] == [
        ("dead", "5", ("5",), 0),  # the activation itself
        ("dead", "4", ("0", "2", "4"), 0),  # whose gradients it blocks
    ]


def test_a_layer_that_dies_later_is_dated():
    model = chain(nn.ReLU, 6)
    monitor = GradientHealth()
    assert train(model, monitor, 30) == []
    nn.init.constant_(model[4].bias, -100.0)
    (verdict,) = train(model, monitor, 30, start=30)
    assert (verdict.kind, verdict.layer, verdict.since, verdict.iteration) == ("dead", "4", 30, 49)


def test_unused_parameters_are_found():
    class WithSpare(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(16, 1)
            self.spare = nn.Linear(16, 1)
            self.frozen = nn.Linear(16, 1).requires_grad_(False)

        def forward(self, inputs):
            return self.body(inputs)

    (verdict,) = train(WithSpare(), GradientHealth(), 40)
    assert (verdict.kind, verdict.layers, verdict.since) == ("unused", ("spare.weight", "spare.bias"), 0)


def test_a_plateau_is_found_once_and_dated():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 1))
    monitor = GradientHealth(limits=GradientLimits(plateau=20))
    assert train(model, monitor, 40, lr=0.01) == []  # it learns
    verdicts = train(model, monitor, 200, lr=0.0, start=40)
    assert [(verdict.kind, verdict.layer) for verdict in verdicts] == [("plateau", "")]
    assert verdicts[0].since in (20, 40)
    # After a gain the next plateau is another one.
    verdicts = train(model, monitor, 400, lr=0.02, start=240) + train(model, monitor, 100, lr=0.0, start=640)
    assert [verdict.kind for verdict in verdicts] == ["plateau"]


class SmallCNN(nn.Module):
    """Convolutions with batch norm and a residual branch that starts at 0, as in a ResNet; dropout and a head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.branch = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8),
        )  # fmt: skip
        nn.init.zeros_(self.branch[4].weight)
        self.down = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(16, 4)

    def forward(self, inputs):
        stem = self.stem(inputs)
        return self.head(self.down(stem + self.branch(stem)).mean((2, 3)))


def classification(generator):
    """Noise with a bright quarter, which is the class."""
    target = torch.randint(4, (8,), generator=generator)
    inputs = torch.randn(8, 3, 16, 16, generator=generator)
    for image, label in zip(inputs, target.tolist(), strict=True):
        image[:, 8 * (label // 2) :][:, :8, 8 * (label % 2) :][:, :, :8] += 1.5
        image[label % 3] += 0.5
    return inputs, target


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_a_healthy_run_gives_no_false_alarm(optimizer):
    model = SmallCNN()
    options = dict(lr=0.05, momentum=0.9) if optimizer == "SGD" else dict(lr=2e-3)
    monitor = GradientHealth(detail_interval=10, activations=["*.2", "head"], limits=dict(plateau=250))
    losses = []

    def loss(found, target):
        value = nn.functional.cross_entropy(found, target)
        losses.append(value.item())
        return value

    optimizer = getattr(torch.optim, optimizer)(model.parameters(), **options)
    assert train(model, monitor, 500, batch=classification, loss=loss, optimizer=optimizer) == []
    assert sum(losses[-50:]) < sum(losses[:50]) / 2  # it is healthy: it learns


@pytest.mark.parametrize("disease", ["vanishing", "dead"])
@pytest.mark.parametrize("stop", [7, 19, 30])
def test_a_resumed_run_judges_as_the_straight_one(disease, stop):
    def start():
        model = chain(nn.Sigmoid, 60) if disease == "vanishing" else chain(nn.ReLU, 6)
        if disease == "dead":
            nn.init.constant_(model[4].bias, -100.0)
        return model, GradientHealth(detail_interval=5, activations=["1", "5"], limits=dict(plateau=10))

    straight = train(*start(), 50)
    model, monitor = start()
    before = train(model, monitor, stop)
    _, resumed = start()
    resumed.load_state_dict(copy.deepcopy(monitor.state_dict()))
    assert before + train(model, resumed, 50 - stop, start=stop) == straight


def test_details_are_those_of_the_step():
    """The oracle is what SGD does: it moves a weight by the learning rate times the gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    nn.init.constant_(model[0].bias, 0)
    with torch.no_grad():
        model[0].bias[1] = -100.0  # one dead unit of three
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    monitor = GradientHealth(detail_interval=1, activations=["1"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor.before_forward(model, 0)
    inputs = torch.randn(8, 4)
    hidden = model[1](model[0](inputs)).detach()
    model[2](model[1](model[0](inputs))).sum().backward()
    report = monitor.observe(model, 0)
    optimizer.step()
    details = monitor.after_step(0)
    for index in (0, 2):
        own = [value for name, value in model.named_parameters() if name.startswith(f"{index}.")]
        gradient = torch.cat([value.grad.flatten() for value in own])
        weight = torch.cat([before[f"{index}.{part}"].flatten() for part in ("weight", "bias")])
        assert details.layers[str(index)] == pytest.approx(
            {
                "norm": gradient.norm().item(),
                "zeros": (gradient == 0).double().mean().item(),
                "update_ratio": 0.1 * gradient.norm().item() / weight.norm().item(),
            },
            rel=1e-4,
        )
    assert details.layers["0"]["norm"] == report.layer_norms["0"]
    assert details.activations["1"] == pytest.approx(
        {
            "mean": hidden.mean().item(),
            "std": hidden.std(correction=0).item(),
            "zeros": (hidden == 0).double().mean().item(),
            "dead": 1 / 3,
        },
        rel=1e-5,
    )
    assert details.scalars()["gradient/zeros/0"] == details.blocks["0"]["zeros"]
    assert not model[1]._forward_hooks  # nothing is left on the model


def test_units_are_channels_or_features():
    from cvplugins.monitors.layer_details import ActivationDetails

    for shape, axis in [((2, 3, 4, 4), 1), ((2, 3), 1), ((2, 5, 3), 2)]:
        module = nn.Identity()
        values = torch.ones(shape)
        values.select(axis, 1).zero_()
        details = ActivationDetails(module, [""])
        module(values)
        assert details.read()[""]["dead"] == pytest.approx(1 / 3)


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="limits has no 'grow'; it takes fall, growth"):
        GradientHealth(limits=dict(grow=1))
    with pytest.raises(ValueError, match="fall is 2; it must be above 0 and at most 1"):
        GradientLimits(fall=2)
    with pytest.raises(ValueError, match="patience is 0; it must be at least 1"):
        GradientLimits(patience=0)
    with pytest.raises(ValueError, match="detail_interval is -1"):
        GradientHealth(detail_interval=-1)
    with pytest.raises(ValueError, match="set it to 100"):
        GradientHealth(activations=["0"])
    with pytest.raises(ValueError, match="give a list of names"):
        GradientHealth(activations="0", detail_interval=1)
    with pytest.raises(ValueError, match="no module is named 'x'; there are 0, 1"):
        GradientHealth(activations=["x"], detail_interval=1).check(chain(nn.ReLU, 2))
