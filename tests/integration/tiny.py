# The sample config with a model so small that an iteration takes a fraction of a second; for tests of the tools.
_base_ = "../../configs/voc_faster_rcnn_sample.py"

model = dict(
    backbone=dict(base_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=16), bbox_head=dict(in_channels=16, fc_out_channels=16)),
)
train_dataloader = dict(batch_size=1, num_workers=1)
val_dataloader = dict(batch_size=2, num_workers=1, persistent_workers=False)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=3, val_interval=3)
default_hooks = dict(logger=dict(interval=1))
custom_hooks = _base_.custom_hooks
custom_hooks[2].update(interval=1, detail_interval=0)  # its figure takes longer than the training
