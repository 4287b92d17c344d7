// Package train runs epochs over an [Engine]: order of rows, learning-rate schedule, logging windows, checkpoints.
//
// It is pure Go. Whatever decides what a step computes is a function of (recipe, data, seed, epoch, step), so
// that a run resumed from any checkpoint repeats the steps that an uninterrupted one makes.
package train
