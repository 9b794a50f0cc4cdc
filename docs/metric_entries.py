"""What docs/metrics.md says of each metric and the code does not know."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["ENTRIES", "NUMBERS_OF", "Entry"]


@dataclass(frozen=True)
class Entry:
    """One metric.

    Attributes:
        name: The registered type.
        task: What it evaluates.
        measures: What each number in the log means, with its formula; ``*`` stands for a class or a number.
        conventions: What happens in the cases that frameworks decide differently.
        differences: Rows of a table: which framework, what it gives, how to get that here.
        config: How a config names it.
        call: The core class in a loop of one's own.
        files: What it writes.
        reference: Papers and codes.
        measures_of: The metric that has the same measures, in place of them.
    """

    name: str
    task: str
    measures: dict[str, str]
    conventions: list[str]
    config: str
    call: str
    files: str
    reference: str = ""
    measures_of: str = ""
    differences: list[tuple[str, str, str]] = field(default_factory=list)


# Which evaluator's number a rule of detections reproduces, and how exactly that is tested.
NUMBERS_OF = {
    "voc2007": ("mmdet `VOCMetric(eval_mode='11points')`", "2e-7: mmdet sums in float32"),
    "voc2012": ("mmdet `VOCMetric(eval_mode='area')`", "2e-7: mmdet sums in float32"),
    "coco": ("pycocotools, Detectron2 `COCOEvaluator`, mmdet `CocoMetric(proposal_nums=(1, 10, 100))`", "1e-14"),
    "coco_mmdet": ("mmdet `CocoMetric` as it is by default", "1e-12; mmdet then rounds to 3 decimals"),
    "detectron2": ("Detectron2 `PascalVOCDetectionEvaluator` on VOC 2007", "1e-12 of 100"),
    "detectron2_2012": ("Detectron2 `PascalVOCDetectionEvaluator` on VOC 2012", "1e-12 of 100"),
}

DETECTION = {
    "AP": "mean over the IoU thresholds and classes of the average precision, in the rule's interpolation: "
    "$`\\frac{1}{101}\\sum_{r\\in\\{0,0.01,\\dots,1\\}}\\max_{r'\\ge r}p(r')`$ (COCO), the same with 11 recalls (VOC "
    "2007), $`\\int_0^1\\max_{r'\\ge r}p(r')\\,dr`$ (VOC 2012)",
    "AP50": "the same at IoU 0.5; so is named every threshold but eight of COCO's ten: `AP30`",
    "AP75": "the same at IoU 0.75",
    "AP50_11point": "for a rule by area: the eleven-point value as well",
    "AP50_area": "for a rule by eleven points: the area as well",
    "AP_11point": "the same for a rule of several thresholds",
    "AP_area": "the same for a rule of several thresholds",
    "AP_small": "of objects of up to 32² pixels (`AP_medium`: up to 96², `AP_large`: above)",
    "AP_medium": "of objects of 32² to 96² pixels",
    "AP_large": "of objects from 96² pixels",
    "AR1": "mean over IoU thresholds and classes of the recall with one detection an image and class",
    "AR10": "with ten",
    "AR100": "with a hundred",
    "AR300": "with three hundred, by the rule `coco_mmdet`",
    "AR1000": "with a thousand, by the same",
    "AR": "with all detections, for rules without such limits",
    "AR_small": "recall of small objects with the most detections (also `AR_medium`, `AR_large`)",
    "AR_medium": "recall of medium objects",
    "AR_large": "recall of large objects",
    "precision": "$`TP/(TP+FP)`$ of the detections of at least `score_threshold`, mean over classes",
    "recall": "$`TP/(TP+FN)`$ there",
    "F1": "$`2TP/(2TP+FP+FN)`$ there",
    "best_F1": "the highest F1 of any score threshold, mean over classes; the JSON and the figure name the score",
    "FPPI": "false positives per image, of all classes, at `score_threshold`",
    "matched_IoU": "mean IoU of the objects that were found with their detections",
    "log_average_miss_rate": "geometric mean of the miss rates at nine numbers of false positives per image from 0.01 "
    "to 1; less is better",
    "AP/*": "the rule's own number of a class",
    "AP50/*": "the rule's own number of a class",
}

MATCHING = [
    "Difficult objects and crowds neither help nor hurt. By VOC's rule an ignored object takes any number of "
    "detections; by COCO's a difficult one takes one and a crowd any number, whose overlap is divided by the "
    "detection's area.",
    "Equal scores keep the order of the image ids and then that of the detections, as in pycocotools; in OpenMMLab the "
    "id is `img_id`, and of joined datasets that share one the path decides. The VOC metrics of mmdet and Detectron2 "
    "sort unstably, so that their result is not fixed there.",
    "COCO's rules take width and height as the annotation file has them (`truth_sizes`, `sizes`), of predictions as "
    "the framework's own metric makes them of corners: mmdet's in float64, Detectron2's in float32. So an overlap that "
    "is exactly on a threshold is judged as there. Without `ann_file` mmdet's loaded boxes are float32; "
    "`PackDetInputs(meta_keys=(..., 'instances'))` hands on the exact ones.",
    "mmdet's `CocoMetric` measures the mean AP with 100 detections an image and class, but AP50, AP75, sizes and a "
    "class's AP with up to 1,000 (`proposal_nums=(100, 300, 1000)`). The rule `coco_mmdet` does the same; `coco` takes "
    "100 for all. They are one where no image has more than 100 of a class.",
    "A class without ground truth is undefined and left out of the means, as in pycocotools. mmdet's `VOCMetric` "
    "leaves it out too; Detectron2's VOC evaluator divides by 0.",
    "Several rules run on one state. A name that an earlier rule has used gets the name of its rule in front: "
    "`coco_AP50`. The first rule decides operating points, errors and the numbers per class.",
    "The confusion matrix has a row and a column for the background. The diagonal holds what the rule matched; "
    "duplicates and false alarms stand in the last row, missed objects in the last column; difficult objects and "
    "crowds, and detections on them, in no cell. mmdet's `confusion_matrix.py` counts difficult objects, and every "
    "detection that overlaps an object as a hit.",
    "Kinds of error are those of TIDE: localisation (its class, IoU from 0.1 to the threshold), classification (enough "
    "IoU with another class), duplicate, background (IoU up to 0.1), both at once, missed (no error explains it).",
    "A score, box or image that is not finite or out of range is an error that names the image.",
]

ENTRIES = {
    entry.name: entry
    for entry in (
        Entry(
            name="DetectionMetric",
            task="boxes of any dataset",
            measures=DETECTION,
            conventions=MATCHING,
            differences=[
                ("mmdet `VOCMetric`", "one number, IoU of at least 0.5, VOC datasets only", "`rules=['voc2007']`"),
                ("VOC devkit", "IoU above 0.5", "`dict(base='voc2012', iou_comparison='>')`"),
                ("Detectron2 VOC", "IoU above, scores of 3 and boxes of 1 decimals", "`rules=['detectron2']`"),
                (
                    "mmdet `CocoMetric`",
                    "COCO's twelve numbers, rounded, most of them with 1,000 detections",
                    "`rules=['coco_mmdet'], ann_file=...`",
                ),
            ],
            config="""val_evaluator = dict(
    type='cvplugins.DetectionMetric',
    rules=['coco', 'voc2012'],
    ann_file='data/coco/annotations/instances_val2017.json')  # COCO's sizes go by the outline, which mmdet drops""",
            call="""from cvplugins.metrics import DetectionMetric, ImageDetections

metric = DetectionMetric(['cat', 'dog'], rules=['voc2007', 'coco'])
metric.update(ImageDetections('a', boxes=[[0, 0, 9, 9]], scores=[0.9], labels=[0],
                              truth_boxes=[[0, 0, 9, 9]], truth_labels=[0]))
print(metric.compute().scalars()['AP50'])""",
            files="`detection_results.json` with everything per class, curves, confusion matrix and settings; "
            "`detection_figure` (AP per class, precision-recall curves), `detection_errors_figure` (F1 against score, "
            "errors per class) and `detection_confusion_figure` as PNG and SVG",
            reference="Everingham et al., IJCV 2010; Lin et al., ECCV 2014; Bolya et al., ECCV 2020 (TIDE); Dollar et "
            "al., TPAMI 2012 (miss rate)",
        ),
        Entry(
            name="VOCDetectionMetric",
            task="boxes, by PASCAL VOC's and COCO's rules at once",
            measures={},
            measures_of="DetectionMetric",
            conventions=["`DetectionMetric` with `rules=['voc2012', 'coco']`; ignored objects are difficult ones."],
            config="""val_evaluator = dict(type='cvplugins.VOCDetectionMetric')
default_hooks = dict(checkpoint=dict(save_best='voc/AP50', rule='greater'))""",
            call="""from cvplugins.metrics import DetectionMetric

metric = DetectionMetric(['cat', 'dog'])  # these rules are its default""",
            files="as `DetectionMetric`, with `voc_` in front",
        ),
        Entry(
            name="InstanceSegmentationMetric",
            task="masks of objects",
            measures={},
            measures_of="DetectionMetric",
            conventions=[
                "The same engine as `DetectionMetric`; overlaps are those of masks, by pycocotools. The state is the "
                "overlaps of each image, not its masks.",
                "Sizes go by the area of the mask, or by the annotation file's.",
            ],
            config="""val_evaluator = dict(
    type='cvplugins.InstanceSegmentationMetric',
    ann_file='data/coco/annotations/instances_val2017.json')""",
            call="""import numpy as np
from cvplugins.metrics import ImageMasks, InstanceSegmentationMetric

square = np.zeros((1, 40, 40), bool)
square[0, 10:20, 10:20] = True
metric = InstanceSegmentationMetric(['cat'])
metric.update(ImageMasks.from_masks('a', square, scores=[0.9], labels=[0], truth_masks=square, truth_labels=[0]))
print(metric.compute().scalars()['AP'])""",
            files="as `DetectionMetric`, with `segm_` in front",
            reference="Lin et al., ECCV 2014",
        ),
        Entry(
            name="SegmentationMetric",
            task="label maps",
            measures={
                "aAcc": "pixel accuracy: pixels that are right over pixels that count",
                "mIoU": "mean over classes of $`\\frac{TP}{TP+FP+FN}`$, of the pixels of all images together",
                "mAcc": "mean over classes of $`\\frac{TP}{TP+FN}`$",
                "mDice": "mean over classes of $`\\frac{2TP}{2TP+FP+FN}`$",
                "mFscore": "mean over classes of $`\\frac{(1+\\beta^2)TP}{(1+\\beta^2)TP+\\beta^2FN+FP}`$",
                "mPrecision": "mean over classes of $`\\frac{TP}{TP+FP}`$",
                "mRecall": "as `mAcc`",
                "fwIoU": "mean of the IoU, each class weighted by its labelled pixels",
                "kappa": "Cohen's kappa: $`\\frac{p_o-p_e}{1-p_e}`$, pixel accuracy against chance",
                "mBoundaryIoU": "IoU of the pixels within 2 % of the diagonal of a boundary (with `boundary=True`)",
                "mBoundaryPrecision": "predicted contour pixels near a labelled contour (with `boundary=True`)",
                "mBoundaryRecall": "labelled contour pixels near a predicted contour (with `boundary=True`)",
                "mBoundaryF1": "harmonic mean of the two (with `boundary=True`)",
                "IoU/*": "IoU of a class",
            },
            conventions=[
                "Counts are int64 sums over all images, so that the result does not depend on batches, ranks or order. "
                "mmseg adds float32, which goes wrong past 2^24 pixels; torchmetrics averages averages.",
                "Fractions of 1; mmseg logs per cent, rounded.",
                "A class that is predicted but nowhere labelled: `rule='mmseg'` counts its IoU as 0, "
                "`rule='detectron2'` leaves it out; `rule='ade20k'` counts every class, "
                "0 where it is undefined. By the others a class that neither is labelled nor predicted is left out.",
                "`ignore_index` is looked for in the labels only.",
            ],
            differences=[
                ("mmseg `IoUMetric`", "0 for classes without labels", "`rule='mmseg'`, the default"),
                ("Detectron2 `SemSegEvaluator`", "leaves such classes out", "`rule='detectron2'`"),
            ],
            config="""val_evaluator = dict(type='cvplugins.SegmentationMetric', boundary=True)
default_hooks = dict(checkpoint=dict(save_best='seg/mIoU', rule='greater'))""",
            call="""import numpy as np
from cvplugins.metrics import SegmentationMetric

metric = SegmentationMetric(['sky', 'sea'])
metric.update('a', label=np.array([[0, 0, 1, 255]]), prediction=np.array([[0, 0, 0, 0]]))
print(metric.compute().scalars()['mIoU'])""",
            files="`seg_results.json` with everything per class and the confusion matrix; `seg_figure` (IoU per class, "
            "confusion matrix) as PNG and SVG",
            reference="Cheng et al., CVPR 2021 (boundary IoU); Perazzi et al., CVPR 2016 (boundary F1)",
        ),
        Entry(
            name="ClassificationMetric",
            task="one label of many, several labels, or yes and no",
            measures={
                "top*": "share of the samples whose label is among the k highest scores",
                "accuracy": "share of the decisions that are right, for `task='multilabel'` and `'binary'`",
                "precision": "$`TP/(TP+FP)`$, mean over classes; also `precision_weighted` by support and "
                "`precision_micro` of all decisions",
                "recall": "$`TP/(TP+FN)`$, the same three",
                "specificity": "$`TN/(TN+FP)`$, the same three",
                "F1": "$`2TP/(2TP+FP+FN)`$, the same three",
                "AUC": "area under the ROC curve, exact, ties count half: one against the rest, mean over classes; "
                "also `AUC_weighted` and `AUC_micro`",
                "AP": "average precision $`\\sum_n(R_n-R_{n-1})P_n`$, mean over classes; also "
                "`AP_weighted` and `AP_micro`",
                "PR_AUC": "area under the precision-recall curve by trapezoids, which is optimistic beside `AP`; also "
                "`PR_AUC_weighted` and `PR_AUC_micro`",
                "log_loss": "mean of $`-\\log p`$ of the true label",
                "ECE": "expected calibration error, $`\\sum_b\\frac{n_b}{n}|acc_b-conf_b|`$ over `bins` of equal width",
                "MCE": "the largest of these differences",
                "best_F1": "highest F1 of any threshold (binary)",
                "best_threshold": "where it is (binary)",
                "F1/*": "F1 of a class, for up to 100 classes",
            },
            conventions=[
                "0 / 0 is undefined and left out of means; `zero_division` gives it a value, as in scikit-learn.",
                "Equal scores at rank k: a label counts as found if fewer than k scores are higher or come before it.",
                "Fractions of 1; mmpretrain gives per cent.",
            ],
            config="""val_evaluator = dict(type='cvplugins.ClassificationMetric', task='multiclass')
default_hooks = dict(checkpoint=dict(save_best='cls/top1', rule='greater'))""",
            call="""import numpy as np
from cvplugins.metrics import ClassificationMetric

metric = ClassificationMetric(['cat', 'dog', 'cow'], top_k=(1, 2))
metric.update(np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1]]), np.array([0, 0]))
print(metric.compute().scalars()['top1'])""",
            files="`cls_results.json`; `cls_figure` (ROC, precision-recall, reliability, F1), `cls_confusion` and "
            "`cls_rates` as PNG and SVG",
            reference="Guo et al., ICML 2017, arXiv:1706.04599 (calibration)",
        ),
        Entry(
            name="TrackingMetric",
            task="objects followed through videos",
            measures={
                "MOTA": "$`1-\\frac{FN+FP+IDSW}{GT}`$",
                "MOTP": "mean IoU of matched boxes",
                "IDSW": "identity switches: an object is matched to another track than before",
                "Frag": "how often a tracked object is lost and found again",
                "FP": "boxes of tracks without an object",
                "FN": "boxes of objects without a track",
                "TP": "matched boxes",
                "Recall": "$`TP/(TP+FN)`$",
                "Precision": "$`TP/(TP+FP)`$",
                "MT": "objects tracked in more than 80 % of their frames",
                "PT": "objects in between",
                "MTR": "share of the objects that are mostly tracked",
                "MLR": "share that are mostly lost",
                "ML": "objects tracked in less than 20 % of their frames",
                "IDF1": "$`\\frac{2IDTP}{2IDTP+IDFP+IDFN}`$ of the best one-to-one assignment of tracks to objects",
                "IDP": "$`IDTP/(IDTP+IDFP)`$",
                "IDR": "$`IDTP/(IDTP+IDFN)`$",
                "IDTP": "boxes on the assigned track",
                "IDFP": "boxes of tracks that are not",
                "IDFN": "boxes of objects that are not",
                "HOTA": "$`\\sqrt{DetA\\cdot AssA}`$, mean over the IoU thresholds 0.05, 0.1, ..., 0.95",
                "DetA": "detection accuracy $`\\frac{TP}{TP+FN+FP}`$",
                "AssA": "mean over matches of the IoU of their tracks",
                "LocA": "mean IoU of matches",
                "DetRe": "recall in HOTA: $`TP/(TP+FN)`$",
                "DetPr": "precision in HOTA: $`TP/(TP+FP)`$",
                "AssRe": "mean over matches of the share of the object's boxes that are on the track",
                "AssPr": "mean over matches of the share of the track's boxes that are on the object",
                "FPS": "frames per second, if the samples say how long each took",
                "HOTA/*": "HOTA of a class",
                "MOTA/*": "MOTA of a class",
                "IDF1/*": "IDF1 of a class",
                "mHOTA": "mean over classes of HOTA",
                "mMOTA": "mean over classes of MOTA",
                "mIDF1": "mean over classes of IDF1",
            },
            conventions=[
                "Counts and rules are TrackEval's; what has no value is left out, where TrackEval divides by 1.",
                "motmetrics keeps a track's last match however old and calls 80 % of the frames mostly tracked; its "
                "MOTP is a distance.",
                "Several videos are combined by adding their counts.",
                "Crowds and `distractors` absorb what is tracked on them.",
            ],
            differences=[
                (
                    "mmdet `MOTChallengeMetric`",
                    "needs TrackEval, pedestrians only",
                    "`dict(type='cvplugins.TrackingMetric')`",
                ),
            ],
            config="""val_evaluator = dict(type='cvplugins.TrackingMetric', classes=['pedestrian'])
default_hooks = dict(checkpoint=dict(save_best='track/HOTA', rule='greater'))""",
            call="""from cvplugins.metrics import TrackedFrame, TrackingMetric

metric = TrackingMetric(['car'])
for frame in range(4):  # the tracker changes the car's id once
    metric.update(TrackedFrame('street', frame, [frame // 2], [[0, 0, 9, 9]], [7], [[0, 0, 9, 9]]))
print(metric.compute().scalars()['IDF1'])""",
            files="`track_results.json`; `track_figure` (HOTA and its parts over the threshold, ids over time) as PNG "
            "and SVG",
            reference="Bernardin and Stiefelhagen, EURASIP 2008 (CLEAR MOT); Ristani et al., arXiv:1609.01775 "
            "(identity); Luiten et al., IJCV 2020, arXiv:2009.07736 (HOTA)",
        ),
        Entry(
            name="ImageQualityMetric",
            task="restored images against true ones",
            measures={
                "MSE": "mean squared error of the values, mean over images",
                "MAE": "mean absolute error",
                "PSNR": "$`10\\log_{10}(\\text{range}^2/\\text{MSE})`$ of each image, mean over images",
                "SSIM": "structural similarity, Gaussian window of 11 pixels and standard deviation 1.5",
                "MS-SSIM": "structural similarity at five scales, if `measures` asks for it",
            },
            conventions=[
                "Each image is measured alone, then averaged: the mean of PSNR is not the PSNR of the mean error.",
                "Equal images have an infinite PSNR; `psnr_of_equal` gives them another number, or NaN to leave them "
                "out.",
                "`data_range` is never guessed. `luminance=True` takes the Y channel of BT.601, `crop_border` leaves "
                "pixels of the edge out, as papers on super-resolution do.",
            ],
            config="""val_evaluator = dict(type='cvplugins.ImageQualityMetric', data_range=255)
default_hooks = dict(checkpoint=dict(save_best='image/PSNR', rule='greater'))""",
            call="""import numpy as np
from cvplugins.metrics import ImageQualityMetric

metric = ImageQualityMetric(data_range=255, measures=('PSNR', 'MAE'))
image = np.zeros((3, 32, 32), np.uint8)
metric.update('a', image + 1, image)
print(metric.compute().scalars()['MAE'])""",
            files="`image_results.json` with every image; `image_figure` as PNG and SVG",
            reference="Wang et al., TIP 2004 (SSIM); Wang et al., Asilomar 2003 (MS-SSIM)",
        ),
        Entry(
            name="GenerationMetric",
            task="generated images as a set",
            measures={
                "FID": "$`\\|\\mu-\\mu_r\\|^2+\\operatorname{tr}(\\Sigma+\\Sigma_r-2(\\Sigma\\Sigma_r)^{1/2})`$ of the "
                "features; less is better",
                "IS": "inception score, $`\\exp\\,\\mathbb{E}\\,KL(p(y|x)\\,\\|\\,p(y))`$, mean over `splits`",
                "IS_std": "its standard deviation over `splits`",
            },
            conventions=[
                "Both depend on the network. `weights` loads torchvision's Inception v3, whose numbers are not those "
                "of papers, which take TensorFlow's; features of any network can be given instead.",
                "FID depends on the number of images: papers take 50,000.",
                "Features are kept and ordered by the image's id, so that the result does not depend on ranks.",
            ],
            config="""val_evaluator = dict(type='cvplugins.GenerationMetric', weights='inception_v3.pth')
default_hooks = dict(checkpoint=dict(save_best='generation/FID', rule='less'))""",
            call="""import numpy as np
from cvplugins.metrics import GenerationMetric

generator = np.random.default_rng(0)
metric = GenerationMetric(splits=2)
metric.update(range(50), generator.normal(size=(50, 8)), generator.dirichlet(np.ones(5), 50))
metric.update(range(50), generator.normal(size=(50, 8)), real=True)
print(metric.compute().scalars()['FID'])""",
            files="`generation_results.json`",
            reference="Heusel et al., NeurIPS 2017, arXiv:1706.08500; Salimans et al., NeurIPS 2016, arXiv:1606.03498",
        ),
    )
}
