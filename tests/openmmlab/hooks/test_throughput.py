"""The throughput hook under mmengine's Runner."""

import time
from types import SimpleNamespace

import pytest
import torch

pytestmark = pytest.mark.openmmlab


@pytest.fixture
def start(tmp_path, request):
    from small_runner import runner

    def _start(**options):
        return runner(tmp_path, f"{request.node.name}_{len(list(tmp_path.iterdir()))}", **options)

    return _start


def slow_parts():
    """Return a dataset and a model, each of known slowness."""
    from small_runner import Numbers, SmallModel

    class SlowNumbers(Numbers):
        def __getitem__(self, index):
            time.sleep(0.01)
            return super().__getitem__(index)

    class SlowModel(SmallModel):
        def forward(self, *args, **kwargs):
            time.sleep(0.04)
            return super().forward(*args, **kwargs)

    return SlowNumbers(), SlowModel()


def test_reports_what_really_took_time_beside_the_timer_of_mmengine(start, tmp_path):
    """The oracle is what sleeps: 2 images of 0.01 s and a model of 0.04 s."""
    dataset, model = slow_parts()
    hook = dict(type="cvplugins.ThroughputHook", interval=4)
    run = start(hooks=[hook], dataset=dataset, model=model, epochs=2)
    scalars = []
    add = run.visualizer.add_scalars
    run.visualizer.add_scalars = lambda found, step=0, **rest: (
        scalars.append((step, dict(found))),
        add(found, step, **rest),
    )
    run.train()
    own = [(step, found) for step, found in scalars if any(name.startswith("throughput/") for name in found)]
    assert [step for step, _ in own] == [4, 8]
    _, last = own[-1]
    assert last["throughput/data_seconds"] == pytest.approx(0.02, rel=0.5)
    assert last["throughput/compute_seconds"] == pytest.approx(0.04, rel=0.5)
    assert last["throughput/images_per_second"] == pytest.approx(2 / 0.06, rel=0.4)
    assert last["throughput/eta_seconds"] == 0
    log = next(tmp_path.glob("*/*.log")).read_text()
    assert log.count("throughput: ") == 2
    # Nothing of the timer's is written twice.
    theirs = set().union(*(found for _, found in scalars if not any(name.startswith("throughput/") for name in found)))
    assert {"time", "data_time"} <= theirs
    assert not theirs & set(last)


def validations_by_running(loop, maximum, interval, begin, done):
    """The oracle: mmengine's loops themselves (mmengine/runner/loops.py, 0.10), step by step."""
    del loop
    return sum(step >= begin and (step % interval == 0 or step == maximum) for step in range(done, maximum + 1))


@pytest.mark.parametrize("maximum", [1, 7, 12])
@pytest.mark.parametrize("interval", [1, 3, 5, 20])
@pytest.mark.parametrize("begin", [1, 4, 9])
def test_validations_to_come_are_those_of_the_loops(maximum, interval, begin):
    from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

    from cvplugins.openmmlab.hooks.throughput import _validations_left

    for kind in (EpochBasedTrainLoop, IterBasedTrainLoop):
        loop = object.__new__(kind)
        loop.val_begin, loop.val_interval = begin, interval
        for done in range(1, maximum + 1):
            runner = SimpleNamespace(
                train_loop=loop, val_loop=object(), max_iters=maximum, max_epochs=maximum, epoch=done - 1
            )
            assert _validations_left(runner, done) == validations_by_running(kind, maximum, interval, begin, done)
            runner.val_loop = None
            assert _validations_left(runner, done) == 0


@pytest.mark.parametrize(
    "batch",
    [
        dict(inputs=[torch.zeros(3, 4, 4), torch.zeros(3, 5, 5)], data_samples=[0, 1]),
        dict(inputs=torch.zeros(2, 3, 4, 4)),
        dict(img=torch.zeros(2, 3), label=torch.zeros(2)),
        dict(inputs=dict(sup=[torch.zeros(3, 4, 4)] * 2, unsup=[torch.zeros(3, 4, 4)] * 3)),
        [torch.zeros(2, 3, 4, 4), torch.zeros(2)],
        [dict(image=0), dict(image=1)],
    ],
)
def test_images_of_a_batch_are_counted(batch):
    from cvplugins.openmmlab.hooks.throughput import _images

    assert _images(batch) == 2


def test_validation_is_timed_and_resumes(start, tmp_path):
    from mmengine.evaluator import BaseMetric

    from cvplugins.openmmlab.hooks.throughput import ThroughputHook

    class Slow(BaseMetric):
        def process(self, data_batch, data_samples):
            self.results.append(0)

        def compute_metrics(self, results):
            time.sleep(0.2)
            return {"score": 0.0}

    from small_runner import Numbers, SmallModel

    class Model(SmallModel):
        def val_step(self, data):
            return [{}]

    validation = dict(
        val_cfg=dict(),
        val_dataloader=dict(
            dataset=Numbers(2), batch_size=1, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False),
            collate_fn=dict(type="default_collate"),
        ),
        val_evaluator=[Slow()],
    )  # fmt: skip
    hook = dict(type="cvplugins.ThroughputHook", interval=4)
    run = start(hooks=[hook], model=Model(), epochs=2, **validation)
    run.train()
    log = next(tmp_path.glob("*/*.log")).read_text()
    assert "and the validations, not timed yet" in log
    timed = next(each for each in run.hooks if isinstance(each, ThroughputHook)).monitor.clock._validations
    assert [seconds > 0.2 for seconds in timed] == [True, True]
    again = start(hooks=[hook], model=Model(), load_from=str(tmp_path / "epoch_2.pth"), resume=True, **validation)
    again.load_or_resume()
    resumed = next(each for each in again.hooks if isinstance(each, ThroughputHook)).monitor.clock._validations
    assert list(resumed) == list(timed)[:1]  # the checkpoint of an epoch is older than its validation
