# ade20k_mask2former_r50.py shrunk until it trains on a laptop's CPU in minutes, from random weights, on the sample.
_base_ = "./ade20k_mask2former_r50.py"

data_root = "data/sample/ADEChallengeData2016"
crop_size = (96, 96)

train_pipeline = _base_.train_pipeline
next(each for each in train_pipeline if each.type == "RandomChoiceResize").update(
    scales=[90, 100, 110, 120], max_size=400
)
next(each for each in train_pipeline if each.type == "RandomCrop").crop_size = crop_size
test_pipeline = _base_.test_pipeline
next(each for each in test_pipeline if each.type == "Resize").scale = (400, 112)
train_dataloader = dict(batch_size=8, num_workers=2, dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(batch_size=1, num_workers=2, dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader

# ResNet-18 of half the width, a quarter of the channels behind it, 1 layer for 6 and 3 for 9. Random weights: every
# layer trains, batch norms included.
channels = 64
attention = dict(embed_dims=channels, num_heads=4)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        depth=18, base_channels=32, norm_cfg=dict(type="BN", requires_grad=True), norm_eval=False, init_cfg=None
    ),
    decode_head=dict(
        in_channels=[32, 64, 128, 256],
        feat_channels=channels,
        out_channels=channels,
        num_queries=30,
        pixel_decoder=dict(
            norm_cfg=dict(num_groups=16),
            encoder=dict(
                num_layers=1,
                layer_cfg=dict(
                    self_attn_cfg=attention, ffn_cfg=dict(embed_dims=channels, feedforward_channels=4 * channels)
                ),
            ),
            positional_encoding=dict(num_feats=channels // 2),
        ),
        positional_encoding=dict(num_feats=channels // 2),
        transformer_decoder=dict(
            num_layers=3,
            layer_cfg=dict(
                self_attn_cfg=attention,
                cross_attn_cfg=attention,
                ffn_cfg=dict(embed_dims=channels, feedforward_channels=4 * channels),
            ),
        ),
        train_cfg=dict(num_points=1024),
    ),
)

# 0.001 is for batch 8. The backbone learns as fast as the rest: it knows nothing yet.
max_iters = 400
optim_wrapper = dict(
    optimizer=dict(lr=0.001),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=1.0))),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=20),
    dict(type="PolyLR", eta_min=0, power=0.9, begin=20, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=200)
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=200))
randomness = dict(seed=0)
