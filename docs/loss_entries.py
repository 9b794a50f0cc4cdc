"""What docs/losses.md says of each loss and the code does not know."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ENTRIES", "FAMILIES", "Entry", "Nowhere"]

FAMILIES = {
    "Classes": "One label or several for each box, pixel or image.",
    "Boxes and numbers": "Predicted numbers against their true values; boxes also by their overlap.",
    "Region overlap": "Masks by how much they share with the true region, so that its size does not matter.",
    "Boundaries": "Pixels by how far they lie from a boundary.",
    "Embeddings": "Vectors that ought to be near to or far from each other.",
    "Images": "Generated or restored images against true ones, and adversarial training.",
    "Composition and regularisation": "Several losses as one, and penalties on the weights.",
}


class Nowhere(str):
    """Why a framework has no place for a loss, in place of a snippet."""


@dataclass(frozen=True)
class Entry:
    """One loss.

    Attributes:
        name: The registered type.
        family: One of ``FAMILIES``.
        summary: When to take it, in a few words.
        formula: LaTeX, per element if not said otherwise.
        where: What the symbols of the formula mean.
        prediction: Shape and meaning of the first argument.
        target: Shape and meaning of the second.
        reference: Author, year, arXiv number; empty where it is common knowledge.
        mmdet: A config, or why there is none.
        mmseg: A config, or why there is none.
        detectron2: A call, or why there is none.
        use: When to use it.
        avoid: When not to.
        torch: A call in a training loop of one's own.
        logged: Names in mmseg's log, where they are not that of the loss.
    """

    name: str
    family: str
    summary: str
    formula: str
    where: str
    prediction: str
    target: str
    reference: str
    mmdet: str
    mmseg: str
    detectron2: str
    use: str
    avoid: str
    torch: str = ""
    logged: str = ""


def in_retinanet(part: str, loss: str, more: str = "") -> str:
    """Return a config that puts a loss into RetinaNet's head."""
    return f"""\
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
model = dict(bbox_head=dict({more}{part}=dict(
    _delete_=True, type='cvplugins.{loss})))"""


def in_box_head(part: str, loss: str) -> str:
    """Return a config that puts a loss into the box head of Faster R-CNN."""
    return f"""\
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
model = dict(roi_head=dict(bbox_head=dict({part}=dict(
    _delete_=True, type='cvplugins.{loss}))))"""


def in_rpn(loss: str) -> str:
    """Return a config that puts a loss into the region proposal network of Faster R-CNN."""
    return f"""\
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
model = dict(rpn_head=dict(loss_cls=dict(
    _delete_=True, type='cvplugins.{loss})))"""


def in_mask2former(part: str, loss: str) -> str:
    """Return a config that puts a loss into Mask2Former's head."""
    return f"""\
_base_ = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'
model = dict(panoptic_head=dict({part}=dict(
    _delete_=True, type='cvplugins.{loss})))"""


def in_reid(loss: str) -> str:
    """Return a config that puts a loss on the embeddings of a re-identification model."""
    return f"""\
_base_ = 'mmdet::reid/reid_r50_8xb32-6e_mot17train80_test-mot17val20.py'  # mmdet's ReID needs mmpretrain
model = dict(head=dict(loss_triplet=dict(
    _delete_=True, type='cvplugins.{loss})))"""


def in_decode_head(loss: str) -> str:
    """Return a config that makes a loss the only one of a segmentation head."""
    return f"""\
_base_ = 'mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py'
model = dict(decode_head=dict(loss_decode=dict(
    _delete_=True, type='cvplugins.{loss})))"""


def beside_cross_entropy(loss: str) -> str:
    """Return a config that adds a loss to the cross-entropy of a segmentation head."""
    return f"""\
_base_ = 'mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py'
model = dict(decode_head=dict(loss_decode=[
    dict(type='cvplugins.CrossEntropyLoss'),
    dict(type='cvplugins.{loss})]))"""


def call(place: str, function: str, line: str) -> str:
    """Return a call of a function of the core, and where in Detectron2 it goes."""
    return f"from cvplugins.losses import {function}\n\n# {place}\nloss = {line}"


NO_GRID = Nowhere("Mask2Former hands over sampled points, which lie on no grid.")
NO_HEAD = Nowhere("it takes a model, not a prediction. Add it to the loss in a training step of your own.")
NO_BOXES = Nowhere("its heads predict no boxes.")
NO_PAIRS = Nowhere("no head of theirs hands two sets of vectors to a loss. Call it in a head of your own.")
NO_VECTORS = Nowhere("its heads hand scores and labels to their losses, not embeddings.")
NO_IMAGES = Nowhere("they make no images. Call it in a training loop of your own.")
OWN_CLASSIFIER = Nowhere("their heads own the last linear layer, which this loss replaces. Call it in your own head.")

SCORES = "raw scores `(N, C, *)`"
LABELS = "class indices `(N, *)`"
SCORES_OR_MASKS = "raw scores `(N, C, *)`; `(N, *)` for `mode='binary'`"
LABELS_OR_MASKS = "class indices `(N, *)`; probabilities in the shape of the scores for `'multilabel'` and `'binary'`"
NUMBERS = "any shape"
VECTORS = "vectors `(N, D)`"
GROUPS = "labels `(N,)`, any integers"
IMAGES = "images `(N, C, H, W)`, floating point"

REGION_SYMBOLS = (
    "TP, FP and FN are sums of probabilities over the pixels of a region: a class of an image, or of the batch with "
    "`over='batch'`. $s$ is `smooth`."
)
GRID_SCORES = "raw scores `(N, C, H, W)` or `(N, C, D, H, W)`; without `C` for `mode='binary'`"
GRID_LABELS = "class indices without `C`; masks in the shape of the scores for `'multilabel'` and `'binary'`"

