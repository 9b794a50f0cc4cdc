# voc_faster_rcnn.py shrunk until it trains on a laptop's CPU in minutes, from random weights, on the sample.
_base_ = "./voc_faster_rcnn.py"

data_root = "data/sample/VOCdevkit/"
scale = (200, 200)  # the sample's own size

train_dataset = _base_.train_dataloader.dataset
for voc in train_dataset.dataset.datasets:
    voc.data_root = data_root
    next(each for each in voc.pipeline if each.type == "Resize").scale = scale
val_dataset = _base_.val_dataloader.dataset
val_dataset.data_root = data_root
next(each for each in val_dataset.pipeline if each.type == "Resize").scale = scale
train_dataset.times = 1
train_dataloader = dict(batch_size=8, dataset=train_dataset)
val_dataloader = dict(dataset=val_dataset)
test_dataloader = val_dataloader
del train_dataset, val_dataset, voc

# ResNet-18 of half the width, a quarter of the channels behind it. Random weights: every layer trains, batch norms
# included.
model = dict(
    backbone=dict(depth=18, base_channels=32, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(in_channels=64, fc_out_channels=256),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=500, max_per_img=250), rcnn=dict(sampler=dict(num=128))),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=150)),
)

# Adam learns from scratch in a few hundred iterations, where SGD needs thousands. 0.0005 is for batch 8.
max_epochs = 16
train_cfg = dict(max_epochs=max_epochs, val_interval=8)
optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=0.0005, weight_decay=0.01))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=20),
    dict(type="MultiStepLR", begin=0, end=max_epochs, by_epoch=True, milestones=[13], gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=2))
randomness = dict(seed=0)
