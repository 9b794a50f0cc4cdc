# ade20k_mask2former_r50.py with this package's losses: focal loss and Dice of the masks, cross-entropy of the classes.
# It shows how each loss of the head is replaced by its name; the weights are a start and not tuned. Points, matching
# and deep supervision stay. The head reads class_weight from the config of any loss_cls.
_base_ = "./ade20k_mask2former_r50.py"

model = dict(
    decode_head=dict(
        loss_cls=dict(
            _delete_=True, type="cvplugins.CrossEntropyLoss", class_weight=[1.0] * 150 + [0.1], loss_weight=2.0
        ),
        loss_mask=dict(_delete_=True, type="cvplugins.FocalLoss", use_sigmoid=True, alpha=0.25, loss_weight=20.0),
        loss_dice=dict(_delete_=True, type="cvplugins.DiceLoss", mode="binary", smooth=0.5, loss_weight=5.0),
    )
)