CLASSES = [
    Entry(
        name="CrossEntropyLoss",
        family="Classes",
        summary="exclusive classes; the first choice",
        formula=r"-\sum_c w_c\, y_c \log p_c, \qquad y_c = (1 - \varepsilon)\,[c = t] + \varepsilon / C",
        where="$p$ is the softmax of the scores, $t$ the true class, $w$ `class_weight`, ε `label_smoothing`.",
        prediction=SCORES,
        target=f"{LABELS}, or probabilities `(N, C, *)`",
        reference="",
        mmdet=in_box_head("loss_cls", "CrossEntropyLoss', label_smoothing=0.1"),
        mmseg=in_decode_head("CrossEntropyLoss', label_smoothing=0.1"),
        detectron2=call("box head", "cross_entropy", "cross_entropy(scores, gt_classes, label_smoothing=0.1)"),
        use="Classes exclude each other. `class_weight` lifts rare classes, `label_smoothing` tempers scores that are "
        "too sure. Its mean is over what is not ignored; torch divides by the sum of the class weights instead.",
        avoid="Several labels may be true (`BCELoss`), nearly everything is background (`FocalLoss`, `OHEMLoss`), or "
        "there are more than 10,000 classes (`SampledSoftmaxLoss`).",
    ),
    Entry(
        name="BCELoss",
        family="Classes",
        summary="several labels may be true at once; masks",
        formula=r"-\bigl(w_+\, t \log \sigma(x) + (1 - t) \log(1 - \sigma(x))\bigr)",
        where="σ is the sigmoid, $w_+$ `pos_weight`.",
        prediction="raw scores `(N, C, *)`, or any shape if the target has the same",
        target=f"{LABELS}, where `C` stands for background; or probabilities in the shape of the scores",
        reference="",
        mmdet=in_mask2former("loss_mask", "BCELoss', loss_weight=5.0"),
        mmseg=in_decode_head("BCELoss', pos_weight=2.0"),
        detectron2=call("mask head", "binary_cross_entropy", "binary_cross_entropy(pred_mask_logits, gt_masks)"),
        use="One yes or no for each class: multi-label images, objectness, masks. In mmdet's dense heads say "
        "`use_sigmoid=True` in the config, for the head reads there that no channel is background.",
        avoid="Classes exclude each other (`CrossEntropyLoss`), or negatives outnumber positives by a thousand "
        "(`FocalLoss`).",
    ),
    Entry(
        name="FocalLoss",
        family="Classes",
        summary="far more background than objects",
        formula=r"-\alpha_t\, (1 - p_t)^\gamma \log p_t",
        where="$p_t$ is the probability of what is true: of the true class with a softmax, of each class's yes or no "
        "with `use_sigmoid=True`, where positives weigh α and negatives 1 − α.",
        prediction=SCORES,
        target=f"{LABELS}; with `use_sigmoid=True` `C` stands for background, or probabilities `(N, C, *)`",
        reference="Lin et al. 2017, arXiv:1708.02002",
        mmdet=in_retinanet("loss_cls", "FocalLoss', use_sigmoid=True, alpha=0.25"),
        mmseg=in_decode_head("FocalLoss', gamma=2.0"),
        detectron2="""\
from cvplugins.losses import sigmoid_focal_loss

# RetinaNet
loss = sigmoid_focal_loss(
    cat(pred_logits, dim=1).flatten(0, 1), gt_labels.flatten(), alpha=0.25, ignore_index=-1, divisor=normalizer
)""",
        use="Dense heads without sampling, where easy background would drown the rest; rare classes in segmentation.",
        avoid="Labels are noisy: it turns to what does not fit. After sampling or with balanced classes "
        "`CrossEntropyLoss` does as well.",
    ),
    Entry(
        name="OHEMLoss",
        family="Classes",
        summary="count only the hardest examples, of any loss",
        formula=r"\frac{1}{|K|} \sum_{i \in K} \ell_i",
        where="ℓ is the wrapped loss. $K$ holds the share `keep_ratio` of the elements with the largest loss; or all "
        "positives and, for each of them, `negative_ratio` of the hardest negatives.",
        prediction="what the wrapped loss takes",
        target="what the wrapped loss takes; class indices for `negative_ratio`",
        reference="Shrivastava et al. 2016, arXiv:1604.03540; Liu et al. 2016, arXiv:1512.02325",
        mmdet=in_rpn(
            "OHEMLoss', loss=dict(type='cvplugins.BCELoss'),\n    negative_ratio=3, background=1, use_sigmoid=True"
        ),
        mmseg=in_decode_head("OHEMLoss', loss=dict(type='cvplugins.CrossEntropyLoss'),\n    keep_ratio=0.25"),
        detectron2="""\
from cvplugins.losses import cross_entropy, hardest

# box head
loss_of_each = cross_entropy(scores, gt_classes, reduction="none")
loss = loss_of_each[hardest(loss_of_each, keep_ratio=0.25)].mean()""",
        use="Most examples are easy and you want their number bounded, not only their weight. `loss` may be any loss "
        "per element, also mmdet's or mmseg's own.",
        avoid="Labels are noisy: the hardest examples are the wrong ones. It wraps no loss of regions, such as "
        "`DiceLoss`, which has no value per pixel.",
    ),
    Entry(
        name="SampledSoftmaxLoss",
        family="Classes",
        summary="10,000 classes and more, trained on a sample of them",
        formula=r"-\log \frac{e^{z_t}}{e^{z_t} + \sum_{s \in S,\, s \ne t} e^{z_s}}, \qquad "
        r"z_c = w_c \cdot f + b_c - \log E_c",
        where="$f$ are the features, $w$ and $b$ its own parameters, $S$ a sample of `num_sampled` classes, $E_c$ "
        "the expected count of a class in it. In eval mode it is the full cross-entropy.",
        prediction="features `(N, D)`, not scores",
        target="class indices `(N,)`",
        reference="Jean et al. 2015, arXiv:1412.2007",
        mmdet=OWN_CLASSIFIER,
        mmseg=OWN_CLASSIFIER,
        detectron2=OWN_CLASSIFIER,
        torch="""\
from cvplugins.losses import SampledSoftmaxLoss

classifier = SampledSoftmaxLoss(in_features=16, num_classes=50_000, num_sampled=256)
loss = classifier(features, labels)
predicted = classifier.predict(features)""",
        use="Time and memory of a step must not grow with the classes. Its gradients are sparse: take "
        "`torch.optim.SparseAdam`, or `SGD` without momentum and weight decay; or say `sparse=False`.",
        avoid="A full softmax fits, or you need normalised probabilities while training (`AdaptiveSoftmaxLoss`).",
    ),
    Entry(
        name="AdaptiveSoftmaxLoss",
        family="Classes",
        summary="10,000 classes and more of very different frequency, exactly normalised",
        formula=r"-\log p(t), \qquad p(t) = p_{\text{head}}(t) \ \text{ or } \ "
        r"p_{\text{head}}(\text{cluster}) \; p(t \mid \text{cluster})",
        where="The head scores frequent classes and clusters; the classes of a cluster are scored only where needed, "
        "in fewer dimensions.",
        prediction="features `(N, D)`, not scores",
        target="class indices `(N,)`, in falling order of frequency unless `frequencies` is given",
        reference="Grave et al. 2017, arXiv:1609.04309",
        mmdet=OWN_CLASSIFIER,
        mmseg=OWN_CLASSIFIER,
        detectron2=OWN_CLASSIFIER,
        torch="""\
from cvplugins.losses import AdaptiveSoftmaxLoss

classifier = AdaptiveSoftmaxLoss(in_features=16, num_classes=50_000, cutoffs=[2000, 10_000])
loss = classifier(features, labels)
predicted = classifier.predict(features)""",
        use="A few classes make up most of the data. Gradients are dense: every optimizer takes them.",
        avoid="All classes are about as frequent: then nothing is saved.",
    ),
]

