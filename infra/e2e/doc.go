// Package e2e tests the whole system from outside: real servers, real workers, real weights, real kills. Its tests carry
// the build tag e2e and run by `go tool task test:e2e`.
package e2e
