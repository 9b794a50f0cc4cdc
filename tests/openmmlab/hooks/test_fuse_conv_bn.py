"""FuseConvBNHook in a test run. Oracle: the same test without it."""

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.openmmlab


def make_model():
    from mmengine.model import BaseModel

    class Model(BaseModel):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Conv1d(1, 4, 1), nn.BatchNorm1d(4), nn.ReLU(), nn.BatchNorm1d(4))
            for norm in (self.layers[1], self.layers[3]):
                norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
            self.outputs = []

        def forward(self, inputs, target, mode="tensor"):
            output = self.layers(inputs.unsqueeze(2))
            if mode == "loss":
                return {"loss": output.square().mean()}
            self.outputs.append(output)
            return [{"loss": output.mean()}]

    return Model()


def start(work_dir, name, hooks=()):
    from small_runner import Numbers, runner

    loader = dict(dataset=Numbers(), batch_size=2, num_workers=0, sampler=dict(type="DefaultSampler"))
    loader |= dict(collate_fn=dict(type="default_collate"))
    evaluator = dict(type="mmengine.DumpResults", out_file_path=f"{work_dir}/out.pkl")
    options = dict(test_dataloader=loader, test_cfg={}, test_evaluator=evaluator, randomness=dict(seed=0))
    return runner(work_dir, name, model=make_model(), hooks=hooks, **options)


def test_a_test_gives_the_same_with_folded_layers(tmp_path):
    plain, folded = start(tmp_path, "plain"), start(tmp_path, "folded", [dict(type="cvplugins.FuseConvBNHook")])
    for run in (plain, folded):
        torch.manual_seed(0)
        from mmengine.runner import set_random_seed

        set_random_seed(0)
        run.test()
    # The run that folds has seen the first batch once more.
    torch.testing.assert_close(folded.model.outputs[1:], plain.model.outputs, rtol=1e-5, atol=1e-5)
    assert isinstance(folded.model.layers[1], nn.Identity)
    logs = "".join(path.read_text() for path in tmp_path.glob("*/*.log"))
    assert "1 of 2 batch norms folded into convolutions; 1 after something else than a convolution" in logs
    with pytest.raises(RuntimeError, match="build a new Runner to train"):
        folded.call_hook("before_train")