BOXES = [
    Entry(
        name="BoxIoULoss",
        family="Boxes and numbers",
        summary="boxes by their overlap; seven kinds",
        formula=r"""\begin{aligned}
\mathtt{iou} \quad & 1 - \mathrm{IoU} \\
\mathtt{giou} \quad & 1 - \mathrm{IoU} + (|E| - |U|) / |E| \\
\mathtt{diou} \quad & 1 - \mathrm{IoU} + d^2 / c^2 \\
\mathtt{ciou} \quad & \mathtt{diou} + \alpha v, \quad
v = \tfrac{4}{\pi^2} \bigl(\arctan \tfrac{w_t}{h_t} - \arctan \tfrac{w}{h}\bigr)^2, \quad
\alpha = \tfrac{v}{1 - \mathrm{IoU} + v} \\
\mathtt{eiou} \quad & \mathtt{diou} + (w - w_t)^2 / w_E^2 + (h - h_t)^2 / h_E^2 \\
\mathtt{siou} \quad & 1 - \mathrm{IoU} + (\Delta + \Omega) / 2 \\
\mathtt{alpha\_iou} \quad & 1 - \mathrm{IoU}^3
\end{aligned}""",
        where="$E$ is the enclosing box with diagonal $c$, $U$ the union, $d$ the distance of the centres, $w$ and $h$ "
        "sizes; Δ and Ω are the distance cost, which depends on the angle, and the shape cost.",
        prediction="boxes `(*, 4)` as corners `xyxy`; `xywh_to_xyxy` converts",
        target="boxes of the same shape",
        reference="giou: Rezatofighi 2019, arXiv:1902.09630; diou, ciou: Zheng 2020, arXiv:1911.08287; "
        "eiou: Zhang 2021, arXiv:2101.08158; siou: Gevorgyan 2022, arXiv:2205.12740; "
        "alpha_iou: He 2021, arXiv:2110.13675",
        mmdet=in_retinanet("loss_bbox", "BoxIoULoss', kind='ciou', loss_weight=2.0", "reg_decoded_bbox=True, "),
        mmseg=NO_BOXES,
        detectron2=call(
            "box head, decoded boxes",
            "box_iou_loss",
            'box_iou_loss(pred_boxes, gt_boxes, kind="ciou", divisor=max(gt_classes.numel(), 1))',
        ),
        use="You are judged by IoU: it weighs small and large boxes alike. mmdet's heads need `reg_decoded_bbox=True`, "
        "so that they hand over boxes instead of offsets.",
        avoid="`iou` and `alpha_iou` where boxes may not overlap at all: their gradient is then 0. For offsets take "
        "`SmoothL1Loss` or `L1Loss`.",
    ),
    Entry(
        name="L1Loss",
        family="Boxes and numbers",
        summary="box offsets, depth, pixel values; robust",
        formula=r"|x - t|",
        where="",
        prediction=NUMBERS,
        target="the same shape",
        reference="",
        mmdet=in_box_head("loss_bbox", "L1Loss', loss_weight=1.0"),
        mmseg=NO_BOXES,
        detectron2=call(
            "box head, offsets",
            "l1_loss",
            "l1_loss(fg_pred_deltas, gt_deltas, divisor=max(gt_classes.numel(), 1))",
        ),
        use="Differences of which large ones should not rule. The usual loss for box offsets.",
        avoid="You need a gradient that fades towards 0 (`SmoothL1Loss`, `CharbonnierLoss`).",
    ),
    Entry(
        name="SmoothL1Loss",
        family="Boxes and numbers",
        summary="box offsets; like L1, but smooth at 0",
        formula=r"\begin{cases} d^2 / (2 \beta) & d < \beta \\ d - \beta / 2 & \text{else} \end{cases}"
        r", \qquad d = |x - t|",
        where="β is `beta`; 0 gives L1.",
        prediction=NUMBERS,
        target="the same shape",
        reference="Girshick 2015, arXiv:1504.08083",
        mmdet=in_box_head("loss_bbox", "SmoothL1Loss', beta=1.0"),
        mmseg=NO_BOXES,
        detectron2=call(
            "box head, offsets",
            "smooth_l1_loss",
            "smooth_l1_loss(fg_pred_deltas, gt_deltas, beta=0.11, divisor=max(gt_classes.numel(), 1))",
        ),
        use="Box offsets, where the last small errors should not make the gradient jump.",
        avoid="`beta` has to fit the scale of the numbers; where you do not know it, take `L1Loss`.",
    ),
    Entry(
        name="L2Loss",
        family="Boxes and numbers",
        summary="numbers with Gaussian noise",
        formula=r"(x - t)^2",
        where="",
        prediction=NUMBERS,
        target="the same shape",
        reference="",
        mmdet=in_box_head("loss_bbox", "L2Loss', loss_weight=1.0"),
        mmseg=NO_BOXES,
        detectron2=call(
            "box head, offsets",
            "l2_loss",
            "l2_loss(fg_pred_deltas, gt_deltas, divisor=max(gt_classes.numel(), 1))",
        ),
        use="Large errors are the ones to avoid; images judged by PSNR.",
        avoid="There are outliers: one of them outweighs many good values.",
    ),
    Entry(
        name="CharbonnierLoss",
        family="Boxes and numbers",
        summary="restored images; like L1, but smooth",
        formula=r"\sqrt{(x - t)^2 + \epsilon^2}",
        where="ε is `eps`, which is also the least value.",
        prediction=NUMBERS,
        target="the same shape",
        reference="Charbonnier et al. 1994; Lai et al. 2017, arXiv:1704.03915",
        mmdet=in_box_head("loss_bbox", "CharbonnierLoss', eps=0.01"),
        mmseg=NO_BOXES,
        detectron2=call(
            "box head, offsets",
            "charbonnier_loss",
            "charbonnier_loss(fg_pred_deltas, gt_deltas, divisor=max(gt_classes.numel(), 1))",
        ),
        use="Super-resolution, deblurring and other restoration.",
        avoid="You want 0 for a perfect prediction.",
    ),
]

