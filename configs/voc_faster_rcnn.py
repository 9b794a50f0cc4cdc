# Faster R-CNN R50-FPN on PASCAL VOC 07+12: trained on both trainval sets, tested on VOC2007 test.
# Published: 79.5 AP50 by 11 points (mmdet zoo), 80.4 in its 2.22 log.
# Recipe: 4 epochs over the data repeated 3 times = 12 effective epochs; SGD 0.01 for 8 GPUs x 2 images, so
# give --auto-scale-lr for any other batch size; learning rate x 0.1 after epoch 3; images within 1000 x 600.
_base_ = ["mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py", "./_base_/plugins.py"]

train_dataset = _base_.train_dataloader.dataset
for voc in train_dataset.dataset.datasets:
    # The zoo's bbox_min_size=32 marks every box under 32 px as ignored (mmdet/datasets/xml_style.py, 3.3.0 and
    # 3.5.1); it costs accuracy: open-mmlab/mmdetection#11541, #10502. 07 and 12 join because the zoo's
    # ConcatDataset ignores their differing `dataset_type` (#9195); the test of this config watches that.
    voc.filter_cfg.pop("bbox_min_size")
train_dataloader = dict(
    dataset=train_dataset,
    # IterationSeedHook seeds workers that start anew in every epoch: a resumed run repeats the straight one.
    persistent_workers=False,
)
del train_dataset, voc

# VOCMetric gives one number; this gives 11-point, area and COCO-style AP and AR, per class, in one pass.
val_evaluator = dict(_delete_=True, type="cvplugins.VOCDetectionMetric")
test_evaluator = val_evaluator

# The backbone's batch norms are frozen (frozen_stages=1) or in evaluation mode (norm_eval=True), as published. They
# stay so, and the log says it; batch norms that train, as in the sample's config, are synchronised over processes.
custom_hooks = _base_.custom_hooks
next(each for each in custom_hooks if each.type == "cvplugins.NormPolicyHook").rules = [
    dict(to="SyncBN", frozen="keep", evaluating="keep")
]

default_hooks = dict(
    checkpoint=dict(
        _delete_=True, type="cvplugins.AtomicCheckpointHook", interval=1, save_best="bbox/AP50_11point", rule="greater"
    )
)
