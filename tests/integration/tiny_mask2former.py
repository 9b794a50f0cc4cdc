# The sample config with a model so small that an iteration takes a fraction of a second; for tests of the tools.
_base_ = "../../configs/ade20k_mask2former_sample.py"

channels = 16
attention = dict(embed_dims=channels, num_heads=2)
ffn = dict(embed_dims=channels, feedforward_channels=channels)
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(base_channels=8),
    decode_head=dict(
        in_channels=[8, 16, 32, 64],
        feat_channels=channels,
        out_channels=channels,
        num_queries=30,
        pixel_decoder=dict(
            norm_cfg=dict(num_groups=4),
            encoder=dict(layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
            positional_encoding=dict(num_feats=channels // 2),
        ),
        positional_encoding=dict(num_feats=channels // 2),
        transformer_decoder=dict(
            num_layers=1, layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn)
        ),
        train_cfg=dict(num_points=64),
    ),
)
train_pipeline = _base_.train_pipeline
train_pipeline[3].crop_size = (64, 64)
train_dataloader = dict(batch_size=2, num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, persistent_workers=False)
test_dataloader = val_dataloader
train_cfg = dict(max_iters=6, val_interval=6)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
custom_hooks = _base_.custom_hooks
custom_hooks[2].update(interval=1, detail_interval=0)  # its figure takes longer than the training