REGIONS = [
    Entry(
        name="DiceLoss",
        family="Region overlap",
        summary="small objects; the first choice beside cross-entropy",
        formula=r"1 - \frac{\mathrm{TP} + s}{\mathrm{TP} + \frac{1}{1 + b^2} \mathrm{FP} "
        r"+ \frac{b^2}{1 + b^2} \mathrm{FN} + s}",
        where=f"{REGION_SYMBOLS} $b$ is `beta`, and 1 is Dice. `smooth=0.5` is Mask2Former's Dice: mmdet's "
        "`naive_dice=True, eps=1`, which stands beside the doubled sums.",
        prediction=SCORES_OR_MASKS,
        target=LABELS_OR_MASKS,
        reference="a Tversky loss: Salehi et al. 2017, arXiv:1706.05721",
        mmdet=in_mask2former("loss_dice", "DiceLoss', mode='binary', smooth=0.5, loss_weight=5.0"),
        mmseg=beside_cross_entropy("DiceLoss', loss_weight=3.0"),
        detectron2=call(
            "semantic head",
            "cross_entropy, tversky_loss",
            "cross_entropy(predictions, targets, ignore_index=255) + 3 * tversky_loss(predictions, targets)",
        ),
        use="Regions of very different size, medical images, masks of queries. `ignore_index` leaves out pixels. "
        "`over='batch'` is steadier where many classes are absent from each image.",
        avoid="Alone on many classes: its gradient is small and uneven at first. Add cross-entropy.",
    ),
    Entry(
        name="IoULoss",
        family="Region overlap",
        summary="masks by the Jaccard index",
        formula=r"1 - \frac{\mathrm{TP} + s}{\mathrm{TP} + \mathrm{FP} + \mathrm{FN} + s}",
        where=REGION_SYMBOLS,
        prediction=SCORES_OR_MASKS,
        target=LABELS_OR_MASKS,
        reference="a Tversky loss: Salehi et al. 2017, arXiv:1706.05721",
        mmdet=in_mask2former("loss_dice", "IoULoss', mode='binary', loss_weight=5.0"),
        mmseg=beside_cross_entropy("IoULoss', loss_weight=1.0"),
        detectron2=call("semantic head", "tversky_loss", "tversky_loss(predictions, targets, alpha=1.0, beta=1.0)"),
        use="You are judged by IoU and want the loss to say so; it is stricter than Dice.",
        avoid="Boxes: that is `BoxIoULoss`. `LovaszLoss` is a closer stand-in for the IoU of hard decisions.",
    ),
    Entry(
        name="TverskyLoss",
        family="Region overlap",
        summary="choose between misses and false alarms",
        formula=r"1 - \frac{\mathrm{TP} + s}{\mathrm{TP} + \alpha\, \mathrm{FP} + \beta\, \mathrm{FN} + s}",
        where=REGION_SYMBOLS,
        prediction=SCORES_OR_MASKS,
        target=LABELS_OR_MASKS,
        reference="Salehi et al. 2017, arXiv:1706.05721",
        mmdet=in_mask2former("loss_dice", "TverskyLoss', mode='binary', loss_weight=5.0"),
        mmseg=beside_cross_entropy("TverskyLoss', alpha=0.3, beta=0.7"),
        detectron2=call("semantic head", "tversky_loss", "tversky_loss(predictions, targets, alpha=0.3, beta=0.7)"),
        use="A missed pixel is worse than a false one (`beta` above `alpha`), as with lesions; or the reverse.",
        avoid="Both errors cost the same: that is `DiceLoss`.",
    ),
    Entry(
        name="FocalTverskyLoss",
        family="Region overlap",
        summary="Tversky that goes on improving regions that are nearly right",
        formula=r"\Bigl(1 - \frac{\mathrm{TP} + s}{\mathrm{TP} + \alpha\, \mathrm{FP} + \beta\, \mathrm{FN} + s}"
        r"\Bigr)^{\gamma}",
        where=REGION_SYMBOLS,
        prediction=SCORES_OR_MASKS,
        target=LABELS_OR_MASKS,
        reference="Abraham and Khan 2019, arXiv:1810.07842",
        mmdet=in_mask2former("loss_dice", "FocalTverskyLoss', mode='binary', loss_weight=5.0"),
        mmseg=beside_cross_entropy("FocalTverskyLoss', gamma=0.75"),
        detectron2=call(
            "semantic head",
            "tversky_loss",
            "tversky_loss(predictions, targets, alpha=0.3, beta=0.7, gamma=0.75)",
        ),
        use="With γ below 1, as in the paper, the gradient of small losses grows: it polishes. Above 1 it turns to "
        "the worst regions.",
        avoid="Before you have tried `TverskyLoss`: it has one more number to tune.",
    ),
    Entry(
        name="GeneralizedDiceLoss",
        family="Region overlap",
        summary="Dice of all classes together, small ones lifted",
        formula=r"1 - \frac{2 \sum_c w_c\, \mathrm{TP}_c + s}{\sum_c w_c\, (P_c + T_c) + s}, "
        r"\qquad w_c = 1 / T_c^2",
        where="$P$ and $T$ are the predicted and the true size of a class; an absent class gets the largest weight of "
        "those that are there. $s$ is `smooth`.",
        prediction=SCORES_OR_MASKS,
        target=LABELS_OR_MASKS,
        reference="Sudre et al. 2017, arXiv:1707.03237",
        mmdet=Nowhere("Mask2Former has one region for each mask, and of one region this is `DiceLoss`."),
        mmseg=beside_cross_entropy("GeneralizedDiceLoss', loss_weight=1.0"),
        detectron2=call("semantic head", "generalized_dice_loss", "generalized_dice_loss(predictions, targets)"),
        use="Few classes whose sizes differ by orders of magnitude, as in medical volumes.",
        avoid="Many classes: a tiny one may rule the whole image.",
    ),
    Entry(
        name="LovaszLoss",
        family="Region overlap",
        summary="fine-tune the mean IoU itself",
        formula=r"\sum_i m_{(i)} \, \bigl(J_i - J_{i-1}\bigr)",
        where="Of each class that is there: $m_{(i)}$ are the errors of its pixels in falling order, $J_i$ is one "
        "minus the Jaccard index if the first $i$ of them are wrong. With `binary=True` hinge errors of raw scores.",
        prediction="raw scores `(N, C, *)`; `(N, *)` for `binary=True`",
        target="class indices `(N, *)`; 0 and 1 for `binary=True`",
        reference="Berman et al. 2018, arXiv:1705.08790",
        mmdet=in_mask2former("loss_dice", "LovaszLoss', binary=True, loss_weight=1.0"),
        mmseg=beside_cross_entropy("LovaszLoss', over='batch'"),
        detectron2=call(
            "semantic head", "lovasz_softmax_loss", 'lovasz_softmax_loss(predictions, targets, over="batch")'
        ),
        use="After or beside cross-entropy, when the mean IoU counts. `over='batch'` for images with few classes.",
        avoid="From scratch and alone. It sorts all pixels for each class, which takes time with many classes. It has "
        "no weight per pixel: leave mmseg's pixel sampler out.",
    ),
]

