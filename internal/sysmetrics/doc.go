// Package sysmetrics reads how busy the machine is, under the names by which MLflow's own monitor logs it and its pages
// group it (system/…): CPU, memory, disk and network from Linux' /proc, GPUs from nvidia-smi where that is installed.
package sysmetrics
