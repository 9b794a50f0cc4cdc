# ade20k_mask2former_r50.py for one GPU of 24 GB, which holds the 16 images of a step at once in mixed precision, as the
# original has it. The learning rate is right as it is: no --auto-scale-lr. docs/mask2former.md has the memory.
_base_ = "./ade20k_mask2former_r50.py"

train_dataloader = dict(batch_size=16, num_workers=8)
optim_wrapper = dict(type="AmpOptimWrapper", loss_scale="dynamic")