BOUNDARIES = [
    Entry(
        name="BoundaryLoss",
        family="Boundaries",
        summary="tiny or thin regions, beside a region loss",
        formula=r"\frac{1}{C} \sum_c p_c \, \varphi_c",
        where="$p$ is the probability, $\\varphi_c$ the signed distance to the boundary of class $c$ in the label, "
        "negative inside. The loss may be negative.",
        prediction=GRID_SCORES,
        target=GRID_LABELS,
        reference="Kervadec et al. 2019, arXiv:1812.07032",
        mmdet=NO_GRID,
        mmseg="""\
_base_ = 'mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py'
model = dict(decode_head=dict(loss_decode=dict(
    _delete_=True, type='cvplugins.CompositeLoss',
    losses=dict(
        dice=dict(type='cvplugins.DiceLoss'),
        boundary=dict(type='cvplugins.BoundaryLoss', normalise=True)),
    weights=dict(boundary=[(0, 0.01), (20000, 1.0)]))))""",
        detectron2=call(
            "semantic head",
            "boundary_loss, tversky_loss",
            "tversky_loss(predictions, targets) + 0.1 * boundary_loss(predictions, targets, normalise=True)",
        ),
        use="Regions so small that Dice says little. Let its weight rise during training, from about 0.01. "
        "`cache_size` remembers distance maps of labels that come back unchanged.",
        avoid="Alone: its gradient vanishes with small regions.",
    ),
    Entry(
        name="HausdorffLoss",
        family="Boundaries",
        summary="errors far from the boundary, both ways",
        formula=r"\frac{1}{C} \sum_c (p_c - y_c)^2 \, \bigl(d_{y,c}^\alpha + d_{p,c}^\alpha\bigr)",
        where="$d_y$ and $d_p$ are the distances to the boundaries of the label and of the prediction; the latter "
        "counts as constant.",
        prediction=GRID_SCORES,
        target=GRID_LABELS,
        reference="Karimi and Salcudean 2019, arXiv:1904.10030",
        mmdet=NO_GRID,
        mmseg=beside_cross_entropy("HausdorffLoss', normalise=True, loss_weight=0.5"),
        detectron2=call(
            "semantic head",
            "cross_entropy, hausdorff_loss",
            "cross_entropy(predictions, targets, ignore_index=255) "
            "+ 0.5 * hausdorff_loss(predictions, targets, normalise=True)",
        ),
        use="Stray islands far from the object must go; you are judged by the Hausdorff distance.",
        avoid="Time is short and many classes are predicted: the distances of the prediction are measured anew in "
        "each step. `one_sided=True` does without them.",
    ),
    Entry(
        name="BoundaryCrossEntropyLoss",
        family="Boundaries",
        summary="cross-entropy with sharp edges",
        formula=r"\bigl(1 + w_0 \, e^{-d^2 / (2 \sigma^2)}\bigr) \, \mathrm{CE}",
        where="$d$ is the distance to the nearest boundary between two labels in pixels, $w_0$ `boundary_weight`.",
        prediction="raw scores `(N, C, H, W)` or `(N, C, D, H, W)`",
        target="class indices without `C`",
        reference="Ronneberger et al. 2015, arXiv:1505.04597",
        mmdet=NO_GRID,
        mmseg=in_decode_head("BoundaryCrossEntropyLoss', boundary_weight=10.0, sigma=5.0"),
        detectron2=call("semantic head", "boundary_cross_entropy", "boundary_cross_entropy(predictions, targets)"),
        use="Touching objects and contours count. It needs no second loss.",
        avoid="Labels are careless near boundaries.",
    ),
]

