// Package native is the C++ that gotch lacks, with the thinnest of Go wrappers: parameter gradients that land in a flat
// buffer, dropout keyed by (seed, step, row), attention over packed sequences, and AdamW on flat buffers. Only package
// torch uses it; it is a package of its own so that Go's build cache keeps the C++ when the Go around it changes.
package native
