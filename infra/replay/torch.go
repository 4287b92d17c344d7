//go:build torch

package main

import "github.com/duratune/duratune/internal/engine"

var open = engine.Open