EMBEDDINGS = [
    Entry(
        name="CosineSimilarityLoss",
        family="Embeddings",
        summary="a vector or feature map for each target: distillation",
        formula=r"1 - \frac{x \cdot t}{|x| \, |t|}",
        where="",
        prediction="vectors `(N, D)` or feature maps `(N, D, *)`",
        target="the same shape",
        reference="",
        mmdet=NO_PAIRS,
        mmseg=NO_PAIRS,
        detectron2=call("your own head", "cosine_similarity_loss", "cosine_similarity_loss(features, target_features)"),
        use="A student learns the direction of a teacher's features, whatever their length.",
        avoid="Vectors come with labels instead of targets (`SupConLoss`, `TripletLoss`).",
    ),
    Entry(
        name="TripletLoss",
        family="Embeddings",
        summary="retrieval and re-identification",
        formula=r"\max\bigl(0,\; d(a, p) - d(a, n) + m\bigr)",
        where="$a$ is the anchor, $p$ the farthest vector of its label and $n$ the nearest of another; "
        "`mining='semi_hard'` picks milder ones. $m$ is `margin`; `'soft'` takes softplus for the maximum.",
        prediction=VECTORS,
        target=GROUPS,
        reference="Hermans et al. 2017, arXiv:1703.07737; Schroff et al. 2015, arXiv:1503.03832",
        mmdet=in_reid("TripletLoss', margin=0.3"),
        mmseg=NO_VECTORS,
        detectron2=call("your own head", "triplet_loss", 'triplet_loss(features, labels, margin="soft")'),
        use="The order of distances counts. Batches need several samples of each of several labels.",
        avoid="Small batches without repeated labels: there is no positive. Hard mining with noisy labels.",
    ),
    Entry(
        name="ContrastiveLoss",
        family="Embeddings",
        summary="same or different, by absolute distance",
        formula=r"\begin{cases} d^2 & \text{same label} \\ \max(0, m - d)^2 & \text{else} \end{cases}",
        where="$d$ is the Euclidean distance of a pair, $m$ `margin`; an anchor's loss is the mean over its pairs.",
        prediction=VECTORS,
        target=GROUPS,
        reference="Hadsell et al. 2006 (there with a factor of 1/2)",
        mmdet=in_reid("ContrastiveLoss', margin=1.0"),
        mmseg=NO_VECTORS,
        detectron2=call("your own head", "contrastive_loss", "contrastive_loss(features, labels, margin=1.0)"),
        use="You decide by a threshold on the distance, as in verification.",
        avoid="Labels with several modes: it draws all of a label to one point.",
    ),
    Entry(
        name="SupConLoss",
        family="Embeddings",
        summary="labelled embeddings; the first choice with large batches",
        formula=r"-\frac{1}{|P(i)|} \sum_{p \in P(i)} \log \frac{e^{s_{ip} / \tau}}{\sum_{a \ne i} e^{s_{ia} / \tau}}",
        where="$s$ are cosines, $P(i)$ the other samples with the label of $i$, τ `temperature`.",
        prediction=VECTORS,
        target=GROUPS,
        reference="Khosla et al. 2020, arXiv:2004.11362",
        mmdet=in_reid("SupConLoss', temperature=0.1"),
        mmseg=NO_VECTORS,
        detectron2=call("your own head", "supcon_loss", "supcon_loss(features, labels, temperature=0.1)"),
        use="Pretraining and retrieval with labels. With one label per image and two views of each it is NT-Xent "
        "(SimCLR).",
        avoid="Very large batches on one device: memory is O(N²). Nothing is gathered over processes.",
    ),
    Entry(
        name="InfoNCELoss",
        family="Embeddings",
        summary="pairs without labels: two views, image and text",
        formula=r"-\log \frac{e^{s_{ii} / \tau}}{\sum_j e^{s_{ij} / \tau}}",
        where="$s_{ij}$ is the cosine of query $i$ and key $j$, τ `temperature`; `symmetric=True` adds the way back.",
        prediction="queries `(N, D)`",
        target="keys `(N, D)`; key `i` belongs to query `i`",
        reference="van den Oord et al. 2018, arXiv:1807.03748; symmetric: Radford et al. 2021, arXiv:2103.00020",
        mmdet=NO_PAIRS,
        mmseg=NO_PAIRS,
        detectron2=call("your own head", "info_nce_loss", "info_nce_loss(features, target_features, symmetric=True)"),
        use="Each query has exactly one right key in the batch; `symmetric=True` is CLIP's loss.",
        avoid="Several samples of a batch belong together (`SupConLoss`).",
    ),
]

