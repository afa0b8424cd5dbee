"""What optimizers have in common: their base, their linear algebra, who gets which parameter.

base      decay, learning rate, batches of equal shapes, state
routing   every parameter of a model to exactly one rule, by its role
width     learning rates that follow the width of a model (muP)
linalg    polar factors, norms; pinv: pseudo-inverses
moments   Adam's direction
inputs    second moments of what enters linear layers
earlier   a second gradient at the weights before the last step
polyak    what is known of the loss, and Polyak's step
steepest  steepest descent for a norm of all parameters together
hyperball steps on the sphere
bridge    optimizers of other libraries
cost      FLOPs and bytes, counted; timing: milliseconds, measured
"""
