// Package lint holds the house rules as tests, each with its reason, as far as golangci-lint does not hold them: which
// package may know which, sizes, documentation, what ends a process, what may stand in a tracked file.
//
// The rules about imports are checked on the source of every file, whatever its build tags, and once more on what the go
// command resolves, indirect imports included.
package lint
