# Mask2Former R50 on ADE20K (150 classes), crops of 512 x 512.
# Published: 47.2 mIoU single-scale, 49.2 multi-scale (original); 47.87 (mmseg zoo).
# Recipe: 160k iterations, AdamW 0.0001 with weight decay 0.05 for 8 GPUs x 2 images, so give --auto-scale-lr for any
# other batch size; backbone x 0.1; poly 0.9; gradients clipped to a norm of 0.01.
#
# Where the original (facebookresearch/Mask2Former) and mmseg differ:
# - Batch norms of the backbone: FrozenBN in the original. mmseg freezes their weights only, so that the running
#   statistics still move. Here they are frozen whole, as in the original.
# - Precision: mixed in the original, float32 in mmseg. Here float32; --amp gives the original's.
# - Crops: mmseg draws a crop anew whose largest class covers more than 75 %; the original takes any. Here mmseg's.
_base_ = ["mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py", "./_base_/plugins.py"]

data_root = "data/ADEChallengeData2016"
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader

model = dict(
    backbone=dict(norm_cfg=dict(type="BN", requires_grad=False), norm_eval=True),
    # A matching cost that is not finite is named, where scipy says "matrix contains invalid numeric entries".
    decode_head=dict(train_cfg=dict(assigner=dict(type="cvplugins.FiniteHungarianAssigner"))),
)

# IoUMetric's mIoU, mAcc and aAcc, and Dice, boundary IoU, kappa and more, per class, in one pass.
val_evaluator = dict(_delete_=True, type="cvplugins.SegmentationMetric", boundary=True)
test_evaluator = val_evaluator

# The log lists the batch norms and says that they stay frozen.
custom_hooks = _base_.custom_hooks
next(each for each in custom_hooks if each.type == "cvplugins.NormPolicyHook").rules = [
    dict(to="SyncBN", frozen="keep", evaluating="keep")
]

default_hooks = dict(
    checkpoint=dict(type="cvplugins.AtomicCheckpointHook", save_best="sem_seg/mIoU", rule="greater", max_keep_ckpts=2)
)
