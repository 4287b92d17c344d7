// Package engine trains and runs a classifier on one device: it implements train.Engine on packages model and torch.
//
// An engine owns four flat fp32 buffers (weights, gradients, two moments); the model's parameters and their gradients are
// views of them, so that norm, clipping and AdamW are single passes. All its tensor code runs on one locked OS thread.
//
// The bits of a step are a function of the weights, the moments, the batch, seed, step and learning rate, for one
// train.Identity: nothing else is kept from step to step but the latch that a loss which was not finite leaves behind.
package engine
