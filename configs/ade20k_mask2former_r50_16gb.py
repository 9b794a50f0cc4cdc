# ade20k_mask2former_r50.py for one GPU of 16 GB: the recipe's 16 images are gathered over several passes for each step.
# mmengine counts passes as iterations, so that all that counts iterations is multiplied. The learning rate is right as
# it is: no --auto-scale-lr. Mixed precision, as in the original. docs/mask2former.md has the memory.
_base_ = "./ade20k_mask2former_r50.py"

batch_size, passes = 8, 2
train_dataloader = dict(batch_size=batch_size)
optim_wrapper = dict(type="AmpOptimWrapper", loss_scale="dynamic", accumulative_counts=passes)
param_scheduler = _base_.param_scheduler
next(each for each in param_scheduler if each.type == "PolyLR").end = 160000 * passes
train_cfg = dict(max_iters=160000 * passes, val_interval=5000 * passes)
default_hooks = dict(checkpoint=dict(interval=5000 * passes))