IMAGE_LOSSES = [
    Entry(
        name="SSIMLoss",
        family="Images",
        summary="structure of restored images",
        formula=r"1 - \frac{(2 \mu_x \mu_t + C_1)(2 \sigma_{xt} + C_2)}"
        r"{(\mu_x^2 + \mu_t^2 + C_1)(\sigma_x^2 + \sigma_t^2 + C_2)}",
        where="Means, variances and the covariance are over a Gaussian window; the mean over windows and channels is "
        "taken.",
        prediction=IMAGES,
        target="the same shape",
        reference="Wang et al. 2004 (TIP)",
        mmdet=NO_IMAGES,
        mmseg=NO_IMAGES,
        detectron2=NO_IMAGES,
        torch="""\
from cvplugins.losses import l1_loss, ssim_loss

loss = 0.15 * l1_loss(images, target_images) + 0.85 * ssim_loss(images, target_images, value_range=1.0)""",
        use="Restoration, compression, depth from video; usually beside `L1Loss`. Set `value_range`.",
        avoid="Images are smaller than the window, or colours must be exact.",
    ),
    Entry(
        name="MSSSIMLoss",
        family="Images",
        summary="structure over several scales",
        formula=r"1 - \mathrm{SSIM}_S^{w_S} \prod_{s < S} \mathrm{CS}_s^{w_s}",
        where="CS is the contrast and structure part of SSIM at a scale, $w$ `scale_weights`; each scale halves the "
        "images.",
        prediction=f"{IMAGES}; sides of at least `window * 2 ** (scales - 1)`, 176 by default",
        target="the same shape",
        reference="Wang et al. 2003 (Asilomar)",
        mmdet=NO_IMAGES,
        mmseg=NO_IMAGES,
        detectron2=NO_IMAGES,
        torch="""\
from cvplugins.losses import l1_loss, ms_ssim_loss

loss = 0.16 * l1_loss(images, target_images) + 0.84 * ms_ssim_loss(images, target_images)""",
        use="As `SSIMLoss`, when the viewing distance is unknown.",
        avoid="Small crops, and predictions that are far off: a channel with negative structure has no gradient.",
    ),
    Entry(
        name="PerceptualLoss",
        family="Images",
        summary="images that look alike rather than match pixel by pixel",
        formula=r"\sum_l w_l \, \overline{(\phi_l(x) - \phi_l(t))^2}",
        where="$\\phi_l$ are feature maps of a frozen network, the bar is the mean over a map, $w$ `layer_weight`; "
        "`distance='l1'` takes absolute differences.",
        prediction=f"{IMAGES}, in [0, 1] for ImageNet's `mean` and `std`; feature maps for `backbone=None`",
        target="the same",
        reference="Johnson et al. 2016, arXiv:1603.08155",
        mmdet=NO_IMAGES,
        mmseg=NO_IMAGES,
        detectron2=NO_IMAGES,
        torch="""\
from cvplugins.losses import PerceptualLoss

perceptual = PerceptualLoss("vgg16", weights="random")  # for a test; else "torchvision" or the path of a file
loss = perceptual(images, target_images)""",
        use="Super-resolution and translation that should look sharp. The network stays out of parameters and "
        "checkpoints; it may be any module, also a config of an mmdet backbone.",
        avoid="Values must be right (medical images, depth). Weights have to be named; random ones are for tests.",
    ),
    Entry(
        name="StyleLoss",
        family="Images",
        summary="texture, wherever it lies",
        formula=r"\sum_l w_l \, \overline{(G_l(x) - G_l(t))^2}, \qquad "
        r"G_l = \frac{\phi_l \phi_l^{\mathsf T}}{C_l H_l W_l}",
        where="$G$ are Gram matrices of feature maps of a frozen network.",
        prediction=f"{IMAGES}, in [0, 1] for ImageNet's `mean` and `std`; feature maps for `backbone=None`",
        target="the same; height and width may differ",
        reference="Gatys et al. 2016, arXiv:1508.06576",
        mmdet=NO_IMAGES,
        mmseg=NO_IMAGES,
        detectron2=NO_IMAGES,
        torch="""\
from cvplugins.losses import StyleLoss

style = StyleLoss("vgg19", weights="random")  # for a test; else "torchvision" or the path of a file
loss = style(images, target_images)""",
        use="Style transfer, inpainting, texture; beside `PerceptualLoss`, which keeps the content.",
        avoid="The place of things counts: Gram matrices forget it.",
    ),
    Entry(
        name="FeatureMatchingLoss",
        family="Images",
        summary="steadier GANs: match what the discriminator sees",
        formula=r"\frac{1}{L} \sum_l w_l \, \overline{|D_l(x) - D_l(t)|}",
        where="$D_l$ are feature maps of the discriminator for generated and real images.",
        prediction="feature maps `(N, C, *)`: a tensor, or lists, tuples and dicts of them",
        target="the same",
        reference="Salimans et al. 2016, arXiv:1606.03498; Wang et al. 2018, arXiv:1711.11585",
        mmdet=NO_IMAGES,
        mmseg=NO_IMAGES,
        detectron2=NO_IMAGES,
        torch="""\
from cvplugins.losses import FeatureMatchingLoss

loss = FeatureMatchingLoss()([images, images[:, :, ::2, ::2]], [target_images, target_images[:, :, ::2, ::2]])""",
        use="Beside `GANLoss` where each generated image has its real one. Leave the discriminator's scores out.",
        avoid="There are no pairs.",
    ),
    Entry(
        name="GANLoss",
        family="Images",
        summary="adversarial training: vanilla, lsgan, hinge, wgan",
        formula=r"""\begin{array}{lll}
& \text{discriminator: real, fake} & \text{generator} \\
\mathtt{vanilla} & -\log \sigma(s),\; -\log(1 - \sigma(s)) & -\log \sigma(s) \\
\mathtt{lsgan} & (s - 1)^2,\; s^2 & (s - 1)^2 \\
\mathtt{hinge} & \max(0, 1 - s),\; \max(0, 1 + s) & -s \\
\mathtt{wgan} & -s,\; s & -s
\end{array}""",
        where="$s$ are the discriminator's raw scores. `gradient_penalty` and `r1_penalty` bound its gradient.",
        prediction="raw scores `(N, *)`, one per sample or per patch",
        target="`True` for real, `False` for fake; or 1 and 0 per sample or score",
        reference="Goodfellow et al. 2014, arXiv:1406.2661; Mao et al. 2017, arXiv:1611.04076; "
        "Lim and Ye 2017, arXiv:1705.02894; Arjovsky et al. 2017, arXiv:1701.07875; "
        "gradient penalty: Gulrajani et al. 2017, arXiv:1704.00028; R1: Mescheder et al. 2018, arXiv:1801.04406",
        mmdet=NO_IMAGES,
        mmseg=NO_IMAGES,
        detectron2=NO_IMAGES,
        torch="""\
from cvplugins.losses import GANLoss

gan = GANLoss("hinge")
discriminator_step = (
    gan(discriminator(target_images), True)
    + gan(discriminator(images.detach()), False)
    + 5 * gan.r1_penalty(discriminator, target_images)
)
loss = gan(discriminator(images), True, for_generator=True)  # the generator's step""",
        use="`'hinge'` or `'vanilla'` with R1 are steady choices; `'wgan'` needs `gradient_penalty`, times 10.",
        avoid="A loss on the images themselves is good enough: adversarial training is fragile.",
    ),
]

