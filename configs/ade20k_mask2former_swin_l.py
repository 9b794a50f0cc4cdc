# Mask2Former Swin-L, pretrained on ImageNet-22k at 384 x 384, on ADE20K (150 classes), crops of 640 x 640.
# Published: 56.1 mIoU single-scale, 57.3 multi-scale (original); 56.01 (mmseg zoo).
# Recipe: as ade20k_mask2former_r50.py, 160k iterations, AdamW 0.0001 for 8 GPUs x 2 images; precision and crops are
# chosen as there.
_base_ = ["mmseg::mask2former/mask2former_swin-l-in22k-384x384-pre_8xb2-160k_ade20k-640x640.py", "./_base_/plugins.py"]

data_root = "data/ADEChallengeData2016"
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
model = dict(decode_head=dict(train_cfg=dict(assigner=dict(type="cvplugins.FiniteHungarianAssigner"))))
val_evaluator = dict(_delete_=True, type="cvplugins.SegmentationMetric", boundary=True)
test_evaluator = val_evaluator
default_hooks = dict(
    checkpoint=dict(type="cvplugins.AtomicCheckpointHook", save_best="sem_seg/mIoU", rule="greater", max_keep_ckpts=2)
)
