//go:build !torch

package main

import (
	"context"
	"errors"

	"github.com/duratune/duratune/internal/train"
)

// open says how to build a command that can train.
func open(context.Context, train.Spec) (train.Engine, error) {
	return nil, errors.New("built without libtorch: run `go tool task replay:step`, which builds with -tags torch")
}
