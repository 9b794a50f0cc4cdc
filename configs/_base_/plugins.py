# What every config here adds to the zoo's, whatever the task.

custom_hooks = [
    # A run that was killed and resumed repeats the uninterrupted one.
    dict(type="cvplugins.IterationSeedHook"),
    # Says at the start how many passes over the images the schedule makes, and whether the lr fits the batch.
    dict(type="cvplugins.TrainingPlanHook"),
    # Names the layer and the iteration at which gradients vanish, explode or die; stops before NaN reaches the weights.
    dict(type="cvplugins.GradientHealthHook"),
    # The metrics write their JSON and figure beside the log.
    dict(type="cvplugins.ResultFilesHook"),
    # Batch norms that train are synchronised over processes; frozen ones and those in evaluation mode stay as they are.
    dict(type="cvplugins.NormPolicyHook", rules=[dict(to="SyncBN")]),
]
