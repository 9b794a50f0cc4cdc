# ade20k_mask2former_r50.py with other losses: Dice and focal loss of this package on the masks, focal loss on the
# classes. Every loss of the head is replaced by its name alone; weights and matching stay.
_base_ = "./ade20k_mask2former_r50.py"

model = dict(
    decode_head=dict(
        loss_mask=dict(_delete_=True, type="cvplugins.FocalLoss", use_sigmoid=True, alpha=0.25, loss_weight=20.0),
        loss_dice=dict(_delete_=True, type="cvplugins.DiceLoss", mode="binary", smooth=0.5, loss_weight=5.0),
    )
)