COMPOSITION = [
    Entry(
        name="CompositeLoss",
        family="Composition and regularisation",
        summary="several losses where a head takes one; weights that follow a schedule or are learned",
        formula=r"\sum_k w_k \, \ell_k \qquad \text{learned:} \quad "
        r"\sum_k e^{-v_k} \ell_k + \tfrac{1}{2} v_k",
        where="$w$ are numbers, or points `(iteration, weight)` with straight lines between them; $v$ are learned log "
        "variances.",
        prediction="what all parts take",
        target="what all parts take",
        reference="learned: Kendall et al. 2018, arXiv:1705.07115",
        mmdet="""\
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
model = dict(bbox_head=dict(
    reg_decoded_bbox=True,
    loss_bbox=dict(
        _delete_=True, type='cvplugins.CompositeLoss', loss_name='loss_bbox',
        losses=dict(
            giou=dict(type='cvplugins.BoxIoULoss', kind='giou'),
            l1=dict(type='cvplugins.L1Loss')),
        weights=dict(giou=2.0, l1=[(0, 0.0), (10000, 0.01)]))))""",
        mmseg="""\
_base_ = 'mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py'
model = dict(decode_head=dict(loss_decode=dict(
    _delete_=True, type='cvplugins.CompositeLoss',
    losses=dict(
        ce=dict(type='cvplugins.CrossEntropyLoss'),
        dice=dict(type='cvplugins.DiceLoss')),
    weights=dict(ce=1.0, dice='learned'))))""",
        detectron2="""\
from cvplugins.losses import CompositeLoss, CrossEntropyLoss, DiceLoss

# semantic head
composite = CompositeLoss(
    {"ce": CrossEntropyLoss(ignore_index=255), "dice": DiceLoss()}, {"dice": [(0, 0.0), (1000, 3.0)]}
)
composite.iteration = 500  # get_event_storage().iter
loss = composite(predictions, targets)""",
        logged="`decode.loss_ce`, `decode.loss_dice`: the names of the parts",
        use="You want each part in the log, a part that starts later, or weights you need not tune. Learned weights "
        "are parameters of the head: the optimizer sees them.",
        avoid="A plain list in mmseg's `loss_decode` does the job. Parts that read scores differently (softmax and "
        "sigmoid) do not go together.",
    ),
    Entry(
        name="WeightPenalty",
        family="Composition and regularisation",
        summary="L1, L2 or elastic net on chosen parameters",
        formula=r"l_1 \sum |w| + \tfrac{1}{2}\, l_2 \sum w^2",
        where="The sums are over the parameters that `include` and `exclude` choose by name. The gradient of the "
        "second term is that of SGD's `weight_decay`.",
        prediction="a model instead of a prediction",
        target="none",
        reference="Zou and Hastie 2005 (there without the half)",
        mmdet=NO_HEAD,
        mmseg=NO_HEAD,
        detectron2=NO_HEAD,
        torch="""\
from cvplugins.losses import WeightPenalty

loss = WeightPenalty(l1=1e-5, exclude=["*.bias"])(model)""",
        use="Sparse weights (`l1`), or decay of some layers only. Biases and normalisation are left out unless "
        "`min_dims` is lowered.",
        avoid="L2 on everything: the optimizer's `weight_decay` is cheaper.",
    ),
]

ENTRIES = {
    entry.name: entry
    for entries in (CLASSES, BOXES, REGIONS, BOUNDARIES, EMBEDDINGS, IMAGE_LOSSES, COMPOSITION)
    for entry in entries
}
