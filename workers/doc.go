// Package workers is what both worker binaries share: the environment they read, once, and the Temporal client and worker
// they run. workers/cpu is pure Go; workers/gpu links libtorch and also trains on a CPU where there is no GPU.
package workers
