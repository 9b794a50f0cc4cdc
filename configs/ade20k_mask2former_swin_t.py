# Mask2Former Swin-T on ADE20K (150 classes), crops of 512 x 512.
# Published: 47.7 mIoU single-scale, 49.6 multi-scale (original); 48.66 (mmseg zoo).
# Recipe: as ade20k_mask2former_r50.py, 160k iterations, AdamW 0.0001 for 8 GPUs x 2 images. Swin has layer norms, so
# that the batch norms of R50 are no question here; precision and crops are chosen as there.
_base_ = ["mmseg::mask2former/mask2former_swin-t_8xb2-160k_ade20k-512x512.py", "./_base_/plugins.py"]

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
