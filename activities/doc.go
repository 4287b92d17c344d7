// Package activities is what a fine-tune does to the world, one file an activity.
//
// Each activity may be run again at any point: it finds what an earlier attempt has finished, publishes by a manifest
// that is written last, and beats from completed work only. Internal packages return typed errors; errors.go alone
// decides which of them Temporal retries. The package never needs cgo: the engine comes in as a [train.OpenFunc].
package activities
