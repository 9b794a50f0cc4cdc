# Faster R-CNN R50-C4 on PASCAL VOC 07+12, Detectron2's recipe: AP 51.9, AP50 80.3 by 11 points (Detectron2 zoo).
# 18k iterations; SGD 0.02 for 8 GPUs x 2 images, so give --auto-scale-lr for any other batch size; learning rate
# x 0.1 after 12k and 16k; short side 480 to 800 in training, 800 in testing.
_base_ = ["mmdet::pascal_voc/faster-rcnn_r50-caffe-c4_ms-18k_voc0712.py", "./_base_/plugins.py"]

train_dataloader = dict(
    # Without ignore_keys joining 07 and 12 raises "meta information does not match": mmdetection#9195, #10474.
    # This zoo config has no bbox_min_size, so small boxes are kept already.
    dataset=dict(ignore_keys=["dataset_type"]),
)

val_evaluator = dict(_delete_=True, type="cvplugins.VOCDetectionMetric")
test_evaluator = val_evaluator

default_hooks = dict(
    checkpoint=dict(
        _delete_=True,
        type="cvplugins.AtomicCheckpointHook",
        by_epoch=False,
        interval=3000,
        save_best="bbox/AP50_11point",
        rule="greater",
    )
)
