// Package torch is the boundary to libtorch: the only importer of gotch, and the home of the little C++ that gotch lacks.
//
// Rules that hold here, and that everything above relies on:
//
//   - libtorch keeps its last error, its grad mode and its thread pool per OS thread. All tensor code therefore runs on
//     one locked OS thread, inside [Thread.Do]. A tensor belongs to the thread that made it.
//   - No call ends the process: gotch's Must functions are not used, and a C++ exception becomes a Go error.
//   - Every tensor belongs to a [Scope], which frees it in Close. There are no finalizers, so memory is flat without
//     the garbage collector's help.
//   - Errors are sticky: after the first one the scope's operations do nothing and return the zero Tensor, so that a
//     forward pass reads as a list of operations and is checked once, with [Scope.Err].
//   - Gradients do not flow into leaves. A [Param] carries the place its gradient goes, and the backward pass of the
//     operations in native.cpp writes there directly, so that all gradients of a model lie in one flat buffer.
//
// It binds gotch's lower half (libtch) rather than package ts, which allocates 100 kB of Go heap for each tensor handle
// and keeps them in a map behind a lock: 26 µs an operation, where libtch costs less than one.
//
// Without the build tag torch the package is empty, so that ./... builds anywhere.
package torch
